"""rclone's cache directory while it is in use: is it still there, writable, ours, and is there room?"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

from mountd import container
from mountd.cache.layout import DATA, META
from mountd.errors import CannotStart, MountdError, cause_of, needs_fix
from mountd.process import directories
from mountd.process.resources import lack
from mountd.process.slow_disk import SlowDisk
from mountd.settings.schema import CacheSettings
from mountd.settings.units import Size
from mountd.status.snapshot import Reason
from mountd.text import storable

LOCK_NAME = "mountd.lock"
MIN_FREE_BYTES = 64 * 1024 * 1024
"""Below this rclone's cache cannot even hold its chunks in flight."""
LEAST_FREE_BYTES = 1024 * 1024
"""Less than this is nothing, however little the cache is to leave free."""
MIN_FREE_FILES = 100
LOOK_LIMIT_S = 10.0
WALK_LIMIT_S = 60.0
"""For a look at each file: 100,000 take a second, and many more where the disk is slow."""
_MEANWHILE = "reads of files that are not cached may fail meanwhile"
# rclone opens for writing what it has cached, also to read it.
_MEANWHILE_UNWRITABLE = "reads of files that are not open yet may fail meanwhile, cached or not"
_MEANWHILE_WITHOUT = "everything is read from the bucket meanwhile"


def _unusable(code: str, cache: Path, cause: str, hint: str) -> CannotStart:
    return needs_fix(code, f"cannot use the cache directory {cache}: {cause}", hint)


def silent(cache: Path, limit_s: float) -> CannotStart:
    """What is wrong with a cache directory that gave no answer within `limit_s` seconds."""
    cause = f"its disk does not answer within {limit_s:g} s"
    return _unusable("cache-silent", cache, cause, "look at the disk that it lies on")


def broken(cache: Path, error: OSError) -> MountdError:
    """What is wrong with a cache directory that answers with `error`, or with the machine."""
    if (found := lack(error)) is not None:
        return found
    text = f"cannot use the cache directory {cache}: {cause_of(error)}"
    place = f": {storable(os.fsdecode(error.filename))}" if error.filename is not None else ""
    return CannotStart(text, hint=f"look at its disk{place}", code="cache-broken")


Settle = Callable[[Callable[[], None]], Awaitable[None]]


class CacheGuard:
    """Holds the lock on the directory: two rclones on one cache corrupt it, and rclone itself takes none.

    A disk that fails takes its time: nothing here asks it in the event loop, and at most one thread waits for it.
    """

    def __init__(self, cache: CacheSettings, mount: str, settle: Settle) -> None:
        """`settle` calls its argument, which gives the lock back, when no thread works in the directory any more."""
        self.cache = cache
        self._settle = settle
        self._mount = mount
        self._lock = _Lock()
        self._disk = SlowDisk()

    async def begin(self, cache: CacheSettings, *, strict: bool = False) -> None:
        """For a start: the directory is created, proven writable, locked, and has room. Raises CannotStart.

        What rclone holds is room, which it gives up for what is read next; `strict`: that does not count.
        """
        before, lock = self.cache, self._lock
        self.cache = cache
        if before.dir != cache.dir:
            self._lock = _Lock()
            await self._settle(lock.release)
        await self._check(strict)

    async def _check(self, strict: bool) -> None:
        lock, directory = self._lock, self.cache.dir
        await self._ask(lambda: lock.take(directory), LOOK_LIMIT_S)
        try:
            await self._ask(lambda: check_space(directory), LOOK_LIMIT_S)
        except CannotStart as error:
            if strict or error.code != "cache-full":
                raise
            await self._ask(lambda: check_space(directory, held_bytes=held_bytes(directory)), WALK_LIMIT_S)

    async def was_used(self) -> bool:
        """Whether an rclone has kept something in it before."""
        data = self.cache.dir / DATA
        with contextlib.suppress(TimeoutError):
            return await self._disk.run(lambda: os.path.isdir(data), LOOK_LIMIT_S)
        return False

    async def _ask(self, work: Callable[[], None], limit_s: float) -> None:
        try:
            await self._disk.run(work, limit_s)
        except TimeoutError:
            raise silent(self.cache.dir, limit_s) from None

    async def look(self, *, bypassed: bool = False, strict: bool = False) -> Reason | None:
        """What is wrong with it now. A directory that was removed is made again, as rclone does it, too.

        `bypassed`: the rclone that runs does not use it, and it is well when one can `begin` with it, as `strict`.
        """
        lock, cache = self._lock, self.cache

        def check() -> None:
            lock.take(cache.dir)
            check_space(cache.dir, min_free=cache.min_free)

        try:
            await (self._check(strict) if bypassed else self._ask(check, LOOK_LIMIT_S))
        except CannotStart as error:
            return self.reason(error, bypassed=bypassed)
        return None

    def reason(self, error: CannotStart, *, bypassed: bool) -> Reason:
        """For the status: what is wrong, and what that means for reads."""
        meanwhile = _MEANWHILE_UNWRITABLE if error.code == "cache-not-writable" else _MEANWHILE
        if bypassed:
            meanwhile = _MEANWHILE_WITHOUT
        return Reason(error.code, f"{error.text}; {meanwhile}", "rclone", self._mount, error.hint)

    async def could_hold(self) -> int:
        """Bytes, if all else in it were gone and the disk were filled to the brim. Raises CannotStart."""
        directory = self.cache.dir
        try:
            usage = await self._disk.run(lambda: os.statvfs(directory), LOOK_LIMIT_S)
            held = await self._disk.run(lambda: held_bytes(directory), WALK_LIMIT_S)
        except (OSError, TimeoutError) as error:
            raise CannotStart(f"cannot look at the cache directory {directory}: {cause_of(error)}") from None
        return usage.f_bavail * usage.f_frsize + held

    async def release(self) -> None:
        """No rclone is to follow."""
        await self._settle(self._lock.release)


