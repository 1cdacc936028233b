"""One version: what it holds, whether it is complete, and what of it must hold before it may go live."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from mountd.errors import Refused, RemoteError
from mountd.files.client import NoStat
from mountd.model import manifest
from mountd.model.disk import Disk
from mountd.model.survey import FileList, ManifestSummary

TOUCHES_AT_ONCE = 32

T = TypeVar("T")


class Touch(Enum):
    """Whether the store must give the files of a version before it is used, and of which of them a byte is read."""

    NONE = "not checked"
    ASKED = "it is asked about each"
    REQUIRED = "a byte of the required ones is read, and it is asked about the others"
    READ = "a byte of each is read"

    def reads(self, sample: Sequence[str], required: Collection[str]) -> list[str]:
        """Those of `sample` of which a byte is read."""
        if self is Touch.REQUIRED:
            return [path for path in sample if path in required]
        return [*sample] if self is Touch.READ else []


@dataclass(frozen=True, slots=True)
class Content:
    """A version as the bucket holds it. `problems` is empty when it is complete; `verified` means: by its manifest.

    It keeps no mapping of its files: 100,000 of them would stay in memory as long as the version is live.
    """

    version: str
    directory: str
    files: FileList = field(repr=False)
    digest: str
    verified: bool
    problems: tuple[str, ...]
    manifest: ManifestSummary | None = field(default=None, repr=False)
    former: str = ""
    """the digest that mountd 0.1 gave it, which a journal may hold"""
    more_problems: int = 0
    """beyond those that are named"""
    misnamed: int = 0
    """problems with required files that neither are there nor belong to it"""
    unseen: str = ""
    """what the mount does not show of it, though the bucket holds it"""
    sample: tuple[str, ...] = field(default=(), repr=False)
    """see survey.Findings"""
    required: Mapping[str, int] = field(default_factory=dict, repr=False)
    """bytes of the required files that are there"""

    @property
    def complete(self) -> bool:
        return not self.problems

    @property
    def problem_count(self) -> int:
        return len(self.problems) + self.more_problems

    @property
    def bytes(self) -> int:
        return self.files.bytes

    @property
    def listing(self) -> str:
        """Digest of all paths and sizes."""
        return self.files.digest


async def check_seen(disk: Disk, content: Content, required: Sequence[str]) -> None:
    """The mount shows the version as the bucket holds it, and the `required` files now, in full size.

    Served from the directory cache, so it costs little. Raises Refused, DiskError.
    """
    problems = [content.unseen] if content.unseen else []
    found = await disk.stat([f"{content.directory}/{path}" for path in required]) if required else ()
    for path, stat in zip(required, found, strict=True):
        if isinstance(stat, NoStat):
            problems.append(f"{path}: {stat.error.lower()}")
        elif stat.type != "file" or stat.size != content.required.get(path, stat.size) or stat.size == 0:
            problems.append(f"{path} has {stat.size} bytes instead of {content.required.get(path)}")
    if problems:
        raise Refused(f"cannot use version {content.version}, seen through the mount: {manifest.summary(problems)}")


async def check_readable(
    disk: Disk, version: str, directory: str, sample: Sequence[str], reads: Collection[str]
) -> None:
    """The store would give the files `sample` below `directory`, past any cache: an archived object is listed like any
    other. It is asked about each of them; of those that are in `reads` it has to give a byte.

    Raises Refused with those that cannot be read, RemoteError, Unavailable.
    """
    gate, read = asyncio.Semaphore(TOUCHES_AT_ONCE), frozenset(reads)

    async def touch(path: str) -> RemoteError | None:
        async with gate:
            ask = disk.why_unreadable if path in read else disk.why_refused
            return await ask(f"{directory}/{path}")

    answers = await _all(map(touch, sample))
    faults = {path: why for path, why in zip(sample, answers, strict=True) if why}
    if faults:
        first = next(iter(faults.values()))
        text = manifest.summary([f"{path}: {why.text}" for path, why in faults.items()])
        raise Refused(f"cannot use version {version}: {text}", hint=first.hint, code=first.code)


async def _all(works: Iterable[Awaitable[T]]) -> list[T]:
    """Runs them together; the first failure cancels the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def check_has_digests(content: Content) -> None:
    """Raises Refused unless the manifest has a sha256 for each file."""
    if content.manifest is None:
        raise Refused(
            f"cannot check the digests of version {content.version}: it has no {manifest.NAME}",
            hint="`mountd publish` writes one",
        )
    if content.manifest.undigested:
        raise Refused(
            f"cannot check the digests of version {content.version}: its {manifest.NAME} has no sha256 of "
            f"{content.manifest.undigested}",
            hint="`mountd publish` writes all of them",
        )
