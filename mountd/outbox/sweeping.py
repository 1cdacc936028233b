"""What the journal of an outbox has and its directory no longer: at the start, and where nobody has seen it go."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable

from mountd.journal.records import OutboxFile
from mountd.journal.results import ResultQueue
from mountd.outbox.local import DirectoryScan, LocalDirectory, path_of
from mountd.outbox.patience import Patience
from mountd.outbox.worker import MOST_FILES

PAGE = 500
SWEEP_S = 3600.0
LOST_AFTER_S = 3600.0
"""Seconds after which files count as lost that were in another directory of the same name."""


class Sweep:
    def __init__(
        self,
        queue: ResultQueue,
        local: LocalDirectory,
        patient: Patience,
        *,
        forget: Callable[[Iterable[OutboxFile]], Awaitable[None]],
    ) -> None:
        """`forget` is awaited for files that are no longer there."""
        self._queue, self._local, self._patient, self._forget = queue, local, patient, forget
        self.missing = 0
        """files that were not uploaded, and lay in another directory of the same name"""
        self._missing_since = 0.0
        self._swept_at = -math.inf

    def begin(self) -> None:
        """Another process looks at the directory: what went before it began, it has not seen."""
        self._swept_at = -math.inf

    def is_due(self, scan: DirectoryScan) -> bool:
        """Of more files than the process remembers it may not have seen each one go."""
        pause_s = SWEEP_S if scan.files > MOST_FILES else math.inf
        return self.missing > 0 or time.monotonic() - self._swept_at > pause_s or math.isinf(self._swept_at)

    async def run(self, scan: DirectoryScan) -> None:
        """Raises DiskError.

        While another directory is in its place, such as the one below a disk that is not mounted, no file counts as
        lost before LOST_AFTER_S.
        """
        missing, after = 0, 0
        waited_s = time.monotonic() - self._missing_since if self.missing else 0.0
        while rows := await self._patient.journaled(
            self._queue.page, after, PAGE, "queued", "uploading", "failed", "refused", "uploaded"
        ):
            after = rows[-1].id
            absent = await self._local.missing([path_of(row.name) for row in rows])
            gone = [row for row in rows if path_of(row.name) in absent]
            here = [row for row in gone if row.state in ("refused", "uploaded") or row.root == scan.root]
            if waited_s > LOST_AFTER_S:
                here = gone
            missing += len(gone) - len(here)
            await self._forget(here)
        if missing and not self.missing:
            self._missing_since = time.monotonic()
        self.missing = missing
        self._swept_at = time.monotonic()
