"""The journal's file: of an older mountd it is brought up to date, a broken or foreign one set aside, others left."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.errors import JournalHeld, MountdError
from mountd.journal import database
from mountd.journal.journal import Committed, Drilled, Journal

SOON_S = 30.0
COMMITTED = Committed("v23", "v22", "v24", "v24")
DRILLED = Drilled(1, "offline", "disk", 3.5, None, None, app_restarted=False, passed=False, details='{"for_s": 30.0}')
NEWEST = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mountd.db"


async def reopened(path: Path) -> Journal:
    journal = Journal(path)
    await journal.open()
    return journal


async def filled(path: Path) -> None:
    journal = await reopened(path)
    await journal.commit("hub", COMMITTED)
    await journal.event("ready", "mountd", "ready")
    await journal.close()


def set_aside(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir() if ".broken-" in entry.name)


# -- of an older mountd -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [1, 2, 3])
async def test_the_journal_of_an_older_mountd_is_brought_up_to_date(path: Path, old: int) -> None:
    with closing(sqlite3.connect(path)) as db:
        for name in database._SCHEMAS[:old]:
            db.executescript(Path(database.__file__).with_name(name).read_text())
        columns = "(model, current, previous, desired, config_version)"
        db.execute(f"INSERT INTO models {columns} VALUES ('hub', 'v23', 'v22', 'v24', 'v24')")
        db.execute(
            "INSERT INTO operations (kind, model, to_version, operator, source, step, started)"
            " VALUES ('switch', 'hub', 'v22', 'tina', 'cli', 'verify', '2026-01-01T00:00:00.000Z')"
        )
        db.commit()
    for _ in range(2):
        journal = await reopened(path)
        assert journal.replaced is None
        assert await journal.committed("hub") == COMMITTED
        assert [record.to_version for record in await journal.history(limit=10)] == ["v22"]
        await journal.record_drill(DRILLED)
        assert (await journal.scheduled(), await journal.became(1)) == ([], None)
        await journal.begin_step(1, "flip")
        await journal.quarantine("hub", "sha256:1", version="v9", operation=1, cause="it crashed")
        await journal.commit("hub", replace(COMMITTED, suspended="tina"))
        assert await journal.committed("hub") == replace(COMMITTED, suspended="tina")
        await journal.commit("hub", COMMITTED)
        await journal.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (NEWEST,)


async def test_an_empty_file_is_a_new_journal(path: Path) -> None:
    path.touch()
    journal = await reopened(path)
    assert await journal.committed("hub") == Committed()
    assert journal.replaced is None
    await journal.close()


async def test_what_is_committed_outlasts_a_power_failure(path: Path) -> None:
    """Also the last change: what was told of it cannot be taken back [SQLite, PRAGMA synchronous]."""
    journal = await reopened(path)
    assert await journal.rows("PRAGMA journal_mode") == [("delete",)]
    assert await journal.rows("PRAGMA synchronous") == [(3,)]  # EXTRA: the directory too
    await journal.close()


# -- that can never be used: set aside --------------------------------------------------------------------------------


def no_database(path: Path) -> None:
    path.write_bytes(b"this is no database\n" * 100)


def broken_page(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xff" * (len(data) - 100))


def broken_data_page(path: Path) -> None:
    """The schema is whole; one of the tables is not."""
    data = bytearray(path.read_bytes())
    data[3 * 4096 : 4 * 4096] = b"\xff" * 4096
    path.write_bytes(data)


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def of_another_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
        db.execute("PRAGMA user_version = 77")


def with_the_same_names(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "CREATE TABLE operations (x); CREATE TABLE events (x); CREATE TABLE models (model TEXT PRIMARY KEY);"
            "PRAGMA user_version = 1;"
        )


def without_a_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE steps")


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (no_database, "not a database"),
        (broken_page, "malformed"),
        (broken_data_page, "."),
        (cut_off, "malformed"),
        (of_another_program, "another program"),
        (with_the_same_names, "no such column"),
        (without_a_table, "no such table: steps"),
    ],
)
async def test_it_is_set_aside_and_a_new_one_begun(path: Path, spoil: Callable[[Path], None], cause: str) -> None:
    await filled(path)
    spoil(path)
    before = path.read_bytes()
    journal = await reopened(path)
    assert journal.replaced is not None
    broken, why = journal.replaced
    assert re.search(cause, why), why
    assert re.fullmatch(r"mountd\.db\.broken-\d{8}T\d{6}\.\d{6}Z", broken.name)
    assert broken.read_bytes() == before
    assert await journal.committed("hub") == Committed()
    await journal.commit("hub", COMMITTED)
    await journal.close()
    again = await reopened(path)
    assert again.replaced is None
    assert await again.committed("hub") == COMMITTED
    await again.close()


async def test_at_most_three_are_kept_and_nothing_of_others_is_touched(path: Path) -> None:
    kept_by_a_person = path.with_name("mountd.db.broken-mine")
    kept_by_a_person.touch()
    for _ in range(5):
        path.write_bytes(b"x" * 5000)
        journal = await reopened(path)
        assert journal.replaced is not None
        newest = journal.replaced[0].name
        await journal.close()
    names = set_aside(path)
    assert kept_by_a_person.name in names
    assert len(names) == 4
    assert newest in names


def test_what_sqlite_left_beside_it_goes_with_it(path: Path) -> None:
    """A rollback journal of the broken file must not be played into the new one."""
    for companion in ("", "-journal", "-wal"):
        Path(f"{path}{companion}").write_text(f"the broken one{companion}")
    broken = database.set_aside(path)
    for companion in ("", "-journal", "-wal"):
        assert Path(f"{broken}{companion}").read_text() == f"the broken one{companion}"
        assert not Path(f"{path}{companion}").exists()


# -- that may be good: left alone -------------------------------------------------------------------------------------


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("journal")}


async def refused(path: Path) -> MountdError:
    journal = Journal(path)
    before = threads()
    with pytest.raises(MountdError, match=re.escape(str(path))) as error:
        await journal.open()
    await journal.close()
    for thread in threads() - before:
        thread.join(SOON_S)
    assert threads() <= before
    assert error.value.code == "journal-unusable"
    return error.value


async def test_a_journal_of_a_newer_mountd(path: Path) -> None:
    await filled(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {NEWEST + 1}")
    before = path.read_bytes()
    error = await refused(path)
    assert f"schema {NEWEST + 1}" in error.text
    assert f"mv {path} {path}.newer" in error.hint
    assert path.read_bytes() == before
    assert set_aside(path) == []


async def test_no_directory(tmp_path: Path) -> None:
    assert "unable to open" in (await refused(tmp_path / "not there" / "mountd.db")).text


async def test_a_file_that_another_program_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCKED_S", 0.05)
    await filled(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "locked" in (await refused(path)).text
        other.execute("ROLLBACK")
    assert set_aside(path) == []
    journal = await reopened(path)
    assert await journal.committed("hub") == COMMITTED
    await journal.close()


HOLDS = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print(flush=True)
sys.stdin.read()
"""


async def test_who_holds_it_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCKED_S", 0.01)
    await filled(path)
    argv = [sys.executable, "-S", "-c", HOLDS, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            error = await refused(path)
        finally:
            other.kill()
    assert isinstance(error, JournalHeld)
    assert f"(pid {other.pid})" in error.text


async def test_a_broken_file_that_cannot_be_set_aside_is_left_where_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    no_database(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "rename", refuse)
    error = await refused(path)
    assert (str(path.parent) in error.hint, error.retryable) == (True, False)
    assert path.read_bytes() == before
