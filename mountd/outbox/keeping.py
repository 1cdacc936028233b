"""Removes uploaded files from the local directory once they were kept for long enough."""

from __future__ import annotations

import asyncio
import errno
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from mountd import clock
from mountd.errors import DiskError
from mountd.journal.records import OutboxFile
from mountd.journal.results import ResultQueue
from mountd.outbox.local import LocalDirectory, path_of
from mountd.outbox.patience import Patience, first_of
from mountd.outbox.settling import FileLook

log = structlog.get_logger()

PAGE = 100
AGAIN_S = 60.0
LEAST_WAIT_S = 0.1
LONGEST_WAIT_S = 3600.0
"""Somebody may set the clock."""
FIRST = ("", 0)
OF_ALL = (0, errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EROFS)
"""Of the directory or its whole disk, not of one file: one that is gone is no error."""


@dataclass(slots=True)
class Stay:
    """What one pass could not remove; `name` and `cause` of the first."""

    failed: int = 0
    name: str = ""
    cause: str = ""
    all_of_them: bool = False

    def add(self, name: str, error: DiskError) -> None:
        if not self.failed:
            self.name, self.cause = name, error.text
        self.failed += 1
        self.all_of_them = (error.errno or 0) in OF_ALL


class KeptFiles:
    def __init__(
        self,
        keep_s: float,
        queue: ResultQueue,
        local: LocalDirectory,
        patient: Patience,
        *,
        readable: asyncio.Event,
        uploaded: asyncio.Event,
        now: Callable[[], datetime],
    ) -> None:
        """`readable`: set while the directory can be read; `uploaded`: set by each upload."""
        self._keep_s = keep_s
        self._queue, self._local, self._patient = queue, local, patient
        self._readable, self._uploaded = readable, uploaded
        self._now = now
        self._after = FIRST
        """time and id of the last one that was tried"""
        self._again_at = 0.0
        """monotonic: when those that stayed are tried again"""

    async def run(self) -> None:
        """Until cancelled; returns at once when they are kept for ever."""
        if math.isinf(self._keep_s):
            return
        while True:
            await self._readable.wait()
            self._uploaded.clear()
            await first_of(await self._remove_due(), self._uploaded)

    async def _remove_due(self) -> float:
        """How many seconds the next one has."""
        keep = timedelta(seconds=self._keep_s)
        began = self._now()
        until = clock.as_text(began - keep)
        now = time.monotonic()
        if self._after == FIRST or now >= self._again_at:
            self._after, self._again_at = FIRST, now + AGAIN_S
        stay = Stay()
        while rows := await self._patient.journaled(self._queue.kept_until, until, PAGE, self._after):
            removed = await self._remove(rows, stay)
            await self._patient.journaled(self._queue.removed, removed)
            if stay.all_of_them:
                break
            self._after = rows[-1].uploaded or "", rows[-1].id
        if stay.failed:
            log.warning("cannot remove uploaded results", count=stay.failed, name=stay.name, cause=stay.cause)
        first = await self._patient.journaled(self._queue.first_kept)
        if first is not None and first <= until:
            # It has stayed: it is tried again with the next full pass, and those after it go meanwhile.
            return max(self._again_at - time.monotonic(), LEAST_WAIT_S)
        self._after = FIRST
        if first is None:
            return LONGEST_WAIT_S
        left_s = (clock.parse(first) + keep - began).total_seconds()
        return min(max(left_s, LEAST_WAIT_S), LONGEST_WAIT_S)

    async def _remove(self, rows: Sequence[OutboxFile], stay: Stay) -> list[int]:
        """The ids of those that are no longer there. One that was written again stays: it is found as such."""
        removed = []
        for row in rows:
            try:
                if await self._local.remove(path_of(row.name), FileLook.of(row.size, row.stamp)) != "changed":
                    removed.append(row.id)
            except DiskError as error:
                stay.add(path_of(row.name), error)
                if stay.all_of_them:
                    break
        return removed
