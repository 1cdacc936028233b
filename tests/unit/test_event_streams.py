"""How many event streams are open, as the metrics show it."""

from __future__ import annotations

from tests.support.wait import until_async
from tests.unit.test_history_api import SOON_S, Served, served

__all__ = ["served"]  # a fixture


async def test_open_streams_are_counted(served: Served) -> None:
    meters = served.board.meters
    async with served.stream(follow="1"), served.stream(follow="1"):
        await until_async(lambda: meters.event_streams == 2, SOON_S, "both streams to be counted")
    await until_async(lambda: meters.event_streams == 0, SOON_S, "both streams to be gone")
