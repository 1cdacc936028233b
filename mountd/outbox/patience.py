"""Waits of an outbox: for a journal that cannot be used now, and for the first of several events."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from mountd.errors import MountdError
from mountd.process.lifecycle import Backoff

P = ParamSpec("P")
T = TypeVar("T")
AGAIN = Backoff(1.0, 2.0, 30.0)
LOGGED_EACH_S = 60.0


class Patience:
    def __init__(self, log: Any) -> None:
        """`log`: of structlog."""
        self._log = log

    async def journaled(self, work: Callable[P, Awaitable[T]], *words: P.args, **more: P.kwargs) -> T:
        """The result of `work`, once the journal can be used: nothing that was found or done is given up."""
        failures = 0
        while True:
            try:
                return await work(*words, **more)
            except MountdError as error:
                if not failures:
                    self._log.warning("an outbox waits for the journal", cause=error.text, hint=error.hint)
                failures += 1
            await asyncio.sleep(AGAIN.delay_s(failures))


class RareLog:
    """Warnings about single files, of which there may be any number: of each text one a minute."""

    def __init__(self, log: Any, clock: Callable[[], float] = time.monotonic) -> None:
        """`log`: of structlog."""
        self._log, self._clock = log, clock
        self._said: dict[str, tuple[float, int]] = {}

    def warning(self, text: str, **facts: object) -> None:
        """With how many were left out since the last one."""
        now = self._clock()
        at, left_out = self._said.get(text, (-math.inf, 0))
        if now - at < LOGGED_EACH_S:
            self._said[text] = at, left_out + 1
            return
        self._said[text] = now, 0
        self._log.warning(text, **facts, **({"left_out": left_out} if left_out else {}))


async def first_of(limit_s: float | None, *events: asyncio.Event) -> bool:
    """Until one of them is set; whether that was within the limit."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        return bool((await asyncio.wait(tasks, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED))[0])
    finally:
        for task in tasks:
            task.cancel()
