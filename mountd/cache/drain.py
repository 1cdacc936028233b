"""Waits until rclone has finished its uploads before rclone is stopped.

On SIGTERM rclone exits at once and leaves them in its cache. Measured with rclone 1.75.2.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from mountd.cache.upload_state import DrainFacts, DrainVerdict, Pending, judge, progress, to_hurry
from mountd.errors import MountdError
from mountd.rclone.rc import Upload
from mountd.status.snapshot import DrainStatus

POLL_S = 0.1
"""How often rclone is asked: an answer costs it and us well under 1 ms."""
QUEUE_S = 1.0
REPORT_S = 5.0
SCAN_SHARE = 5
"""The disk is scanned again after five times the time that the last scan took."""


class UploadQueue(Protocol):
    """What a drain asks of rclone's remote control; methods raise MountdError."""

    async def vfs_queue(self) -> list[Upload]: ...

    async def vfs_upload_now(self, upload: int) -> None: ...


@dataclass(frozen=True, slots=True)
class DrainDeps:
    """`busy`: uploads queued and under way, asked of rclone with a timeout in seconds; None without an answer.

    `scan`: what waits in the cache on disk. `cause`: why uploads fail, empty while none does.
    """

    busy: Callable[[float], Awaitable[int | None]]
    scan: Callable[[], Awaitable[Pending]]
    queue: UploadQueue
    cause: Callable[[], str]
    show: Callable[[DrainStatus | None], None]
    log: FilteringBoundLogger


async def drain(deps: DrainDeps, limit_s: float) -> bool:
    """Returns when nothing waits, or after `limit_s` seconds. False: rclone hangs, and SIGTERM would not stop it.

    May be cancelled, when rclone exits meanwhile.
    """
    began = heard = reported = time.monotonic()
    deadline, status, seen = began + limit_s, None, Pending()
    asked: dict[int, float] = {}
    queue_due = scan_due = 0.0
    try:
        while True:
            busy = await deps.busy(min(2.0, max(0.1, deadline - time.monotonic())))
            now = time.monotonic()
            if busy is not None:
                heard = now
            if now >= scan_due or not (busy or seen):
                seen = await deps.scan()
                scan_due = time.monotonic() + (time.monotonic() - now) * SCAN_SHARE
            facts = DrainFacts(busy, seen)
            verdict = judge(facts, now=time.monotonic(), heard=heard, deadline=deadline)
            if verdict is not DrainVerdict.WAITING:
                break
            before, status = status, progress(status, facts)
            if before is None:
                deps.log.info("uploading before the stop", **_keys(status), at_most_s=limit_s)
            if status != before:
                deps.show(status)
            if now - reported >= REPORT_S:
                reported = now
                cause = deps.cause()
                deps.log.info("uploading before the stop", **_keys(status), **({"cause": cause} if cause else {}))
            if busy and now >= queue_due:
                queue_due = now + QUEUE_S
                await _hurry(deps.queue, asked)
            await asyncio.sleep(POLL_S)
    finally:
        deps.show(None)
    if verdict is DrainVerdict.SILENT:
        deps.log.warning("rclone does not answer: no upload can be waited for", files=seen.files)
    elif verdict is DrainVerdict.DRAINED and status is not None:
        deps.log.info("all uploaded", files=status.files, took_s=round(time.monotonic() - began, 1))
    return verdict is not DrainVerdict.SILENT


def _keys(status: DrainStatus) -> dict[str, object]:
    keys: dict[str, object] = {"files": status.files, "left": status.files_left, "bytes": status.bytes_left}
    return keys | ({"open": status.open} if status.open else {})


async def _hurry(queue: UploadQueue, asked: dict[int, float]) -> None:
    """Without it an upload that has failed for long waits for up to 5 minutes."""
    try:
        uploads = await queue.vfs_queue()
        now = time.monotonic()
        for number in to_hurry(uploads, asked, now):
            asked[number] = now
            await queue.vfs_upload_now(number)
    except MountdError:
        return
