"""The first and the last event of each run of mountd, and what a run that did not stop leaves for the next."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mountd.daemon.recorder import Recorder
from mountd.journal.journal import Journal
from mountd.status.board import Board

SOON_S = 30.0


async def one_run(path: Path, *, stops: bool) -> list[str]:
    """The codes of all events afterwards, oldest first."""
    journal = Journal(path)
    await journal.open()
    recorder = Recorder(Board(), journal)
    before = await journal.last_event()
    running = asyncio.create_task(recorder.run())
    async with asyncio.timeout(SOON_S):
        while "mountd-started" not in [each.code for each in await journal.events(before, limit=99)]:
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    if stops:
        await recorder.stopped("SIGTERM")
    codes = [each.code for each in await journal.events(0, limit=99)]
    await journal.close()
    return codes


@pytest.mark.parametrize(
    ("stops", "codes"),
    [
        ([True, True], ["started", "stopped", "started", "stopped"]),
        ([False, True], ["started", "restarted-after-crash", "started", "stopped"]),
        ([False, False, True], ["started", *["restarted-after-crash", "started"] * 2, "stopped"]),
        ([True, False], ["started", "stopped", "started"]),
    ],
    ids=str,
)
async def test_a_run_that_did_not_stop_is_recorded_by_the_next(
    tmp_path: Path, stops: list[bool], codes: list[str]
) -> None:
    found: list[str] = []
    for each in stops:
        found = await one_run(tmp_path / "mountd.db", stops=each)
    expected = [f"mountd-{code}" for code in codes]
    assert [code for code in found if code.startswith("mountd-")] == expected


async def test_a_recorder_that_is_restarted_records_no_second_start(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "mountd.db")
    await journal.open()
    recorder = Recorder(Board(), journal)
    for _ in range(2):
        running = asyncio.create_task(recorder.run())
        async with asyncio.timeout(SOON_S):
            while not await journal.last_event():
                await asyncio.sleep(0)
            for _ in range(20):
                await journal.last_event()
        running.cancel()
        await asyncio.wait([running])
    started = [each.code for each in await journal.events(0, limit=99) if each.code.startswith("mountd-")]
    assert started == ["mountd-started"]
    await journal.close()
