"""The journal on a real disk: what was said to be written is there again, also after a kill."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mountd.clock import now_text
from mountd.journal import database
from mountd.journal import journal as journals
from mountd.journal.journal import Committed, Drilled, Journal, OperationRecord

SOON_S = 30.0
COMMITTED = Committed("v23", "v22", "v24", "v24", "tina: a rehearsal")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mountd.db"


@pytest.fixture
async def journal(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Journal]:
    monkeypatch.setattr(database, "LOCKED_S", 60.0)  # a test that holds it may be held up itself
    journal = Journal(path)
    await journal.open()
    yield journal
    await journal.close()


async def begin(journal: Journal, to_version: str = "v22") -> OperationRecord:
    return await journal.begin(
        kind="switch",
        model="hub",
        from_version="v23",
        to_version=to_version,
        operator="tina",
        source="cli",
        reason="to try it",
        step="verify",
    )


async def finish(journal: Journal, record: OperationRecord, result: str = "committed") -> OperationRecord:
    await journal.finish(replace(record, finished=now_text(), result=result, exit_code=0, duration_s=1.5))
    ended = await journal.operation(record.id)
    assert ended is not None
    return ended


async def reopened(path: Path) -> Journal:
    journal = Journal(path)
    await journal.open()
    return journal


async def test_what_is_committed_is_read_back(journal: Journal) -> None:
    assert await journal.committed("hub") == Committed()
    await journal.commit("hub", COMMITTED)
    await journal.commit("other", Committed("v1"))
    await journal.commit("hub", replace(COMMITTED, current="v25"))
    assert await journal.committed("hub") == replace(COMMITTED, current="v25")
    assert await journal.committed("other") == Committed("v1")


async def test_an_operation_from_begin_to_end(journal: Journal) -> None:
    record = await begin(journal)
    assert TIME.fullmatch(record.started)
    expected = OperationRecord(
        record.id, "switch", "hub", "v23", "v22", "tina", "cli", "to try it", "verify", record.started
    )  # fmt: skip
    assert record == expected
    assert await journal.operation(record.id) == record
    await journal.record_step(record.id, "flip")
    assert await journal.operation(record.id) == replace(record, step="flip")
    ended = replace(
        record,
        step="flip",
        finished=now_text(),
        result="rolled-back",
        cause="it crashed",
        hint="look",
        exit_code=5,
        duration_s=2.5,
    )
    await journal.finish(ended)
    assert await journal.operation(record.id) == ended
    assert await journal.operation(record.id + 1) is None


async def test_unfinished_operations_oldest_first(journal: Journal) -> None:
    assert await journal.unfinished() == []
    first, second, third = [await begin(journal, version) for version in ("v1", "v2", "v3")]
    await finish(journal, second)
    assert await journal.unfinished() == [first, third]
    assert first.id < second.id < third.id


async def test_texts_of_all_sorts(journal: Journal) -> None:
    odd = '\'; DROP TABLE models; -- \0 声音\n"%s"'
    await journal.commit(odd, Committed(odd))
    await journal.event(odd, odd, odd)
    assert await journal.committed(odd) == Committed(odd)


async def test_all_of_it_is_there_after_a_reopen(path: Path) -> None:
    first = await reopened(path)
    await first.commit("hub", COMMITTED)
    record = await begin(first)
    await first.close()
    second = await reopened(path)
    try:
        assert await second.committed("hub") == COMMITTED
        assert await second.unfinished() == [record]
        assert (await begin(second)).id > record.id
    finally:
        await second.close()


async def test_it_is_one_file_that_survives_a_network_volume(journal: Journal, path: Path) -> None:
    await journal.commit("hub", COMMITTED)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


KILLED = """
import asyncio, sys
from pathlib import Path
from mountd.journal.journal import Committed, Journal
async def main():
    journal = Journal(Path(sys.argv[1]))
    await journal.open()
    for number in range(1_000_000):
        await journal.commit("hub", Committed(str(number)))
        print(number, flush=True)
asyncio.run(main())
"""


async def test_what_was_said_to_be_written_survives_a_kill(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        try:
            said = [writer.stdout.readline() for _ in range(30)]
        finally:
            writer.kill()
        said += writer.stdout.readlines()
    complete = [line for line in said if line.endswith("\n")]
    journal = await reopened(path)
    try:
        current = (await journal.committed("hub")).current
    finally:
        await journal.close()
    assert current is not None
    assert int(complete[-1]) <= int(current) <= int(complete[-1]) + 1


@pytest.mark.parametrize("table", ["operations", "events"])
async def test_old_entries_are_trimmed(journal: Journal, path: Path, table: str) -> None:
    columns, values = {
        "operations": (
            "id, kind, model, to_version, operator, source, step, started, finished",
            "'switch', 'hub', 'v1', '', '', '', '', ''",
        ),
        "events": ("id, time, code, object, text", "'', '', '', ''"),
    }[table]
    numbers = f"WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {journals.EVENTS_KEPT + 5})"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"INSERT INTO {table} ({columns}) {numbers} SELECT id, {values} FROM n")
    if table == "operations":
        await begin(journal)
    else:
        await journal.event("mount-hung", "storage", "it hung")
    with closing(sqlite3.connect(path)) as db:
        kept = db.execute(f"SELECT count(*), min(id), max(id) FROM {table}").fetchone()
    newest = journals.EVENTS_KEPT + 6
    assert kept == (journals.EVENTS_KEPT, newest - journals.EVENTS_KEPT + 1, newest)


async def test_a_disk_that_makes_it_wait_does_not_stop_the_loop(journal: Journal, path: Path) -> None:
    turns = 0
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        writing = asyncio.create_task(journal.commit("hub", COMMITTED))
        for _ in range(20):
            await asyncio.sleep(0.01)
            turns += 1
        assert not writing.done()
        other.execute("ROLLBACK")
    async with asyncio.timeout(SOON_S):
        await writing
    assert turns == 20
    assert await journal.committed("hub") == COMMITTED


async def test_a_caller_that_is_cancelled_loses_its_patience_not_its_change(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, rows = threading.Event(), database.Database._rows

    def noted(self: database.Database, sql: str, *values: object) -> list[tuple[Any, ...]]:
        begun.set()
        return rows(self, sql, *values)

    monkeypatch.setattr(database.Database, "_rows", noted)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        writing = asyncio.create_task(journal.commit("hub", COMMITTED))
        assert await asyncio.to_thread(begun.wait, SOON_S)
        writing.cancel()
        await asyncio.wait([writing])
        other.execute("ROLLBACK")
    assert await journal.committed("hub") == COMMITTED


# -- drills -----------------------------------------------------------------------------------------------------------

DRILLED = Drilled(1, "offline", "disk", 3.5, None, None, app_restarted=False, passed=False, details='{"for_s": 30.0}')


async def test_what_a_drill_measured_is_there_again(path: Path) -> None:
    journal = await reopened(path)
    record = await begin(journal)
    drilled = replace(DRILLED, operation=record.id)
    await journal.record_drill(drilled)
    await journal.close()
    journal = await reopened(path)
    found = await journal.drill(record.id)
    assert found == drilled
    assert found is not None
    assert await journal.drill(record.id + 1) is None
    await journal.close()


async def test_a_drill_goes_with_its_operation(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "OPERATIONS_KEPT", 2)
    ids = []
    for _ in range(4):
        ids.append((await begin(journal)).id)
        await journal.record_drill(replace(DRILLED, operation=ids[-1]))
    assert [await journal.drill(id_) is not None for id_ in ids] == [False, False, True, True]
