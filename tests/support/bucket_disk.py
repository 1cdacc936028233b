"""A bucket in memory and the mount on it, which shows what it was made to look at."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mountd.errors import RemoteError
from mountd.files.client import Digest, NoStat, Stat
from mountd.rclone.keys import BucketEntry
from tests.support.memory_disk import MemoryDisk, write_walk


class BucketDisk(MemoryDisk):
    """`bucket` is path → bytes. `shown`: what the mount shows otherwise, None for nothing.

    The mount knows a directory once the one above was loaded, see `refreshed`.
    """

    def __init__(self, bucket: Mapping[str, bytes]) -> None:
        super().__init__()
        self.bucket = dict(bucket)
        self.shown: dict[str, bytes | None] = {}
        self.directories: set[str] = set()
        """where a file should be"""
        self.refreshed: list[tuple[str, bool]] = []
        self.known: dict[str, Mapping[str, list[object]]] = {}
        """by directory: bytes and sha256 of its files"""
        self.listings: list[str] = []
        """directories that were listed past the mount as a whole"""
        self.hidden: dict[str, str] = {}
        self.asked: list[str] = []
        """what the store was asked for"""
        self.bytes_read: list[str] = []
        """of what it was made to give a byte"""
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
        entries: dict[tuple[str, bool], BucketEntry] = {}
        for path, data in found.items():
            first, *more = path.removeprefix(below).split("/")
            if more:
                entries[below + first, True] = BucketEntry(below + first, first, -1, True)
            if recursive or not more:
                entries[path, False] = BucketEntry(path, path.rpartition("/")[2], len(data), False)
        return list(entries.values())

    async def save_listing(self, directory: str, to: Path) -> str:
        self.listings.append(directory)
        return await super().save_listing(directory, to)

    async def leave_out(self, origin: str, directory: str, unusable: Mapping[str, str]) -> None:
        self.hidden |= unusable

    async def walk(self, directory: str, to: Path) -> None:
        paths = {path: self._seen(path) for path in {**self.bucket, **self.shown} if path.startswith(f"{directory}/")}
        found = {
            path.removeprefix(f"{directory}/"): len(data)
            for path, data in paths.items()
            if data is not None and path not in self.directories
        }
        await write_walk(to, found)

    def object(self, path: str) -> bytes | None:
        return self.bucket.get(path)

    async def why_unreadable(self, path: str) -> RemoteError | None:
        self.bytes_read.append(path)
        return await self.why_refused(path)

    async def why_refused(self, path: str) -> RemoteError | None:
        self.asked.append(path)
        return self.archived

    async def refresh(self, directory: str, *, recursive: bool = False) -> None:
        if recursive and (directory.rpartition("/")[0], False) not in self.refreshed:
            raise RemoteError("file does not exist", code="directory-missing")
        self.refreshed.append((directory, recursive))

    async def know(self, directory: str, digests: Path, mark: str) -> None:
        document = json.loads(await asyncio.to_thread(digests.read_text))
        self.known[document["directory"]] = document["files"]

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

    async def hash(self, path: str, progress: Callable[[int], None]) -> Digest:
        data = self._seen(path) or b""
        progress(1)
        progress(len(data))
        return Digest(hashlib.sha256(data).hexdigest(), len(data))
