"""The first and the last event of each run of mountd, and what a run that did not stop leaves for the next."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.daemon.recorder import Recorder
from mountd.journal.journal import Journal
from mountd.status.board import Board
from mountd.status.snapshot import Health, MountStage, Reason, RemoteStatus, Snapshot, State
from tests.unit.test_explain import MOUNT

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


# -- alarms of a previous run -----------------------------------------------------------------------------------------

STARTS = replace(MOUNT, state=State.STARTING, backend=RemoteStatus())
AWAY = RemoteStatus(Health.DEGRADED, Reason("bucket-unreachable", "…", "bucket", "store"))


async def test_an_alarm_that_a_restart_healed_has_an_end_once_its_object_is_seen_to_be_well(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "mountd.db")
    await journal.open()
    for code, object_ in (
        ("bucket-unreachable", "store"),
        ("no-memory", "mountd"),
        ("content-changed", "hub"),  # of a model that is not configured any more
        ("access-denied", "store"),
    ):
        await journal.event(code, object_, "of the previous run")
    board = Board(Snapshot(mounts={"disk": STARTS}))
    recorder = Recorder(board, journal)
    running = asyncio.create_task(recorder.run())

    async def since_the_start() -> list[tuple[str, str]]:
        found = await journal.events(0, limit=99)
        start = next((each.id for each in found if each.code == "mountd-started"), None)
        return [(each.code, each.object) for each in found if start is not None and each.id > start]

    async def until_recorded(*wanted: tuple[str, str]) -> None:
        async with asyncio.timeout(SOON_S):
            while not set(wanted) <= set(await since_the_start()):
                await asyncio.sleep(0.01)

    async with asyncio.timeout(SOON_S):
        while await journal.last_of("mountd-started") is None:
            await asyncio.sleep(0.01)
    board.set_mount("disk", replace(STARTS, stage=MountStage.SPAWNED))
    await recorder.flush()
    assert ("bucket-answers", "store") not in await since_the_start(), "nobody has asked it yet"
    board.set_mount("disk", MOUNT)
    await until_recorded(("bucket-answers", "store"), ("recovered", "mountd"))
    board.set_mount("disk", replace(MOUNT, backend=AWAY))
    board.set_mount("disk", replace(MOUNT, pid=7))
    await recorder.flush()
    found = await since_the_start()
    assert [found.count(each) for each in (("bucket-answers", "store"), ("recovered", "mountd"))] == [1, 1]
    assert ("content-restored", "hub") not in found
    (recovered,) = await journal.events(0, limit=9, code="recovered")
    assert json.loads(recovered.data) == {"of": "no-memory"}
    running.cancel()
    await asyncio.wait([running])
    await journal.close()


async def test_an_alarm_that_goes_on_after_a_restart_ends_when_it_does(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "mountd.db")
    await journal.open()
    await journal.event("bucket-unreachable", "store", "of the previous run")
    board = Board(Snapshot(mounts={"disk": STARTS}))
    recorder = Recorder(board, journal)
    await recorder._record_start()
    for backend in (AWAY, RemoteStatus(Health.HEALTHY), RemoteStatus(Health.HEALTHY)):
        board.set_mount("disk", replace(MOUNT, backend=backend))
        await recorder.flush()
    codes = [each.code for each in await journal.events(0, limit=99) if each.object == "store"]
    assert codes == ["bucket-unreachable", "bucket-unreachable", "bucket-answers"]
    await journal.close()
