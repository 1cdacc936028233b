"""What a model needs of a mount, without one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from mountd.errors import RemoteError
from mountd.files.client import Digest, NoStat, Stat
from mountd.rclone.keys import BucketEntry
from mountd.warm.plan import WantedFile
from mountd.warm.results import FetchResult, FileFault, WarmProgress

SIZE = 5
"""bytes of each file"""


class MemoryReading:
    """Of `files`, which have their bytes when it runs; while the gate is closed it waits. Faults are `disk.faults`."""

    def __init__(
        self,
        disk: MemoryDisk,
        files: Sequence[WantedFile],
        report: Callable[[WarmProgress], None],
        *,
        directory: str = "",
        into: Path | None = None,
    ) -> None:
        self.preferred: list[str] = []
        self.on_open: Callable[[str], None] = lambda _: None
        self._disk = disk
        self._files = files
        self._report = report
        self._directory, self._into = directory, into

    def prefer(self, paths: Iterable[str]) -> None:
        self.preferred = [*paths]

    async def run(self) -> FetchResult:
        total, done = sum(file.size for file in self._files), 0
        faults = self._disk.faults.pop(0) if self._disk.faults else ()
        for number, file in enumerate(self._files, start=1):
            self.on_open(file.path)
            await self._disk.reading_gate.wait()
            self._disk.read.append(file.path)
            done += file.size
            self._report(WarmProgress(done, total, 10.0, 1.0, number, len(self._files), 1))
            if self._disk.reading_failure is not None:
                raise self._disk.reading_failure
        faults = tuple(each for each in faults if any(each.path == file.path for file in self._files))
        return FetchResult(done, (*faults, *await asyncio.to_thread(self._keep)))

    def _keep(self) -> list[FileFault]:
        """What is fetched past the mount becomes files, if its bytes are those that are wanted."""
        found = []
        for file in self._files if self._into is not None else ():
            data = self._disk.object(f"{self._directory}/{file.path}") or b""
            if hashlib.sha256(data).hexdigest() == file.sha256:
                assert self._into is not None
                (self._into / str(file.sha256)).write_bytes(data)
            else:
                found.append(FileFault(file.path, "digest-differs", "its sha256 is another one"))
        return found


class MemoryDisk:
    """Every version is there, with one file, but not the directories of `missing`. While `gate` is closed the bucket
    does not answer.

    `waits` is set once a request waits for the gate; `failure` is what a listing raises.
    """

    root = "/mnt"
    scratch = Path(tempfile.gettempdir())

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.waits = asyncio.Event()
        self.failure: RemoteError | None = None
        self.missing: set[str] = set()
        self.sizes: dict[str, int] = {}
        """of the file in a directory, where it is not SIZE: so that a version has a digest of its own"""
        self.read: list[str] = []
        """what was read ahead"""
        self.restored: list[str] = []
        self.faults: list[tuple[FileFault, ...]] = []
        """of the next readings"""
        self.reading_failure: RemoteError | None = None
        self.reading_gate = asyncio.Event()
        self.reading_gate.set()

    def in_turn(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    @property
    def ignored(self) -> Mapping[str, str]:
        return {}

    async def _pass_gate(self) -> None:
        if not self.gate.is_set():
            self.waits.set()
        await self.gate.wait()

    async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[BucketEntry]:
        await self._pass_gate()
        if self.failure is not None:
            raise self.failure
        size = self.sizes.get(directory, SIZE)
        return [] if directory in self.missing else [BucketEntry(f"{directory}/gpt.pth", "gpt.pth", size, False)]

    async def save_listing(self, directory: str, to: Path) -> str:
        items = await self.list_bucket(directory, recursive=True)
        entries = [{"Path": item.path, "Size": item.size, "IsDir": item.is_dir} for item in items]
        await asyncio.to_thread(to.write_text, json.dumps({"list": entries}))
        return ""

    async def leave_out(self, origin: str, directory: str, unusable: Mapping[str, str]) -> None: ...

    async def walk(self, directory: str, to: Path) -> None:
        """All that is in the bucket."""
        items = await self.list_bucket(directory, recursive=True)
        files = {item.path.removeprefix(f"{directory}/"): item.size for item in items if not item.is_dir}
        await write_walk(to, files)

    async def confirm(self) -> None: ...

    async def why_unreadable(self, path: str) -> RemoteError | None:
        return None

    async def why_refused(self, path: str) -> RemoteError | None:
        return await self.why_unreadable(path)

    async def fingerprint(self, path: str) -> str:
        return ""

    def object(self, path: str) -> bytes | None:
        """What the bucket holds there, other than the file of each version."""
        return None

    async def size(self, path: str) -> int | None:
        await self._pass_gate()
        if self.failure is not None:
            raise self.failure
        data = self.object(path)
        return None if data is None else len(data)

    async def save(self, path: str, to: Path) -> None:
        data = self.object(path)
        assert data is not None
        await asyncio.to_thread(to.write_bytes, data)

    async def refresh(self, directory: str, *, recursive: bool = False) -> None: ...

    def read_ahead(
        self, directory: str, files: Sequence[WantedFile], *, limit: int | None, report: Callable[[WarmProgress], None]
    ) -> MemoryReading:
        return MemoryReading(self, files, report)

    def fetch_into(
        self,
        directory: str,
        files: Sequence[WantedFile],
        into: Path,
        *,
        limit: int | None,
        report: Callable[[WarmProgress], None],
    ) -> MemoryReading:
        return MemoryReading(self, files, report, directory=directory, into=into)

    async def restore(
        self, directory: str, files: Sequence[WantedFile], report: Callable[[WarmProgress], None]
    ) -> None:
        self.restored += [file.path for file in files]

    async def listed(self) -> int:
        return 0

    async def cache_could_hold(self) -> int | None:
        return None

    async def know(self, directory: str, digests: Path, mark: str) -> None: ...

    async def stat(self, paths: Sequence[str]) -> tuple[Stat | NoStat, ...]:
        return tuple(Stat(size=SIZE, type="file") for _ in paths)

    async def hash(self, path: str, progress: Callable[[int], None]) -> Digest:
        return Digest("", SIZE)


async def write_walk(to: Path, files: Mapping[str, int]) -> None:
    """As a disk writes down what it shows."""
    await asyncio.to_thread(to.write_text, "".join(f"{json.dumps(each)}\n" for each in files.items()))
