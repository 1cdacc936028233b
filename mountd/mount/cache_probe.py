"""The cache probes: can rclone use its disk cache, and does it? And whether a start goes on without it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from mountd.cache.bypass import Bypass, Looks, may_bypass
from mountd.cache.guard import CacheGuard
from mountd.cache.uploads import Uploads
from mountd.errors import FIX_RETRY_S, CannotStart, MountdError
from mountd.mount.bucket import TIMEOUT_S, BucketProbe
from mountd.mount.engine import Engine
from mountd.mount.health import Report
from mountd.process.pace import pause
from mountd.rclone.stats import VfsStats
from mountd.settings import profiles
from mountd.status.board import PublishMount
from mountd.status.snapshot import CacheStatus

STATS_INTERVAL_S = 10.0

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class CacheProbe:
    """The cache directory of one mount, from one rclone to the next. `is_busy`: whether an operation runs.

    rclone goes on without it when reads fail because of the cache, and returns to it later.
    """

    engine: Engine
    guard: CacheGuard
    bypass: Bypass
    bucket: BucketProbe
    publish: PublishMount
    is_busy: Callable[[], bool]

    @property
    def is_needed(self) -> bool:
        """Whether rclone was asked to keep on disk what it reads or writes: it goes on without, silently."""
        return profiles.cache_mode(self.engine.mount) != "off" and not self.bypass.active

    # -- a start --------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Where it cannot be used and the policy is to go on, this start does without. Raises CannotStart."""
        bypass, mount = self.bypass, self.engine.mount
        before, found = bypass.active, None
        if not may_bypass(mount):
            bypass.forbid()
        try:
            await self.guard.begin(mount.cache, strict=bypass.is_strict)
        except CannotStart as error:
            if not await self._may_do_without(error.code):
                raise
            found = self.guard.reason(error, bypassed=True)
        bypass.begin(found)
        self.engine.without_cache = bypass.active
        self.publish(lambda status: replace(status, cache_broken=found is not None, cache_bypassed=bypass.active))
        if bypass.active and not before and (reason := bypass.reason):
            log.warning("going on without the cache", mount=self.engine.name, cause=reason.text, hint=reason.hint)

    async def _may_do_without(self, code: str) -> bool:
        # While another mountd uses it, that it was used before says nothing; and a silent disk cannot say it.
        was_used = code not in ("cache-taken", "cache-silent") and await self.guard.was_used()
        return self.bypass.is_open_to(self.engine.mount, was_used=was_used)

    async def check(self, stats: VfsStats) -> None:
        """`stats`: of an rclone that has just started. Raises CannotStart when it runs without its cache."""
        if not self.is_needed:
            return
        mount = self.engine.mount
        if stats.disk_cache is None:
            off = CannotStart(
                f"cannot use {mount.path}: rclone runs without its disk cache ({mount.cache.dir})",
                hint=f"see `mountd logs {self.engine.name}`; the directory must be writable",
                code="cache-off",
                retry_s=FIX_RETRY_S,
            )
            if await self._may_do_without(off.code):
                self.bypass.refuse(self.guard.reason(off, bypassed=True))
                off.retry_s = 0.0
            raise off
        if self.bypass.works():
            log.info("going on with the cache again", mount=self.engine.name, path=str(mount.cache.dir))

    # -- while it runs --------------------------------------------------------------------------------------------

    async def run(self, report: Report) -> None:
        """Until rclone should be restarted, with the cache or without, else until cancelled.

        The remount waits while the bucket gives nothing, for a new rclone could not serve anything then; and the way
        back, which is not urgent, while an operation runs.
        """
        bypass, looks, waits = self.bypass, Looks(), False
        while True:
            await pause(looks.pause_s)
            looks = await self._look(looks)
            report()  # what is wrong with the cache is shown
            cause = bypass.restart(looks, time.monotonic(), self.engine.mount)
            if cause and await self.bucket.probe(TIMEOUT_S):
                if bypass.active and self.is_busy():
                    continue
                bypass.decide(looks)
                report(restart=cause)
                return
            if cause and not waits:
                log.info("the remount waits for the bucket", mount=self.engine.name, cause=cause)
            waits = bool(cause)

    async def _look(self, looks: Looks) -> Looks:
        bypass, before = self.bypass, self.bypass.found
        found = await self.guard.look(bypassed=bypass.active, strict=bypass.is_strict)
        if found and (before is None or before.code != found.code):
            log.warning("cache cannot be used", mount=self.engine.name, cause=found.text, hint=found.hint)
        elif before and found is None:
            log.info("cache can be used again", mount=self.engine.name)
        looks = bypass.look(looks, time.monotonic(), found)
        broken = found is not None or (bypass.active and not may_bypass(self.engine.mount))
        self.publish(lambda status: replace(status, cache_broken=broken))
        return looks


@dataclass(slots=True, eq=False)
class CacheStatsProbe:
    """What rclone says of its cache: whether it uses it, what is in it, and which uploads wait."""

    engine: Engine
    cache: CacheProbe
    uploads: Uploads
    publish: PublishMount

    async def run(self, report: Report) -> None:
        """Until cancelled."""
        while True:
            stats: VfsStats | None = None
            with contextlib.suppress(MountdError):
                stats = await self.engine.rc.vfs_stats(timeout_s=self.engine.mount.health.timeout)
            if stats is not None:
                self.learn(stats)
                await self.uploads.report_stranded()
                is_off = self.cache.is_needed and stats.disk_cache is None
                report(misconfigured="its disk cache is off" if is_off else "")
            await pause(STATS_INTERVAL_S)

    def learn(self, stats: VfsStats) -> None:
        """For the board and for the uploads."""
        cache = stats.disk_cache
        shown = CacheStatus(cache.used_bytes, cache.files, cache.uploads, cache.limit_bytes) if cache else CacheStatus()
        self.publish(lambda status: replace(status, cache=shown))
        self.uploads.noticed(stats)
