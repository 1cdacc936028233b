"""One version: what it holds, whether it is complete, and its metadata loaded so that the app finds it warm."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from mountd.errors import DiskError, MountdError, NotFound, Refused, RemoteError
from mountd.files.client import NoStat
from mountd.model import manifest
from mountd.model.disk import Disk
from mountd.model.layout import Layout
from mountd.model.manifest import Manifest
from mountd.model.required import problems as problems_of

PROGRESS_INTERVAL_S = 0.5
STATS_AT_ONCE = 1000
SMALL_MANIFEST_BYTES = 256 * 1024
"""A larger one is parsed on a thread: 16 MiB take a second."""
TOUCHES_AT_ONCE = 8
MOST_TOUCHES = 200
"""Each is two small requests."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Content:
    """A version as the bucket holds it. `problems` is empty when it is complete; `verified` means: by its manifest."""

    version: str
    directory: str
    files: dict[str, int] = field(repr=False)
    digest: str
    verified: bool
    problems: tuple[str, ...]
    manifest: Manifest | None = field(default=None, repr=False)
    former: str = ""
    """the digest that mountd 0.1 gave it, which a journal may hold"""

    @property
    def complete(self) -> bool:
        return not self.problems

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    @property
    def listing(self) -> str:
        """Digest of all paths and sizes."""
        return manifest.listing_digest(self.files)


async def inspect(disk: Disk, layout: Layout, version: str, required: Sequence[str]) -> Content:
    """What the bucket holds of `version`, compared with its manifest, else with `required`.

    One listing, and a read of the manifest through the mount. Raises NotFound, Unavailable.
    """
    directory = layout.directory(version)
    files = await list_files(disk, directory)
    if not files:
        raise NotFound(
            f"cannot find version {version}: nothing in {directory}", hint="`mountd versions` lists the versions"
        )
    if marker := next(filter(manifest.is_marker, files), None):
        # Nothing in the version is final until its publisher removes the marker.
        problem = f"it is being published, or that was interrupted ({marker} is there)"
        return Content(version, directory, files, manifest.listing_digest(files), False, (problem,))
    if manifest.NAME not in files:
        lacking = tuple(problems_of(required, files, ()))
        return Content(version, directory, files, manifest.listing_digest(files), False, lacking)
    data = await _read_manifest(disk, layout, directory, files[manifest.NAME])
    wanted: Manifest | None = None
    digest = ""
    problems: list[str] = []
    try:
        small = len(data) <= SMALL_MANIFEST_BYTES
        parsed, digest = _parse(data) if small else await asyncio.to_thread(_parse, data)
        wanted = parsed
        if wanted.version != version:
            problems.append(f"{manifest.NAME} is of version {wanted.version}")
        problems += manifest.compare(wanted.files, files)
    except Refused as error:
        problems.append(error.text)
    problems = problems_of(required, files, wanted.files if wanted else ()) + problems
    # Required files are usually named by the manifest too: say it once.
    unique = tuple(dict.fromkeys(problems))
    # What cannot be read as a manifest says nothing of what the version holds.
    digest = digest or manifest.listing_digest(files)
    return Content(version, directory, files, digest, not unique, unique, wanted, manifest.former_digest(data))


def _parse(data: bytes) -> tuple[Manifest, str]:
    wanted = manifest.parse(data)
    return wanted, manifest.digest(wanted)


async def list_files(disk: Disk, directory: str) -> dict[str, int]:
    """Path below `directory` → bytes, past any cache; empty: there is no such directory. Raises Unavailable."""
    try:
        entries = await disk.list_bucket(directory, recursive=True)
    except RemoteError as error:
        if error.code != "directory-missing":
            raise
        entries = []
    return {entry.path[len(directory) + 1 :]: entry.size for entry in entries if not entry.is_dir}


async def _read_manifest(disk: Disk, layout: Layout, directory: str, size: int) -> bytes:
    if size > manifest.MAX_BYTES:
        raise Refused(f"cannot read {directory}/{manifest.NAME}: {size} bytes are too many for a manifest")
    # It may have come after the mount last looked, or, named like an old one, have changed since.
    await disk.refresh(layout.parent)
    await disk.refresh(directory)
    path = f"{directory}/{manifest.NAME}"
    try:
        return await disk.read(path, max(size, 1))
    except DiskError:
        if size == 0 or (why := await disk.why_unreadable(path)) is None:
            raise
        raise Refused(f"cannot read {path}: {why.text}", hint=why.hint, code=why.code) from None


