"""The directory of a version in a bucket, in memory: what publishing does with it, and somebody else meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection
from pathlib import Path

from mountd.errors import RemoteError
from mountd.publish.plan import Bucket, bucket
from mountd.publish.upload import Listener, Store


class MemoryStore(Store):
    """`calls` holds what was asked of it, `before` what happens before the n-th such call, by its verb."""

    def __init__(self, *, hashes: bool = True) -> None:
        self.place = "store:bucket/hub_v23"
        self.hashes = hashes
        """whether a listing shows the MD5 of each object"""
        self.objects: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.before: dict[tuple[str, int], Callable[[], object]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        """while it is closed nothing is sent"""
        self.spoiled: set[str] = set()
        """what is sent of these arrives as something else of the same size"""
        self.is_silent = False
        """it does not report what it has sent"""
        self.drops: set[str] = set()
        """what is written under these names is not there"""

    @property
    def writes(self) -> list[str]:
        """The calls that change something."""
        return [call for call in self.calls if call.partition(" ")[0] in ("write", "send", "remove")]

    def _called(self, call: str) -> None:
        verb = call.partition(" ")[0]
        number = sum(each.startswith(verb) for each in self.calls) + 1
        self.calls.append(call)
        self.before.pop((verb, number), lambda: None)()

    async def look(self) -> Bucket:
        self._called("look")
        return bucket(
            {
                "Path": path,
                "Size": len(data),
                "Hashes": {"md5": hashlib.md5(data).hexdigest()} if self.hashes and data else None,
            }
            for path, data in self.objects.items()
        )

    async def read(self, name: str) -> bytes:
        self._called(f"read {name}")
        if name not in self.objects:
            raise RemoteError(f"cannot read {name}: it is not there")
        return self.objects[name]

    async def write(self, name: str, data: bytes) -> None:
        self._called(f"write {name}")
        if name not in self.drops:
            self.objects[name] = data

    async def remove(self, names: Collection[str]) -> None:
        if names:
            self._called(f"remove {' '.join(sorted(names))}")
        for name in names:
            self.objects.pop(name, None)

    async def send(self, root: str, names: Collection[str], jobs: int, listen: Listener) -> None:
        self._called(f"send {' '.join(names)}")
        await self.gate.wait()
        for name in names:
            data = (Path(root) / name).read_bytes()
            self.objects[name] = b"\0" * len(data) if name in self.spoiled else data
            if not self.is_silent:
                listen({"msg": "Copied (new)", "object": name})

    async def sha256(self, names: Collection[str], jobs: int, listen: Listener) -> dict[str, str]:
        self._called("sha256")
        return {name: hashlib.sha256(self.objects[name]).hexdigest() for name in names if name in self.objects}
