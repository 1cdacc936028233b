"""Nothing that happened is lost when the daemon ends while it is being written; a lost journal is reported."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mountd.daemon import recorder as recorders
from mountd.daemon import shutdown
from mountd.daemon.recorder import Recorder
from mountd.journal import database
from mountd.journal.journal import Journal
from mountd.status import events, readiness
from mountd.status.board import Board
from mountd.status.snapshot import Health, MountStage, MountStatus, Snapshot, State
from tests.support.shelf import until

SOON_S = 30.0
NAMES = [f"mount-{number}" for number in range(20)]


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancelled_recorder_has_written_everything_after_a_flush(tmp_path: Path, turns: int) -> None:
    """`turns` of the loop after the news: wherever in the writing the cancellation comes."""
    mount = MountStatus(path="/mnt", remote="store:bucket", state=State.CLEANING)
    board = Board(Snapshot(mounts=dict.fromkeys(NAMES, mount)))
    journal = Journal(tmp_path / "mountd.db")
    await journal.open()
    recorder = Recorder(board, journal)
    running = asyncio.create_task(recorder.run())
    await asyncio.sleep(0)
    for name in NAMES:
        board.set_mount(name, replace(mount, state=State.STOPPED))
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await recorder.flush()
    await journal.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "mountd.db")) as database:
        stopped = [name for (name,) in database.execute("SELECT object FROM events WHERE code = 'mount-stopped'")]
    assert sorted(stopped) == sorted(NAMES)


async def test_what_happens_while_events_are_written_is_written_though_nothing_comes_after_it(tmp_path: Path) -> None:
    mount = MountStatus(path="/mnt", remote="store:bucket", state=State.STARTING)
    board = Board(Snapshot(mounts={"disk": mount}))

    class SlowJournal(Journal):
        async def event(self, code: str, object_: str, text: str, data: object = None) -> None:
            await super().event(code, object_, text)
            if code == "mount-backoff":
                board.set_mount("disk", replace(mount, state=State.RUNNING, stage=MountStage.READY))

    journal = SlowJournal(tmp_path / "mountd.db")
    await journal.open()
    running = asyncio.create_task(Recorder(board, journal).run())
    async with asyncio.timeout(SOON_S):
        while not await journal.last_event():
            await asyncio.sleep(0)
        board.set_mount("disk", replace(mount, state=State.BACKOFF))
        while await journal.last_of("ready") is None:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    await journal.close()


class CountingJournal(Journal):
    """Counts the events that it is asked to write."""

    tries = 0

    async def event(self, code: str, object_: str, text: str, data: object = None) -> None:
        self.tries += 1
        await super().event(code, object_, text)


async def test_a_held_journal_is_waited_for_once_however_much_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCKED_S", 0.05)
    mount = MountStatus(path="/mnt", remote="store:bucket", state=State.CLEANING)
    board = Board(Snapshot(mounts=dict.fromkeys(NAMES, mount)))
    journal = CountingJournal(tmp_path / "mountd.db")
    await journal.open()
    recorder = Recorder(board, journal)
    with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for name in NAMES:
            board.set_mount(name, replace(mount, state=State.STOPPED))
        await recorder.flush()
        assert journal.tries == 1
        board.set_mount("more", replace(mount, state=State.STOPPED))
        board.set_mount("more", replace(mount, state=State.FAILED))
        await recorder.flush()
        assert journal.tries == 2, "the gap alone"
        other.execute("ROLLBACK")
    board.set_mount(NAMES[0], replace(mount, state=State.FAILED))
    await recorder.flush()
    lost = len(events.between(Snapshot(mounts=dict.fromkeys(NAMES, mount)), board.snapshot))
    gap, *rest = sorted(await journal.events(limit=99), key=lambda event: event.id)
    assert (gap.code, len(rest)) == ("journal-gap", 1)
    assert f" {lost} " in gap.text
    await journal.close()


async def test_once_the_journal_can_be_written_again_the_gap_is_noted_though_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCKED_S", 0.01)
    monkeypatch.setattr(recorders, "RETRY_S", 0.01)
    board = Board(Snapshot(mounts={"disk": MountStatus(path="/mnt", remote="store:bucket", state=State.CLEANING)}))
    journal = CountingJournal(tmp_path / "mountd.db")
    await journal.open()
    running = asyncio.create_task(Recorder(board, journal).run())
    try:
        await until(lambda: journal.tries == 1, "the start to be recorded")
        await journal.last_event()
        with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            board.set_mount("disk", replace(board.snapshot.mounts["disk"], state=State.STOPPED))
            shown = await board.wait_until(lambda now: now.journal is not None, SOON_S)
            assert shown.journal is not None
            assert (shown.journal.code, shown.journal.layer) == ("journal-unusable", "journal")
            await until(lambda: journal.tries > 6, "it to be tried again")
            other.execute("ROLLBACK")
        await board.wait_until(lambda now: now.journal is None, SOON_S)
        assert [each.code for each in await journal.events(limit=9)] == ["mountd-started", "journal-gap"]
        tries = journal.tries
        for _ in range(5):
            await journal.last_event()
        assert journal.tries == tries, "then it is left in peace"
    finally:
        running.cancel()
        await asyncio.wait([running])
        await journal.close()


async def test_a_held_journal_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCKED_S", SOON_S)
    monkeypatch.setattr(shutdown, "JOURNAL_S", 0.1)
    journal = Journal(tmp_path / "mountd.db")
    await journal.open()
    with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None)) as other, capture_logs() as logs:
        other.execute("BEGIN IMMEDIATE")
        await Recorder(Board(), journal).stopped("mountd has stopped")
        assert [each["event"] for each in logs] == ["cannot journal the stop"], "nobody waited for the journal to fail"
        other.execute("ROLLBACK")
    await journal.close()


async def test_a_journal_that_was_created_again_is_an_alarm_until_the_broken_file_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "RETRY_S", 0.02)
    monkeypatch.setattr(database, "LOCKED_S", SOON_S)
    (tmp_path / "mountd.db").write_text("no database" * 1000)
    journal, board = Journal(tmp_path / "mountd.db"), Board()
    await journal.open()
    assert journal.replaced is not None
    running = asyncio.create_task(Recorder(board, journal).run())
    try:
        shown = await board.wait_until(lambda snapshot: snapshot.journal is not None, SOON_S)
        assert shown.journal is not None
        assert shown.journal.code == "journal-replaced"
        assert str(journal.replaced[0]) in shown.journal.text
        assert readiness.health(shown) is Health.DEGRADED
        async with asyncio.timeout(SOON_S):
            while not await journal.last_event():
                await asyncio.sleep(0.01)
        # Trouble with writing takes its place, and gives it back.
        with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None, timeout=SOON_S)) as other:
            other.execute("CREATE TRIGGER no BEFORE INSERT ON events BEGIN SELECT raise(ABORT, 'full'); END")
            board.set_mount("disk", MountStatus(path="/mnt", remote="store:bucket", state=State.STOPPED))
            board.set_mount("disk", MountStatus(path="/mnt", remote="store:bucket", state=State.RUNNING))
            await board.wait_until(
                lambda now: now.journal is not None and now.journal.code != "journal-replaced", SOON_S
            )
            other.execute("DROP TRIGGER no")
        await board.wait_until(lambda now: now.journal == shown.journal, SOON_S)
        assert [event.text for event in await journal.events(code="journal-replaced", limit=9)] == [shown.journal.text]
        journal.replaced[0].rename(tmp_path / "taken-away")
        await board.wait_until(lambda now: now.journal is None, SOON_S)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await journal.close()
