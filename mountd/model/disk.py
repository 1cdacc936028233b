"""What a model needs of a mount, as a protocol: a model knows no mount."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from mountd.errors import RemoteError
from mountd.files.client import Digest, NoStat, Stat
from mountd.rclone.keys import BucketEntry


class Disk(Protocol):
    """Paths are relative to `root`. Every method raises Unavailable (RemoteError, DiskError) when it cannot answer."""

    @property
    def root(self) -> str: ...

    def in_turn(self) -> AbstractAsyncContextManager[None]:
        """Around one request that can wait: it takes the place of a bucket probe, so it adds no request."""

    @property
    def ignored(self) -> Mapping[str, str]:
        """Objects that were seen and left out, since they cannot be paths: which, and why."""

    async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[BucketEntry]:
        """What the bucket holds now, past any cache."""

    async def confirm(self) -> None:
        """That the bucket gives valid answers: after one that says that something is gone."""

    async def why_unreadable(self, path: str) -> RemoteError | None:
        """Why this file, which is not empty, cannot be read past any cache; None: it can be."""

    async def fingerprint(self, path: str) -> str:
        """Past any cache, without reading the file: another text when it was written again, "" when it is not there."""

    async def fetch(self, path: str) -> bytes:
        """All of a small file as the bucket holds it now, past any cache."""

    async def refresh(self, directory: str, *, recursive: bool = False) -> None:
        """Load a directory's listing so that the disk knows it."""

    async def cached_files(self) -> int:
        """How many files the disk knows without asking."""

    async def cache_could_hold(self) -> int | None:
        """Bytes that find room on local disk if all else in the cache is gone; None: what is read is not kept."""

    async def know(self, directory: str, files: Mapping[str, tuple[int, str]]) -> None:
        """What a manifest says of the files below `directory`, size and sha256 of each: the disk remembers it."""

    async def stat(self, paths: Sequence[str]) -> tuple[Stat | NoStat, ...]: ...

    async def read(self, path: str, length: int, *, offset: int = 0) -> bytes: ...

    async def hash(self, path: str, progress: Callable[[int], None]) -> Digest:
        """Of the whole file, however slow the bucket is; `progress` is called with bytes."""
