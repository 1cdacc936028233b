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


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_recorder_has_written_everything_after_a_flush(tmp_path: Path, turns: int) -> None:
    """`turns` of the loop after the change: wherever in the writing the cancellation comes."""
    mount = MountStatus(path="/mnt", remote="store:bucket", state=State.RUNNING)
    board = Board(Snapshot(mounts={"storage": mount}))
    journal = Journal(tmp_path / "mountd.db")
    await journal.open()
    recorder = Recorder(board, journal)
    running = asyncio.create_task(recorder.run())
    await asyncio.sleep(0)
    for state in (State.STOPPING, State.CLEANING):
        board.set_mount("storage", replace(mount, state=state))
        for _ in range(turns):
            await asyncio.sleep(0)
    board.set_mount("storage", replace(mount, state=State.STOPPED))
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await recorder.flush()
    await journal.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "mountd.db")) as database:
        codes = [code for (code,) in database.execute("SELECT code FROM events ORDER BY id")]
    assert codes[-1] == "mount-stopped"
    assert len(codes) == len(set(codes))
