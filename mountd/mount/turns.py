"""Whoever asks the bucket now and then does it in place of a health question: a mount that nobody uses stays quiet."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from mountd.errors import Unavailable

PATIENCE = 3
"""So many times the pause between two questions is waited for a turn: nobody gives one while the bucket is not well."""


class Turn:
    """`given` when it is time to ask, `ended` once that was answered (True) or not."""

    def __init__(self) -> None:
        self.given = asyncio.Event()
        self.ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def is_answered(self, limit_s: float) -> bool:
        """Within `limit_s` seconds."""
        await asyncio.wait({self.ended}, timeout=limit_s)
        return self.ended.done() and self.ended.result()


class Turns:
    """Of one bucket, which is asked for its health every `pause_s` seconds."""

    def __init__(self, pause_s: float) -> None:
        self.pause_s = pause_s
        self._waiting: deque[Turn] = deque()

    @contextlib.asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Begins when it is time to ask; an exception within means no answer. Raises Unavailable when it never is."""
        turn = Turn()
        self._waiting.append(turn)
        answered = False
        try:
            async with asyncio.timeout(PATIENCE * self.pause_s):
                await turn.given.wait()
            yield
            answered = True
        except TimeoutError:
            if turn.given.is_set():
                raise
            raise Unavailable("cannot ask the bucket: it is not well, or its mount does not run") from None
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(turn)
            turn.ended.set_result(answered)

    def give(self) -> Turn | None:
        """It is time: the turn is that of who has waited longest; None: of nobody."""
        if not self._waiting:
            return None
        turn = self._waiting.popleft()
        turn.given.set()
        return turn
