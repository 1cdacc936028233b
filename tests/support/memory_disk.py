"""What a model needs of a mount, without one."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from mountd.errors import RemoteError
from mountd.files.client import Digest, NoStat, Stat
from mountd.rclone.keys import BucketEntry

SIZE = 5
"""bytes of each file"""


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
