"""rclone's cache directory while it is in use: is it still there, writable, ours, and is there room?"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from mountd.errors import CannotStart
from mountd.mount import preflight
from mountd.mount.mend import DATA
from mountd.settings.schema import Cache
from mountd.settings.units import Size
from mountd.status.snapshot import Reason

LOOK_LIMIT_S = 10.0
_MEANWHILE = "reads of files that are not cached may fail meanwhile"


class CacheGuard:
    """Holds the lock on the directory: two rclones on one cache corrupt it, and rclone itself takes none."""

    def __init__(self, cache: Cache, mount: str) -> None:
        self.cache = cache
        self._mount = mount
        self._lock: int | None = None
        self._looking: asyncio.Future[None] | None = None

    async def begin(self, cache: Cache) -> None:
        """For a start: the directory is created, proven writable, locked, and has room. Raises CannotStart."""
        if self.cache.dir != cache.dir:
            self.release()
        self.cache = cache
        self._take()
        try:
            preflight.check_space(cache.dir)
        except CannotStart:
            held = await asyncio.to_thread(held_bytes, cache.dir)
            preflight.check_space(cache.dir, held_bytes=held)

    def _take(self) -> None:
        before, self._lock = self._lock, preflight.lock_cache(self.cache.dir, self._lock)
        if before is not None and before != self._lock:
            os.close(before)  # of a directory that somebody has removed

    def _check(self, min_free: Size) -> None:
        self._take()
        preflight.check_space(self.cache.dir, min_free=min_free)

    async def look(self) -> Reason | None:
        """What is wrong with it now. A directory that was removed is made anew, as rclone does it, too."""
        if self._looking is None or self._looking.done():
            # In a thread: a disk that fails takes its time. At most one waits for it.
            self._looking = asyncio.ensure_future(asyncio.to_thread(self._check, self.cache.min_free))
        try:
            await asyncio.wait_for(asyncio.shield(self._looking), LOOK_LIMIT_S)
        except CannotStart as error:
            return Reason(error.code, f"{error.text}; {_MEANWHILE}", "rclone", self._mount, error.hint)
        except TimeoutError:
            text = f"the cache directory {self.cache.dir} does not answer within {LOOK_LIMIT_S:g} s; {_MEANWHILE}"
            return Reason("cache-silent", text, "rclone", self._mount, "look at the disk that it lies on")
        return None

    async def could_hold(self) -> int:
        """Bytes, if all else in it were gone and the disk were filled to the brim. Raises CannotStart."""
        try:
            usage = await asyncio.wait_for(asyncio.to_thread(os.statvfs, self.cache.dir), LOOK_LIMIT_S)
            held = await asyncio.wait_for(asyncio.to_thread(held_bytes, self.cache.dir), LOOK_LIMIT_S)
        except (OSError, TimeoutError) as error:
            cause = getattr(error, "strerror", None) or "no answer"
            raise CannotStart(f"cannot look at the cache directory {self.cache.dir}: {cause.lower()}") from None
        return usage.f_bavail * usage.f_frsize + held

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def held_bytes(cache: Path) -> int:
    """What rclone holds in it, on disk; what goes meanwhile takes nothing. Blocks."""
    total = 0
    for parent, _, names in os.walk(cache / DATA):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total
