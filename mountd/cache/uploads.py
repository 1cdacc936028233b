"""The uploads of one mount that is written to, from the start of an rclone until the next: what a previous run left is
repaired and made readable, failures are reported, a stop is drained, and what is still left is named."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import structlog

from mountd.cache import layout, upload_state
from mountd.cache.guard import broken, silent
from mountd.cache.reopen import LOOK_LIMIT_S, Reopening
from mountd.cache.repair import RESCUED, repair
from mountd.cache.upload_state import DrainVerdict, Pending, UploadTries, not_uploaded
from mountd.errors import MountdError, RemoteError
from mountd.files.client import Files
from mountd.process.slow_disk import SlowDisk
from mountd.rclone.rc import RcClient
from mountd.rclone.stats import VfsStats
from mountd.settings import profiles
from mountd.settings.schema import MountSettings
from mountd.status.board import PublishMount
from mountd.status.snapshot import DrainStatus, Reason, size

log = structlog.get_logger()

REPAIR_LIMIT_S = 120.0
"""For a look at each cached file; what takes longer goes on, and the next start finds it done."""
POLL_S = 0.1
"""How often a drain asks rclone: an answer costs it and us well under 1 ms."""
QUEUE_S = 1.0
REPORT_S = 5.0
SCAN_SHARE = 5
"""The disk is scanned again after five times the time that the last scan took."""
SCAN_LIMIT_S = 5.0
"""For the last look, after rclone has exited; 100,000 cached files take about 3 s."""


class UploadingRclone(Protocol):
    """The rclone that uploads."""

    reopens: bool
    """it starts with uploads put off, until what a previous run left was read"""

    @property
    def rc(self) -> RcClient: ...

    def follow(self, follower: Callable[[str], None]) -> None: ...


class Uploads:
    """Of one mount; does nothing for one that is not written to."""

    def __init__(self, name: str, mount: MountSettings, engine: UploadingRclone, publish: PublishMount) -> None:
        self.left = Pending()
        """what the last graceful stop had to leave in the cache"""
        self._name = name
        self._engine = engine
        self._publish = publish
        self._log = log.bind(mount=name)
        self._tries = UploadTries()
        self._seen = Pending()
        self._reopening = Reopening({}, mount.cache.dir, "")
        self._disk = SlowDisk()
        self.begin(mount)
        engine.follow(self._on_line)

    def _on_line(self, line: str) -> None:
        self._tries = self._tries.heard(line)

    # -- a start ------------------------------------------------------------------------------------------------------

    def begin(self, mount: MountSettings) -> None:
        """A new rclone starts. What its stop needs is kept as it is now: a reload changes the settings before it."""
        self._cache, self._writes_back = mount.cache.dir, profiles.writes_back(mount)
        self._meta, self._queued, self._tries, self.left = "", 0, UploadTries(), Pending()
        self._draining = self._looked = self._looked_for_stranded = False
        # Known only after `repair`, which a mount that has become read-only does not run.
        self._leftovers: dict[str, int] = {}
        self._engine.reopens = False

    async def repair(self) -> None:
        """Before rclone starts: the cache of one that was killed. Raises CannotStart, Exhausted."""
        if not self._writes_back:
            return
        cache = self._cache
        try:
            done = await self._disk.run(lambda: repair(cache), REPAIR_LIMIT_S)
        except TimeoutError:
            raise silent(cache, REPAIR_LIMIT_S) from None
        except OSError as error:
            raise broken(cache, error) from None
        self._leftovers = done.leftovers
        self._engine.reopens = bool(done.leftovers)
        if done.waiting:
            self._log.info("uploads of a previous run go on", files=done.waiting)
        if done.repaired:
            self._log.warning("repaired cache records of files that wait for upload", names=list(done.repaired))
        if done.emptied:
            self._log.warning("dropped wrong content of uploaded files from the cache", names=list(done.emptied))
        if done.rescued:
            path = str(cache / RESCUED)
            self._log.error("set aside files that may not be whole", names=list(done.rescued), path=path)

    async def hold(self) -> None:
        """As soon as rclone answers: puts off the uploads of a previous run, see `reopen.py`."""
        self._reopening = Reopening(self._leftovers if self._meta else {}, self._cache, self._meta)
        with contextlib.suppress(MountdError):  # it is tried again before they are read
            await self._reopening.hold(self._engine.rc)

    async def reopen(self, root: str, files: Files) -> None:
        """Through the mount at `root`, what a previous run left. Raises CannotStart and other MountdErrors."""
        is_shown = False

        def waiting(count: int) -> None:
            nonlocal is_shown
            if not is_shown:
                is_shown = True
                text = f"{count} files of a previous run are made readable before mount {self._name} is ready"
                reason = Reason("reopening", text, "mount", self._name)
                self._publish(lambda status: replace(status, reason=reason))

        try:
            await self._reopening.finish(self._engine.rc, root, files, self._disk, waiting)
        except TimeoutError:
            raise silent(self._cache, LOOK_LIMIT_S) from None

    # -- while it runs ------------------------------------------------------------------------------------------------

    def noticed(self, stats: VfsStats) -> None:
        """Called with each answer of rclone."""
        if stats.disk_cache is not None:
            self._meta, self._queued = stats.disk_cache.metadata, stats.disk_cache.uploads
            if not self._queued:
                self._tries = UploadTries()

    @property
    def trouble(self) -> Reason | None:
        """Uploads that fail repeatedly."""
        return self._tries.reason(self._name, self._queued)

    async def report_stranded(self) -> None:
        """Once for each rclone: files of a former remote, bucket or set of backend flags, which no rclone uploads."""
        if self._looked_for_stranded or not self._meta or not self._writes_back:
            return
        self._looked_for_stranded = True
        cache, meta = self._cache, self._meta
        try:
            found = await self._disk.run(lambda: layout.stranded(cache, meta), REPAIR_LIMIT_S)
        except TimeoutError:
            return
        if found:
            self._log.warning(
                "files of a former configuration are not uploaded",
                files=found.files, bytes=found.bytes, names=list(found.names), cache=str(cache),
                hint="start once with the former remote and flags, or copy them by hand from the cache",
            )  # fmt: skip

    # -- a stop -------------------------------------------------------------------------------------------------------

    async def drain(self, limit_s: float) -> bool:
        """Waits for uploads: on SIGTERM rclone exits at once and leaves them in its cache (1.75.2).

        Returns when nothing waits, or after `limit_s` seconds. False: rclone hangs, and SIGTERM would not stop it.
        May be cancelled, when rclone exits meanwhile.
        """
        if not self._writes_back:
            return True
        self._draining = True
        began = heard = reported = time.monotonic()
        deadline, status, seen = began + limit_s, None, Pending()
        asked: dict[int, float] = {}
        queue_due = scan_due = 0.0
        try:
            while True:
                busy = await self._busy(min(2.0, max(0.1, deadline - time.monotonic())))
                now = time.monotonic()
                if busy is not None:
                    heard = now
                if now >= scan_due or not (busy or seen):
                    seen = await self._scan()
                    scan_due = time.monotonic() + (time.monotonic() - now) * SCAN_SHARE
                verdict = upload_state.judge(busy, seen, now=time.monotonic(), heard=heard, deadline=deadline)
                if verdict is not DrainVerdict.WAITING:
                    break
                before, status = status, upload_state.progress(status, busy, seen)
                if before is None:
                    self._log.info("uploading before the stop", **_keys(status), at_most_s=limit_s)
                if status != before:
                    self._show(status)
                if now - reported >= REPORT_S:
                    reported = now
                    cause = {"cause": self._tries.cause} if self._tries.cause else {}
                    self._log.info("uploading before the stop", **_keys(status), **cause)
                if busy and now >= queue_due:
                    queue_due = now + QUEUE_S
                    await self._hurry(asked)
                await asyncio.sleep(POLL_S)
        finally:
            self._show(None)
        if verdict is DrainVerdict.SILENT:
            self._log.warning("rclone does not answer: no upload can be waited for", files=seen.files)
        elif verdict is DrainVerdict.DRAINED and status is not None:
            self._log.info("all uploaded", files=status.files, took_s=round(time.monotonic() - began, 1))
        return verdict is not DrainVerdict.SILENT

    def _show(self, drain: DrainStatus | None) -> None:
        self._publish(lambda status: replace(status, drain=drain))

    async def _hurry(self, asked: dict[int, float]) -> None:
        """Without it an upload that has failed for long waits for up to 5 minutes."""
        with contextlib.suppress(MountdError):
            uploads = await self._engine.rc.vfs_queue()
            now = time.monotonic()
            for number in upload_state.to_hurry(uploads, asked, now):
                asked[number] = now
                await self._engine.rc.vfs_upload_now(number)

    async def _busy(self, timeout_s: float) -> int | None:
        """A cache that is off queues nothing."""
        try:
            self.noticed(await self._engine.rc.vfs_stats(timeout_s=timeout_s))
        except RemoteError:
            return 0  # it answers, and has no mount yet
        except MountdError:
            return None
        return self._queued

    async def _scan(self, limit_s: float | None = None) -> Pending:
        """Raises TimeoutError."""
        cache, meta = self._cache, self._meta
        self._seen = await self._disk.run(lambda: layout.pending(cache, meta), limit_s)
        return self._seen

    async def after_stop(self) -> None:
        """After a graceful stop: what rclone left, whatever was seen before."""
        if self._draining:
            await self.look_last()

    async def look_last(self) -> None:
        """What is left in the cache now that no rclone runs; once after each."""
        if self._looked or not self._writes_back:
            return
        self._looked = True
        try:
            self.left = await self._scan(SCAN_LIMIT_S)
        except TimeoutError:
            self.left = self._seen
        self._tries = UploadTries()
        if self.left:
            self._log.warning(
                "uploads are pending",
                files=self.left.files, bytes=self.left.bytes, size=size(self.left.bytes), names=list(self.left.names),
                cache=str(self._cache), hint="they will be uploaded when the mount is started again",
            )  # fmt: skip

    @property
    def reason(self) -> Reason | None:
        """`uploads-pending`, after a stop that left some."""
        return not_uploaded(self._name, self.left, str(self._cache)) if self.left else None


def _keys(status: DrainStatus) -> dict[str, object]:
    keys: dict[str, object] = {"files": status.files, "left": status.files_left, "bytes": status.bytes_left}
    return keys | ({"open": status.open} if status.open else {})
