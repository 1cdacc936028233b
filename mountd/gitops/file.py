"""A file as the source of the wanted version: read again when it, or a link on the way to it, has changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from mountd.errors import Unavailable, cause_of
from mountd.gitops.wanted import MAX_BYTES, UNREACHABLE, WantedVersion, parse

AGAIN_S = 60.0
"""After a file could not be read: once it can, it may look as before, such as on a disk that was silent."""
ReadFile = Callable[[Path, int], Awaitable[bytes]]
"""At most so many bytes and one more, of a file on no mount of ours; within a deadline. Raises OSError."""


class Watch(Protocol):
    """Of one file."""

    async def begin(self) -> None: ...
    async def changed(self) -> None: ...
    def close(self) -> None: ...


class FileSource:
    """Kubernetes swaps a ConfigMap as a whole (`version → ..data/version`, `..data → ..2026_01_01`): links count."""

    kind = "file"

    def __init__(self, path: Path, key: str | None, *, read: ReadFile, watch: Watch) -> None:
        self._path = path
        self._key = key
        self._read = read
        self._watch = watch
        self._is_unread = False

    @property
    def place(self) -> str:
        return str(self._path)

    async def read(self, *, has_changed: bool = False) -> WantedVersion:
        """Raises as `Source.read` does."""
        try:
            await self._watch.begin()  # first: what changes from now on is noticed
            data = await self._read(self._path, MAX_BYTES)
        except OSError as error:
            self._is_unread = True
            raise Unavailable(
                f"cannot read the wanted version in {self._path}: {cause_of(error)}",
                hint="the live version stays; mountd reads the file as soon as it is there",
                code=UNREACHABLE,
            ) from None
        self._is_unread = False
        # In a thread: YAML of 64 KiB takes seconds.
        return WantedVersion(await asyncio.to_thread(parse, data, self._key, str(self._path)), self.kind)

    async def changed(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S if self._is_unread else None):
                await self._watch.changed()

    def close(self) -> None:
        self._watch.close()
