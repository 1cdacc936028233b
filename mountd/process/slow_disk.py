"""Work on a local disk that may not answer: in a thread, with a deadline, and never two at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class SlowDisk:
    """What overstays goes on in its thread, for nothing can end it: the next work waits for it, within its own limit.

    So one thread at most is stuck, however often somebody tries again, and two works are never in each other's way.
    """

    def __init__(self) -> None:
        self._working: asyncio.Future[Any] | None = None

    async def run(self, work: Callable[[], T], limit_s: float | None) -> T:
        """The result of `work`, and whatever it raises. Raises TimeoutError after `limit_s` seconds.

        None is for a caller that is itself cancelled in time.
        """
        async with asyncio.timeout(limit_s):
            while self._working is not None and not self._working.done():
                await asyncio.wait([self._working])
            mine = asyncio.ensure_future(asyncio.to_thread(work))
            self._working = mine
            mine.add_done_callback(_retrieve)
            return await asyncio.shield(mine)

    async def settle(self, then: Callable[[], None], limit_s: float) -> None:
        """Calls `then` as soon as no work goes on, and waits for that at most `limit_s` seconds.

        It is not called for work that goes on when the event loop ends.
        """
        working = self._working
        if working is None or working.done():
            then()
            return
        working.add_done_callback(lambda work: None if work.cancelled() else then())
        await asyncio.wait([working], timeout=limit_s)


def _retrieve(work: asyncio.Future[T]) -> None:
    """Nobody may ask any more how it went."""
    if not work.cancelled():
        work.exception()