class _Lock:
    """The lock on one directory. A thread that still takes it when it is no longer wanted gives it back."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._taking = self._released = False
        self._turn = threading.Lock()  # held for moments only, never while a disk is asked

    def take(self, directory: Path) -> None:
        """Blocks; one call at a time. Raises CannotStart."""
        with self._turn:
            if self._released:
                return
            before = taken = self._fd
            self._taking = True
        try:
            taken = lock_cache(directory, before)
        finally:
            with self._turn:
                self._taking = False
                self._fd = None if self._released else taken
            for fd in {before, taken} - {self._fd}:  # such as that of a directory that was removed
                if fd is not None:
                    os.close(fd)

    def release(self) -> None:
        with self._turn:
            self._released = True
            fd = self._fd
            if fd is not None and self._taking:  # it is closed by who is at it
                fcntl.flock(fd, fcntl.LOCK_UN)
            elif fd is not None:
                self._fd = None
                os.close(fd)


def held_bytes(cache: Path) -> int:
    """What rclone holds in it, on disk; what goes meanwhile, or cannot be looked at, counts nothing. Blocks."""
    total = 0
    for parent, _, names in os.walk(cache / DATA):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total


def lock_cache(directory: Path, held: int | None = None) -> int:
    """Creates the cache directory (0700), proves that it can be written and takes it: two rclones on one cache corrupt
    it. The descriptor holds the lock; `held` is the one of before, given back when it still is the lock of this
    directory (it may have been removed to clear the cache). Raises CannotStart."""
    try:
        directories.make(directory, 0o700)
        fd = directories.open_private(directory / LOCK_NAME)
    except MountdError as error:
        raise needs_fix("cache-not-writable", error.text, error.hint) from None
    except OSError as error:
        lacking = lack(error)
        hint = f"make it a directory that uid {os.geteuid()} can write, on local disk, or set cache.dir"
        hint = hint if lacking is None else lacking.hint
        hint = container.for_directory(directory, error, volume="mountd-cache") or hint
        raise _unusable("cache-not-writable", directory, cause_of(error), hint) from None
    try:
        for below in (DATA, META):
            _check_own(directory / below)
        if held is not None and os.path.sameopenfile(held, fd):
            os.close(fd)
            return held
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(fd, b"\n", 0)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            hint = "give each mount a cache.dir of its own"
            raise _unusable("cache-taken", directory, "another mount uses it", hint) from None
        hint = "look at what is in it, and at the room on its disk"
        raise _unusable("cache-not-writable", directory, cause_of(error), hint) from None
    return fd


def _check_own(place: Path) -> None:
    """What rclone makes there itself: without it nothing is read, cached or not. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.stat(place).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, f"{place.name} in it is not a directory")
        if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{place.name} in it cannot be written")


def check_space(directory: Path, *, held_bytes: int = 0, min_free: Size | None = None) -> None:
    """Raises CannotStart when the cache's file system has less than 64 MiB left, or has gone.

    `held_bytes` are in the cache, which gives them up for what is read next. `min_free` is for a cache in use: on a
    small disk rclone may leave less than 64 MiB, so half of what it is to keep free is enough.
    """
    try:
        usage = os.statvfs(directory)
    except OSError as error:
        raise _unusable("cache-not-writable", directory, cause_of(error), "look at its disk") from None
    free, needed = usage.f_bavail * usage.f_frsize, MIN_FREE_BYTES
    if min_free is not None:
        needed = min(needed, max(LEAST_FREE_BYTES, min_free.of(usage.f_blocks * usage.f_frsize) // 2))
    if free + held_bytes < needed:
        hint = f"free at least {MIN_FREE_BYTES // 1024**2} MiB there, or set cache.dir to a larger disk"
        raise _unusable("cache-full", directory, f"only {free // 1024**2} MiB are free", hint)
    if usage.f_files > 0 and usage.f_favail < MIN_FREE_FILES:  # some file systems do not count them: 0 of 0
        hint = "remove files there that are not needed (`df -i` counts them), or set cache.dir to another disk"
        raise _unusable("cache-full", directory, "its disk has room, but not for more files (inodes)", hint)
