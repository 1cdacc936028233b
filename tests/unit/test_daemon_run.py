"""A start of the daemon: it waits for a journal that is held, and remembers what it cannot clear of a former run."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mountd.daemon import run
from mountd.fuse.table import Entry
from mountd.journal import database
from mountd.journal.journal import Journal
from mountd.process.instance import Instance
from tests.support.shelf import until

SOON_S = 30.0


class NoSignals(run.Signals):
    """Of a process that hears none."""

    def __init__(self) -> None:
        self.stop, self.hangup = asyncio.Event(), asyncio.Event()


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with (
        tempfile.TemporaryDirectory(prefix="mountd-t-") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening,
    ):
        listening.bind(f"{directory}/notify")
        monkeypatch.setenv("NOTIFY_SOCKET", f"{directory}/notify")
        yield listening


def heard(listening: socket.socket, messages: list[list[str]]) -> int:
    """How many there are, with the new ones."""
    with contextlib.suppress(BlockingIOError):
        while True:
            messages.append(listening.recv(65536).decode().splitlines())
    return len(messages)


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_a_journal_that_another_program_holds_is_waited_for_and_systemd_waits_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemd: socket.socket, is_stopped: bool
) -> None:
    monkeypatch.setattr(database, "LOCKED_S", 0.01)
    monkeypatch.setattr(run, "JOURNAL_AGAIN_S", 0.01)
    path, signals = tmp_path / "mountd.db", NoSignals()
    first, journal = Journal(path), Journal(path)
    await first.open()
    await first.close()
    messages: list[list[str]] = []
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other, capture_logs() as logs:
        other.execute("BEGIN EXCLUSIVE")
        opening = asyncio.create_task(run.open_journal(journal, signals))
        await until(lambda: heard(systemd, messages) >= 3, "systemd to be asked for more time")
        assert not opening.done()
        if is_stopped:
            signals.stop.set()
        else:
            other.execute("ROLLBACK")
        assert await asyncio.wait_for(opening, SOON_S) is not is_stopped
    for status, *more in messages:
        assert status.startswith(f"STATUS=Waiting: cannot use the journal {path}: ")
        assert more == ["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=30000000"]
    assert [each["event"] for each in logs] == ["waiting for the journal"]
    await journal.close()


@pytest.mark.parametrize("is_stuck", [True, False])
def test_a_former_instance_whose_mount_cannot_be_cleared_is_remembered_for_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_stuck: bool
) -> None:
    instance = Instance.create(tmp_path / "state", tmp_path / "run")
    replace(instance, id="former").remember([])
    place = str(tmp_path / "mnt")
    entry = Entry(90, 1, "0:90", "/", place, "fuse.rclone", "mountd:former:disk")
    others = [
        replace(entry, source="mountd:stranger:disk"),
        replace(entry, mount_point=str(tmp_path / "elsewhere")),
        replace(entry, root="/a"),
    ]
    monkeypatch.setattr(run, "read_table", lambda: (*([entry] if is_stuck else []), *others))
    with capture_logs() as logs:
        asyncio.run(run.clear_previous_run(instance, [place]))
    assert instance.former() == (["former"] if is_stuck else [])
    assert instance.mount_points() == ({place} if is_stuck else set())
    assert [each["path"] for each in logs] == ([place] if is_stuck else [])