async def load_metadata(disk: Disk, content: Content, progress: Callable[[int], None]) -> float:
    """Loads every name and size of the version into the mount's directory cache; seconds that it took.

    `progress` is called with percents. Raises Unavailable.
    """
    began = time.monotonic()
    before = await disk.cached_files()

    async def watch() -> None:
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL_S)
            with contextlib.suppress(MountdError):
                known = await disk.cached_files() - before
                progress(max(0, min(99, 100 * known // len(content.files))))

    watching = asyncio.create_task(watch())
    try:
        await disk.refresh(content.directory, recursive=True)
    finally:
        watching.cancel()
    progress(100)
    return time.monotonic() - began


async def check_files(disk: Disk, content: Content, required: Sequence[str]) -> None:
    """The mount shows the files that the manifest names and `required`, in full size.

    Served from the directory cache, so it costs little. Raises Refused, DiskError.
    """
    named = content.manifest.files if content.manifest else {}
    wanted = {**{path: content.files.get(path) for path in required}, **named}
    problems: list[str] = []
    paths = list(wanted)
    for begin in range(0, len(paths), STATS_AT_ONCE):
        batch = paths[begin : begin + STATS_AT_ONCE]
        found = await disk.stat([f"{content.directory}/{path}" for path in batch])
        for path, stat in zip(batch, found, strict=True):
            if isinstance(stat, NoStat):
                problems.append(f"{path}: {stat.error.lower()}")
            elif stat.type != "file" or stat.size != wanted[path] or (stat.size == 0 and path in required):
                problems.append(f"{path} has {stat.size} bytes instead of {wanted[path]}")
    if problems:
        raise Refused(f"cannot use version {content.version}, seen through the mount: {manifest.summary(problems)}")


async def check_readable(disk: Disk, content: Content, required: Sequence[str]) -> None:
    """The store gives a byte, past any cache, of the files that the app must find: an archived object is listed like
    any other. Asks for the required files, then for those of the manifest, one of each directory first: 200 at most.

    Raises Refused with those that cannot be read, RemoteError, Unavailable.
    """
    named = content.manifest.files if content.manifest else {}
    wanted = [path for path in dict.fromkeys((*required, *_spread(named))) if content.files.get(path)]
    gate = asyncio.Semaphore(TOUCHES_AT_ONCE)

    async def touch(path: str) -> RemoteError | None:
        async with gate:
            return await disk.why_unreadable(f"{content.directory}/{path}")

    paths = wanted[:MOST_TOUCHES]
    faults = {path: why for path, why in zip(paths, await _all(map(touch, paths)), strict=True) if why}
    if faults:
        first = next(iter(faults.values()))
        text = manifest.summary([f"{path}: {why.text}" for path, why in faults.items()])
        raise Refused(f"cannot use version {content.version}: {text}", hint=first.hint, code=first.code)


def _spread(paths: Iterable[str]) -> list[str]:
    """One of each directory first."""
    first: dict[str, str] = {}
    for path in paths:
        first.setdefault(path.rpartition("/")[0], path)
    return [*first.values(), *paths]


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
    lacking = [path for path in content.manifest.files if path not in content.manifest.sha256]
    if lacking:
        raise Refused(
            f"cannot check the digests of version {content.version}: its {manifest.NAME} has no sha256 of "
            f"{manifest.summary(lacking)}",
            hint="`mountd publish` writes all of them",
        )


def _advance(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


async def check_digests(disk: Disk, content: Content, progress: Callable[[int, int], None]) -> None:
    """Reads the whole version through the mount; `progress` is called with bytes done and in all.

    Raises Refused with every file that differs, DiskError.
    """
    assert content.manifest is not None
    total, before = sum(content.manifest.files.values()), 0
    problems = []
    for path, wanted in content.manifest.sha256.items():
        found = await disk.hash(f"{content.directory}/{path}", partial(_advance, progress, before, total))
        before += found.bytes
        if found.sha256 != wanted:
            problems.append(f"{path} has other bytes than {manifest.NAME} says (sha256 {found.sha256[:12]}…)")
    if problems:
        raise Refused(
            f"cannot use version {content.version}: {manifest.summary(problems)}",
            hint="upload it again, or publish it under a new name",
        )
