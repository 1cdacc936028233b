"""What an outbox says of files that cannot be uploaded: once, as long as nothing changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from mountd.journal.results import ResultFile, ResultQueue
from mountd.outbox import outbox as module
from mountd.outbox.tree import look_of
from mountd.status import events
from tests.support.outbox_room import SOON_S, Room, leased
from tests.support.reloader import bench
from tests.support.wait import until_async


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with bench() as (made, _):
        yield Room(made)


class Alarms:
    """The codes of what an outbox's status has said, one after the other."""

    def __init__(self, room: Room) -> None:
        self.board, self.codes = room.bench.board, list[str]()
        self._last = self.board.snapshot
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            now = await self.board.changed()
            self.codes += [each.code for each in events.between(self._last, now)]
            self._last = now

    def end(self) -> None:
        self._task.cancel()


@pytest.mark.parametrize("scans_take", [0.01, 1e-9], ids=["short scans", "long scans"])
async def test_a_file_that_fails_again_and_again_is_one_alarm_until_it_is_uploaded(
    room: Room, monkeypatch: pytest.MonkeyPatch, scans_take: float
) -> None:
    """Also where the next scan is far away, because one takes long."""
    monkeypatch.setattr(module, "RESCANS_TAKE", scans_take)
    monkeypatch.setattr(module, "RESCAN_S", 0.1)
    monkeypatch.setattr(module, "FAILED_AGAIN_S", 0.3)
    path = room.directory / "a.wav"
    path.write_bytes(b"content")
    look, queue = look_of(path.stat()), ResultQueue(room.bench.journal, "results")
    await queue.put([ResultFile(b"a.wav", look.size, look.stamp)], str(room.directory.stat().st_ino))
    await room.bench.journal.rows("UPDATE outbox SET queued = '2026-01-01T00:00:00.000Z'")  # late, were it counted
    alarms = Alarms(room)
    with leased(path):
        outbox = room.begin()
        await until_async(lambda: "outbox-failed" in alarms.codes, SOON_S, "the alarm")
        del alarms.codes[:]
        failures = outbox._failures
        await until_async(lambda: outbox._failures >= failures + 5, SOON_S, "five more tries")
        assert alarms.codes == []
        assert len(room.rows("SELECT 1 FROM events WHERE code = 'result-failed'")) == 1
    await room.until_announced(b"content")
    await until_async(lambda: alarms.codes == ["outbox-recovered"], SOON_S, "the end of the alarm")
    alarms.end()
