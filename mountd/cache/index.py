"""Before rclone starts: old versions are evicted, and its index of cached files is repaired to say what lies there, so
that nothing is fetched twice.

The work on the disk is in `evict.py` and `index_repair.py`; for files that wait for their upload see `repair.py`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from mountd.cache import digests
from mountd.cache.evict import old_versions
from mountd.cache.guard import broken, silent
from mountd.cache.index_repair import HASH_S, RepairedIndex, repair, stamp
from mountd.cache.retention import CacheClaim
from mountd.errors import cause_of
from mountd.process.resources import lack
from mountd.process.slow_disk import SlowDisk
from mountd.settings import profiles
from mountd.settings.schema import MountSettings
from mountd.status.snapshot import size

log = structlog.get_logger()

EVICT_LIMIT_S = 60.0
REPAIR_LIMIT_S = 2 * HASH_S
STAMP_LIMIT_S = 2.0
"""After each rclone; 10,000 files take 0.6 s. Without stamps the next start compares digests."""
DURABLE_LIMIT_S = 5.0
"""After the last rclone; what the kernel has not written by then is compared after a loss of power."""
LAST_STAMP_LIMIT_S = DURABLE_LIMIT_S + 3.0
"""With the walk before it, the file that is being written when the time is up, and the record of all."""
KEEP_LIMIT_S = 5.0
SETTLE_LIMIT_S = 1.0
"""A stopped thread finishes after its present file or piece, unless its disk does not answer."""
UNREADABLE_S = 60.0
"""What cannot be read for so long is given up: one bad block costs a download, and not the mount."""


class CacheIndex:
    """Of one mount. One thread at most is at the cache, however its disk behaves."""

    def __init__(self, name: str) -> None:
        self._log = log.bind(mount=name)
        self._disk = SlowDisk()
        self._cache: Path | None = None
        self._kept: dict[str, str] = {}
        self._unreadable_since: float | None = None
        self._lenient = False
        self._unwanted = threading.Event()

    async def evict(self, mount: MountSettings, claims: Sequence[CacheClaim]) -> None:
        """Before rclone starts with the cache of `mount`: what none of its models keeps. Raises CannotStart.

        Nothing of a mount that can be written: files may wait there for upload.
        """
        if not claims or profiles.writes_back(mount):
            return
        cache, remote = mount.cache.dir, mount.remote
        try:
            done = await self._disk.run(lambda: old_versions(cache, remote, claims, time.time()), EVICT_LIMIT_S)
        except TimeoutError:
            raise silent(cache, EVICT_LIMIT_S) from None
        except OSError as error:
            self._log.warning("cannot evict old versions from the cache", cause=cause_of(error))
            return
        for each, cause in done:
            keys = {"version": each.version, "directory": each.directory, "bytes": each.bytes}
            if cause is None:
                self._log.info("evicted version from the cache", **keys, freed=size(each.bytes))
            else:
                self._log.warning("version stays in the cache", **keys, cause=cause)

    async def repair(self, mount: MountSettings) -> None:
        """Before rclone starts with the cache of `mount`. Raises CannotStart, Exhausted."""
        self.forget()
        cache, began = mount.cache.dir, time.monotonic()
        writes_back, may_guess = profiles.writes_back(mount), profiles.writes_whole_blocks(mount)
        stopped, unwanted = threading.Event(), self._unwanted

        def is_stopped() -> bool:
            return stopped.is_set() or unwanted.is_set()

        try:
            done = await self._disk.run(lambda: self._repair(cache, writes_back, may_guess, is_stopped), REPAIR_LIMIT_S)
        except TimeoutError:
            raise silent(cache, REPAIR_LIMIT_S) from None
        except OSError as error:
            raise broken(cache, error) from None
        finally:
            stopped.set()  # it takes too long, or mountd is stopped meanwhile
        self._cache = cache
        if done.extended or done.verified:
            self._log.info(
                "cached files need not be fetched again",
                files=done.extended, verified=done.verified, bytes_compared=done.hashed_bytes,
                took_s=round(time.monotonic() - began, 2),
            )  # fmt: skip
        if done.wrong:
            self._log.warning("cached files had other bytes than their manifest says", names=done.wrong)
        if done.unproven:
            self._log.warning("discarded cached files that cannot be verified", names=done.unproven)

    def _repair(self, cache: Path, writes_back: bool, may_guess: bool, is_stopped: Callable[[], bool]) -> RepairedIndex:
        """What cannot be read is given up only when that lasts. Blocks. Raises OSError, Stopped."""
        try:
            done = repair(cache, writes_back, may_guess, is_stopped)
        except OSError as error:
            if lack(error) is not None:
                raise
            self._unreadable_since = self._unreadable_since or time.monotonic()
            if time.monotonic() - self._unreadable_since < UNREADABLE_S:
                raise
            self._lenient = True
            return repair(cache, writes_back, may_guess, is_stopped, lenient=True)
        self._unreadable_since, self._lenient = None, False
        return done

    def forget(self) -> None:
        """Until the next repair, no rclone uses the cache."""
        self._cache, self._kept = None, {}

    async def settle(self, then: Callable[[], None]) -> None:
        """The cache is left to others: what still works in it is stopped, and `then` is called after that.

        Waits for it at most SETTLE_LIMIT_S.
        """
        self.forget()
        self._unwanted.set()
        self._unwanted = threading.Event()
        await self._disk.settle(then, SETTLE_LIMIT_S)

    async def after_stop(self, *, is_last: bool) -> None:
        """rclone has exited; `is_last`: none is to follow."""
        cache = self._cache
        self.forget()
        if cache is None:
            return
        with contextlib.suppress(OSError, TimeoutError):
            durable_s, limit_s = (DURABLE_LIMIT_S, LAST_STAMP_LIMIT_S) if is_last else (None, STAMP_LIMIT_S)
            is_stopped, lenient = self._unwanted.is_set, self._lenient
            await self._disk.run(lambda: stamp(cache, durable_s, is_stopped, lenient=lenient), limit_s)

    async def know(self, directory: str, document: Path, mark: str) -> None:
        """What the manifest of a version says, see `digests.keep`; `directory` is that of the version in the mount, and
        `mark` the same for the same content."""
        cache = self._cache
        if cache is None or self._kept.get(directory) == mark:
            return
        with contextlib.suppress(OSError, TimeoutError):
            await self._disk.run(lambda: digests.keep(cache, directory, document), KEEP_LIMIT_S)
            self._kept[directory] = mark
