"""What a model needs of a mount, without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

from mountd.errors import RemoteError
from mountd.files.client import Digest, NoStat, Stat
from mountd.rclone.keys import BucketEntry

SIZE = 5
"""bytes of each file"""


class MemoryDisk:
    """Every version is there, with one file, but not the directories of `missing`. While `gate` is closed the bucket
    does not answer.

    `waits` is set once a listing waits for the gate; `failure` is what a listing raises.
    """

    root = "/mnt"

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.waits = asyncio.Event()
        self.failure: RemoteError | None = None
        self.missing: set[str] = set()
        self.sizes: dict[str, int] = {}
        """of the file in a directory, where it is not SIZE: so that a version has a digest of its own"""

    def in_turn(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    @property
    def ignored(self) -> Mapping[str, str]:
        return {}

    async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[BucketEntry]:
        if not self.gate.is_set():
            self.waits.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        size = self.sizes.get(directory, SIZE)
        return [] if directory in self.missing else [BucketEntry(f"{directory}/gpt.pth", "gpt.pth", size, False)]

    async def confirm(self) -> None: ...

    async def why_unreadable(self, path: str) -> RemoteError | None:
        return None

    async def fingerprint(self, path: str) -> str:
        return ""

    async def fetch(self, path: str) -> bytes:
        return b""

    async def refresh(self, directory: str, *, recursive: bool = False) -> None: ...

    async def cached_files(self) -> int:
        return 0

    async def cache_could_hold(self) -> int | None:
        return None

    async def know(self, directory: str, files: Mapping[str, tuple[int, str]]) -> None: ...

    async def stat(self, paths: Sequence[str]) -> tuple[Stat | NoStat, ...]:
        return tuple(Stat(size=SIZE, type="file") for _ in paths)

    async def read(self, path: str, length: int, *, offset: int = 0) -> bytes:
        return b""

    async def hash(self, path: str, progress: Callable[[int], None]) -> Digest:
        return Digest("", SIZE)
