"""The liveness probe: does the mount answer? One `statfs`, which rclone answers without the bucket on S3."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from mountd.errors import DiskError, DiskTimeout, ProbeNotSent
from mountd.files.client import Files
from mountd.fuse import table
from mountd.fuse.watch import known_table, tables
from mountd.mount.bucket import NOOP_S, BucketProbe
from mountd.mount.health import Liveness, Report
from mountd.process.pace import pause
from mountd.settings.schema import HealthSettings
from mountd.status.meters import MountMeters

_NOBODY_SERVES = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENOENT)
_NOT_SENT = (errno.ENFILE, errno.ENOMEM)
"""The machine is short of something, so the probe never reached the mount: that says nothing of it."""

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class LivenessProbe:
    """Of the mount of `source` at `path`. Has a worker of its own, `files`: a read that waits for the bucket must not
    make the mount look hung. `health`: the settings as they are now. `meters` count the probes."""

    path: str
    source: str
    files: Files
    bucket: BucketProbe
    health: Callable[[], HealthSettings]
    meters: MountMeters = field(default_factory=MountMeters)
    _is_unsent: bool = False

    async def run(self, report: Report) -> None:
        """Until cancelled; continues the history that the facts hold."""
        liveness = report().liveness
        while True:
            began, before = time.monotonic(), liveness
            liveness, responsive = await self._probe(before)
            liveness = replace(liveness, since=before.since if before.missed else began, responsive=responsive)
            report(liveness=liveness, answers=self.bucket.answers)
            # After a missed probe the next one comes at once; but one that a stuck worker could not even send counts
            # as missed only after as long a time.
            if liveness.missed:
                await asyncio.sleep(max(0.0, began + self.health().timeout - time.monotonic()))
            else:
                await pause(self.health().interval)

    async def _probe(self, before: Liveness) -> tuple[Liveness, bool]:
        """One more probe; and when it is late, possibly because of the bucket, whether rclone itself is responsive."""
        if not self.bucket.is_asked_for_room:
            return await self.ask(before), False
        asking = asyncio.create_task(self.ask(before))
        late_s = self.health().timeout / 2
        try:
            answered, _ = await asyncio.wait({asking}, timeout=late_s)
            if answered and not asking.result().missed:
                return asking.result(), False
            self.bucket.hurry()
            responsive = await self.bucket.rclone_answers(min(NOOP_S, late_s))
            return await asking, responsive
        finally:
            asking.cancel()

    async def ask(self, before: Liveness) -> Liveness:
        """`before` with one more answer."""
        began = time.monotonic()
        try:
            await self.files.statfs(self.path, timeout_s=self.health().timeout)
        except DiskTimeout:
            return self._missed(before)
        except ProbeNotSent as error:
            return self._not_sent(error.text, before)
        except DiskError as error:
            if error.errno in _NOT_SENT:
                return self._not_sent(error.text, before)
            if error.errno in _NOBODY_SERVES:
                return replace(before, gone=error.text)
            return self._missed(before)
        took_s = time.monotonic() - began
        # After an unmount the directory beneath answers, at full speed.
        try:
            mounted = self.entry() is not None
        except OSError as error:
            return self._not_sent(f"cannot read the mount table: {error.strerror}", before)
        self._is_unsent = False
        if not mounted:
            return replace(before, gone=f"{self.path} is no longer mounted")
        self.meters.probe.add(took_s)
        return Liveness()

    def _missed(self, before: Liveness) -> Liveness:
        self.meters.missed_probes += 1
        return replace(before, missed=before.missed + 1)

    def _not_sent(self, cause: str, before: Liveness) -> Liveness:
        """Nothing new; it is logged once, until a probe can be sent again."""
        if not self._is_unsent:
            log.warning("cannot ask whether the mount answers", path=self.path, cause=cause)
        self._is_unsent = True
        return before

    def entry(self, entries: Sequence[table.Entry] | None = None) -> table.Entry | None:
        """Our own mount, when it is what is seen at the mount point (in `entries`, else in the table as it is now)."""
        entry = table.at(known_table(mount_point=self.path) if entries is None else entries, self.path)
        ours = entry is not None and entry.source == self.source and entry.root == "/"  # else a part, bound over it
        return entry if ours else None


@dataclass(slots=True, eq=False)
class MountTableProbe:
    """Sees within milliseconds that somebody has unmounted it, by the events of the kernel's table of mounts."""

    liveness: LivenessProbe

    async def run(self, report: Report) -> None:
        """Until it is unmounted, else until cancelled."""
        async with contextlib.aclosing(tables(self.liveness.path)) as seen:
            async for entries in seen:
                if self.liveness.entry(entries) is None:
                    break
        report(liveness=Liveness(gone=f"{self.liveness.path} was unmounted by somebody else"))
