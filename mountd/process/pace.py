"""Pauses of periodic work that end together, so that an idle process wakes up once for all of it."""

from __future__ import annotations

import asyncio
import math

SLACK_S = 0.05


async def pause(seconds: float) -> None:
    """Sleeps until the last whole second of the loop's clock within `seconds`, or SLACK_S after them: work that repeats
    after a whole number of seconds keeps that period. Less than a second is slept as it is."""
    now = asyncio.get_running_loop().time()
    due = math.floor(now + seconds + SLACK_S)
    await asyncio.sleep(due - now if seconds >= 1 else max(0.0, seconds))
