"""Uploaded files whose time is over are removed from the local directory."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
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

    async def run(self) -> None:
        """Until cancelled; at once when they are kept for ever."""
        if math.isinf(self._keep_s):
            return
        while True:
            await self._readable.wait()
            self._uploaded.clear()
            await first_of(await self._remove_due(), self._uploaded)

    async def _remove_due(self) -> float:
        """How many seconds the next one has."""
        keep = timedelta(seconds=self._keep_s)
        while rows := await self._patient.journaled(self._queue.kept_until, clock.as_text(self._now() - keep), PAGE):
            removed = await self._remove(rows)
            await self._patient.journaled(self._queue.removed, removed)
            if not removed:
                return AGAIN_S
        first = await self._patient.journaled(self._queue.first_kept)
        if first is None:
            return LONGEST_WAIT_S
        left_s = (clock.parse(first) + keep - self._now()).total_seconds()
        return min(max(left_s, LEAST_WAIT_S), LONGEST_WAIT_S)

    async def _remove(self, rows: Sequence[OutboxFile]) -> list[int]:
        """The ids of those that are no longer there. One that was written again stays: it is found as such."""
        removed = []
        for row in rows:
            try:
                if await self._local.remove(path_of(row.name), FileLook.of(row.size, row.stamp)) != "changed":
                    removed.append(row.id)
            except DiskError as error:
                log.warning("cannot remove an uploaded result", name=path_of(row.name), cause=error.text)
                if not error.errno:
                    break  # the whole disk, not this file
        return removed
