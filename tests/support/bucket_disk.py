"""A bucket in memory and the mount on it, which shows what it was made to look at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from mountd.errors import DiskError, RemoteError
from mountd.files.client import Digest, NoStat, Stat
from mountd.rclone.keys import BucketEntry
from tests.support.memory_disk import MemoryDisk


class BucketDisk(MemoryDisk):
    """`bucket` is path → bytes. `shown`: what the mount shows otherwise, None for nothing.

    A manifest can be read once its directory and the one above were loaded, see `refreshed`.
    """

    def __init__(self, bucket: Mapping[str, bytes]) -> None:
        super().__init__()
        self.bucket = dict(bucket)
        self.shown: dict[str, bytes | None] = {}
        self.directories: set[str] = set()
        """where a file should be"""
        self.refreshed: list[tuple[str, bool]] = []
        self.known: dict[str, Mapping[str, tuple[int, str]]] = {}
        self.asked: list[str] = []
        """what the store was asked for"""
        self.archived: RemoteError | None = None
        self.failures: dict[str, RemoteError] = {}
        """by the directory that is listed"""

    async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[BucketEntry]:
        if directory in self.failures:
            raise self.failures[directory]
        below = f"{directory}/" if directory else ""
        found = {path: data for path, data in self.bucket.items() if path.startswith(below)}
        if not found:
            raise RemoteError("directory not found", code="directory-missing")
        entries: dict[str, BucketEntry] = {}
        for path, data in found.items():
            first, *more = path.removeprefix(below).split("/")
            if more:
                entries[below + first] = BucketEntry(below + first, first, -1, True)
            if recursive or not more:
                entries[path] = BucketEntry(path, path.rpartition("/")[2], len(data), False)
        return list(entries.values())

    async def why_unreadable(self, path: str) -> RemoteError | None:
        self.asked.append(path)
        return self.archived

    async def refresh(self, directory: str, *, recursive: bool = False) -> None:
        self.refreshed.append((directory, recursive))

    async def know(self, directory: str, files: Mapping[str, tuple[int, str]]) -> None:
        self.known[directory] = files

    def _seen(self, path: str) -> bytes | None:
        return self.shown.get(path, self.bucket.get(path))

    async def stat(self, paths: Sequence[str]) -> tuple[Stat | NoStat, ...]:
        found = ((path in self.directories, self._seen(path)) for path in paths)
        return tuple(
            NoStat(2, "No such file or directory")
            if data is None
            else Stat(size=len(data), type="directory" if is_directory else "file")
            for is_directory, data in found
        )

    async def read(self, path: str, length: int, *, offset: int = 0) -> bytes:
        directory = path.rpartition("/")[0]
        data = self._seen(path)
        if data is None or not {(directory.rpartition("/")[0], False), (directory, False)} <= set(self.refreshed):
            raise DiskError(f"cannot read {path}: the mount does not show it")
        return data[offset : offset + length]

    async def hash(self, path: str, progress: Callable[[int], None]) -> Digest:
        data = self._seen(path) or b""
        progress(1)
        progress(len(data))
        return Digest(hashlib.sha256(data).hexdigest(), len(data))
