"""Lets rclone finish its uploads before it is stopped: by itself it ends at once and leaves them in its cache [T]."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

import structlog

from mountd.cache import layout as disk
from mountd.cache.guard import broken, silent
from mountd.cache.reopen import LOOK_LIMIT_S, Reopening
from mountd.cache.repair import RESCUED, Left, mend
from mountd.cache.uploads import (
    Look,
    Pending,
    Tries,
    Verdict,
    judge,
    not_uploaded,
    progress,
    to_hurry,
)
from mountd.errors import MountdError, RemoteError
from mountd.files.client import Files
from mountd.process.slow_disk import SlowDisk
from mountd.rclone.rc import RcClient
from mountd.settings import profiles
from mountd.settings.schema import MountSettings
from mountd.status.board import PublishMount
from mountd.status.snapshot import DrainStatus, Reason, size

log = structlog.get_logger()

POLL_S = 0.1
"""How often rclone is asked: an answer costs it and us well under 1 ms."""
QUEUE_S = 1.0
TELL_S = 5.0
SCAN_SHARE = 5
"""A look at the disk is taken again after five times the time that it took."""
MEND_LIMIT_S = 120.0
"""For a look at each cached file; what takes longer goes on, and the next start finds it done."""
SCAN_LIMIT_S = 5.0
"""For the last look, once rclone has ended; 100,000 cached files take about 3 s."""


class Rclone(Protocol):
    """The rclone that uploads."""

    reopens: bool
    """it starts with uploads put off, until what a previous run left was read"""

    @property
    def rc(self) -> RcClient: ...

    def follow(self, follower: Callable[[str], None]) -> None: ...


class Uploads:
    """The uploads of one write-back mount: how they go, the drain, and what is left at its end."""

    def __init__(self, name: str, mount: MountSettings, engine: Rclone, publish: PublishMount) -> None:
        self.left = Pending()
        """what the last polite end had to leave in the cache"""
        self._name = name
        self._engine = engine
        self._publish = publish
        self._log = log.bind(mount=name)
        self._tries = Tries()
        self._seen = Pending()
        self._reopening = Reopening((), mount.cache.dir, "")
        self._disk = SlowDisk()
        self.begin(mount)
        engine.follow(self._on_line)

    def _on_line(self, line: str) -> None:
        self._tries = self._tries.heard(line)

    def begin(self, mount: MountSettings) -> None:
        """A new rclone starts. What its end needs is kept as it is now: a reload changes the settings before it."""
        self._cache, self._writes_back = mount.cache.dir, profiles.writes_back(mount)
        self._meta, self._queued, self._tries, self.left = "", 0, Tries(), Pending()
        self._draining = self._looked = self._looked_for_stranded = False
        # Known only after `mend`, which a mount that has become read-only does not run.
        self._leftovers: list[Left] = []
        self._engine.reopens = False

    async def mend(self) -> None:
        """Before rclone starts: the cache of one that was killed. Raises CannotStart, Exhausted."""
        if not self._writes_back:
            return
        cache = self._cache
        try:
            done = await self._disk.run(lambda: mend(cache), MEND_LIMIT_S)
        except TimeoutError:
            raise silent(cache, MEND_LIMIT_S) from None
        except OSError as error:
            raise broken(cache, error) from None
        self._leftovers = done.leftovers
        self._engine.reopens = bool(done.leftovers)
        if done.waiting:
            self._log.info("uploads of a former life go on", files=done.waiting)
        if done.mended:
            self._log.warning(
                "mended what the cache tells of files that wait for their upload", names=list(done.mended)
            )
        if done.emptied:
            self._log.warning("forgot wrong content of uploaded files", names=list(done.emptied))
        if done.rescued:
            self._log.error(
                "put aside files that are perhaps not whole", names=list(done.rescued), path=str(self._cache / RESCUED)
            )

    async def hold(self) -> None:
        """As soon as rclone answers: puts off the uploads of a previous run, see `reopen.py`."""
        self._reopening = Reopening(self._leftovers if self._meta else (), self._cache, self._meta)
        with contextlib.suppress(MountdError):  # it is tried again before they are read
            await self._reopening.hold(self._engine.rc)

    async def reopen(self, root: str, files: Files) -> None:
        """Through the mount at `root`, what a previous run left. Raises CannotStart and other MountdErrors."""
        told = False

        def waiting(count: int) -> None:
            nonlocal told
            if not told:
                told = True
                text = f"{count} files of a previous run are made readable before mount {self._name} is ready"
                reason = Reason("reopening", text, "mount", self._name)
                self._publish(lambda status: replace(status, reason=reason))

        try:
            await self._reopening.finish(self._engine.rc, root, files, self._disk, waiting)
        except TimeoutError:
            raise silent(self._cache, LOOK_LIMIT_S) from None

    # -- while it runs --------------------------------------------------------------------------------------------

    def noticed(self, stats: Mapping[str, object]) -> None:
        """The answer to `vfs/stats`, whenever somebody has it."""
        found = stats.get("diskCache")
        if isinstance(found, dict):
            self._meta = str(found.get("pathMeta") or "")
            self._queued = int(found.get("uploadsQueued", 0)) + int(found.get("uploadsInProgress", 0))
            if not self._queued:
                self._tries = Tries()

    @property
    def trouble(self) -> Reason | None:
        """Uploads that fail again and again."""
        return self._tries.reason(self._name, self._queued)

    async def tell_stranded(self) -> None:
        """Once for each rclone: files of a former remote, bucket or set of backend flags, which nobody uploads now."""
        if self._looked_for_stranded or not self._meta or not self._writes_back:
            return
        self._looked_for_stranded = True
        try:
            found = await self._scan(stranded=True, limit_s=MEND_LIMIT_S)
        except TimeoutError:
            return
        if found:
            self._log.warning(
                "files of a former configuration are not uploaded",
                files=found.files, bytes=found.bytes, names=list(found.names), cache=str(self._cache),
                hint="start once with the former remote and flags, or copy them by hand from the cache",
            )  # fmt: skip

    # -- the end --------------------------------------------------------------------------------------------------

    async def drain(self, limit_s: float) -> bool:
        """Until nothing waits, or for `limit_s` seconds. False: rclone hangs, a polite signal would reach nobody.

        Does nothing for a mount on which nothing waits. May be cancelled, when rclone ends meanwhile.
        """
        if not self._writes_back:
            return True
        self._draining = True
        began = heard = time.monotonic()
        deadline, told, status = began + limit_s, began, None
        asked: dict[int, float] = {}
        queue_due = scan_due = 0.0
        seen = Pending()
        try:
            while True:
                busy = await self._busy(min(2.0, max(0.1, deadline - time.monotonic())))
                now = time.monotonic()
                if busy is not None:
                    heard = now
                if now >= scan_due or not (busy or seen):
                    seen = await self._scan()
                    scan_due = time.monotonic() + (time.monotonic() - now) * SCAN_SHARE
                look = Look(busy, seen)
                verdict = judge(look, now=time.monotonic(), heard=heard, deadline=deadline)
                self._seen = look.pending
                if verdict is not Verdict.WAITING:
                    break
                status = self._show(status, progress(status, look), began, limit_s)
                if now - told >= TELL_S:
                    told = now
                    self._tell("uploading before the end", status)
                if busy and now >= queue_due:
                    queue_due = now + QUEUE_S
                    await self._hurry(asked)
                await asyncio.sleep(POLL_S)
        finally:
            self._publish(lambda status: replace(status, drain=None))
        if verdict is Verdict.SILENT:
            self._log.warning("rclone does not answer: no upload can be waited for", files=seen.files)
        elif verdict is Verdict.DRAINED and status is not None:
            self._log.info("all uploaded", files=status.files, took_s=round(time.monotonic() - began, 1))
        return verdict is not Verdict.SILENT

    def _show(self, before: DrainStatus | None, now: DrainStatus, began: float, limit_s: float) -> DrainStatus:
        if before is None:
            self._log.info(
                "uploading before the end",
                files=now.files,
                left=now.files_left,
                bytes=now.bytes_left,
                at_most_s=limit_s,
            )
        if now != before:
            self._publish(lambda status: replace(status, drain=now))
        return now

    def _tell(self, phrase: str, status: DrainStatus) -> None:
        keys: dict[str, object] = {"files": status.files, "left": status.files_left, "bytes": status.bytes_left}
        if status.open:
            keys["open"] = status.open
        if self._tries.failed:
            keys["cause"] = self._tries.cause
        self._log.info(phrase, **keys)

    async def _busy(self, timeout_s: float) -> int | None:
        """Uploads queued and under way; None without an answer. A cache that is off queues nothing."""
        try:
            self.noticed(await self._engine.rc.vfs_stats(timeout_s=timeout_s))
        except RemoteError:
            return 0  # it answers, and has no mount yet
        except MountdError:
            return None
        return self._queued

    async def _hurry(self, asked: dict[int, float]) -> None:
        """Without it an upload that has failed for long waits for up to 5 minutes; before 1.68 it cannot be helped."""
        try:
            queue = await self._engine.rc.vfs_queue()
            now = time.monotonic()
            for number in to_hurry(queue or [], asked, now):
                asked[number] = now
                await self._engine.rc.vfs_upload_now(number)
        except MountdError:
            return

    async def _scan(self, *, stranded: bool = False, limit_s: float | None = None) -> Pending:
        look, cache, meta = disk.stranded if stranded else disk.pending, self._cache, self._meta
        return await self._disk.run(lambda: look(cache, meta), limit_s)

    async def ended(self) -> None:
        """After a polite end: what rclone left, which is the truth whatever was seen before."""
        if self._draining:
            await self.look_last()

    async def look_last(self) -> None:
        """What is left in the cache now that no rclone runs; once after each."""
        if self._looked or not self._writes_back:
            return
        self._looked = True
        try:
            self.left = await self._scan(limit_s=SCAN_LIMIT_S)
        except TimeoutError:
            self.left = self._seen
        self._tries = Tries()
        if self.left:
            self._log.warning(
                "uploads are pending",
                files=self.left.files, bytes=self.left.bytes, size=size(self.left.bytes), names=list(self.left.names),
                cache=str(self._cache), hint="they will be uploaded when the mount is started again",
            )  # fmt: skip

    @property
    def reason(self) -> Reason | None:
        """`uploads-pending`, after an end that left some."""
        return not_uploaded(self._name, self.left, str(self._cache)) if self.left else None
