"""What rclone fetches from its bucket and uploads to it, counted from the answers that other probes ask for anyway."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mountd.errors import MountdError
from mountd.mount.engine import Engine
from mountd.rclone.stats import CoreStats
from mountd.rclone.uploaded import UploadCount
from mountd.status.meters import MountMeters, Tally

LAST_LOOK_S = 1.0
"""A part of the time that a mount takes to stop."""


@dataclass(slots=True, eq=False)
class TrafficCount:
    """Of one mount, from one rclone to the next. What an rclone moves after the last answer is not counted.

    `uploads`: whether it may upload anything.
    """

    engine: Engine
    meters: MountMeters
    uploads: Callable[[], bool]
    _moved: Tally = field(default_factory=Tally)
    _uploaded: UploadCount = field(default_factory=UploadCount)
    _age_s: float = 0.0
    """of the rclone that answered last"""

    async def count(self, stats: CoreStats) -> None:
        """One more request where something was moved and may be uploads: it says which part of it are."""
        is_new, self._age_s = stats.age_s < self._age_s, stats.age_s
        if is_new:
            self._uploaded = UploadCount()
        moved, uploaded = self._moved.seen(stats.moved_bytes, is_new=is_new), 0
        if moved and self.uploads():
            with contextlib.suppress(MountdError):
                ended = await self.engine.rc.transferred()
                uploaded = self._uploaded.look(moved, stats.uploading, ended)
        self.meters.moved(time.monotonic(), fetched=moved - uploaded, uploaded=uploaded)

    async def look(self) -> None:
        """Asks itself: once more before an rclone that uploads is stopped."""
        if not self.uploads():
            return
        with contextlib.suppress(MountdError, TimeoutError):
            async with asyncio.timeout(LAST_LOOK_S):
                await self.count(await self.engine.rc.core_stats(timeout_s=LAST_LOOK_S))
