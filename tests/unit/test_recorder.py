"""Nothing that happened is lost when the daemon ends while it is being written."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.daemon.recorder import Recorder
from mountd.journal.journal import Journal
from mountd.status.board import Board
from mountd.status.snapshot import MountStatus, Snapshot, State

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
