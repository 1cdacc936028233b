"""The files of an outbox in the journal: whole steps, one event for each upload, and what is kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.journal import journal as journal_module
from mountd.journal import results as module
from mountd.journal.journal import Journal
from mountd.journal.records import OutboxFile
from mountd.journal.results import ResultFile, ResultQueue


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    made = Journal(tmp_path / "mountd.db")
    await made.open()
    yield made
    await made.close()


def found(name: bytes, size: int = 10, stamp: str = "1.2.3", **more: str) -> ResultFile:
    return ResultFile(name, size, stamp, **more)  # type: ignore[arg-type]


async def begun(queue: ResultQueue, name: bytes) -> OutboxFile:
    (row,) = (each for each in await queue.waiting(99, "7") if each.name == name)
    assert await queue.begin(row.id, sha256="ab", md5="cd", bucket="b", key=f"p/{name.decode()}")
    return (await queue.known([name]))[name]


async def test_a_file_goes_from_found_to_announced(journal: Journal) -> None:
    queue = ResultQueue(journal, "results")
    await queue.put([found(b"a"), found(b"\xff\xfe", 5)], "7")
    assert [(row.name, row.state, row.root) for row in await queue.waiting(9, "7")] == [
        (b"a", "queued", "7"),
        (b"\xff\xfe", "queued", "7"),
    ]
    totals = await queue.totals()
    assert (totals.pending, totals.pending_bytes, totals.uploaded) == (2, 15, 0)
    assert totals.oldest
    row = await begun(queue, b"a")
    waiting = journal.event_written()
    assert await queue.done(row, compared=["size", "sha256"])
    assert waiting.done()
    (event,) = await journal.events(limit=9, code="result-uploaded")
    assert event.object == "results"
    done = (await queue.known([b"a"]))[b"a"]
    assert json.loads(event.data) == {
        "bucket": "b",
        "key": "p/a",
        "size": 10,
        "digest": "sha256:ab",
        "compared": ["size", "sha256"],
        "time": done.uploaded,
    }
    assert (done.state, done.event) == ("uploaded", event.id)
    totals = await queue.totals()
    assert (totals.pending, totals.uploaded, totals.last_key, totals.last_time) == (1, 1, "p/a", done.uploaded)
    assert totals.last_compared == ("size", "sha256")


async def test_an_upload_is_announced_once_however_often_it_ends(journal: Journal) -> None:
    queue = ResultQueue(journal, "results")
    await queue.put([found(b"a")], "7")
    row = await begun(queue, b"a")
    assert await queue.done(row)
    assert not await queue.done(row)
    assert len(await journal.events(limit=9, code="result-uploaded")) == 1
    assert (await queue.totals()).uploaded == 1


async def test_the_upload_of_a_version_that_was_written_over_announces_nothing(journal: Journal) -> None:
    queue = ResultQueue(journal, "results")
    await queue.put([found(b"a")], "7")
    row = await begun(queue, b"a")
    await queue.put([found(b"a", 11)], "7")
    assert not await queue.done(row)
    assert not await queue.begin(row.id, sha256="x", md5="x", bucket="b", key="k")
    await queue.again(row.id, "x")
    assert await journal.events(limit=9) == []
    (newer,) = await queue.waiting(9, "7")
    assert (newer.size, newer.state, newer.tries) == (11, "queued", 0)
    assert newer.id > row.id


async def test_the_least_tried_comes_first(journal: Journal) -> None:
    queue = ResultQueue(journal, "results")
    await queue.put([found(b"a"), found(b"b"), found(b"c")], "7")
    first, second, _ = await queue.waiting(9, "7")
    await queue.again(first.id, "refused")
    await queue.again(first.id, "refused")
    await queue.again(second.id, "refused")
    rows = await queue.waiting(9, "7")
    assert [(row.name, row.tries) for row in rows] == [(b"c", 0), (b"b", 1), (b"a", 2)]
    assert [row.name for row in await queue.waiting(1, "7")] == [b"c"]


async def test_what_may_be_in_the_bucket_stays_so_after_a_try_that_failed(journal: Journal) -> None:
    queue = ResultQueue(journal, "results")
    await queue.put([found(b"a")], "7")
    row = await begun(queue, b"a")
    await queue.again(row.id, "access denied")
    assert [(each.state, each.tries) for each in await queue.waiting(9, "7")] == [("uploading", 1)]
    await queue.not_sent(row.id)
    await queue.again(row.id, "connection refused")
    assert [(each.state, each.tries) for each in await queue.waiting(9, "7")] == [("queued", 2)]


async def test_content_that_was_begun_is_not_what_was_announced_before(journal: Journal) -> None:
    queue = ResultQueue(journal, "results")
    await queue.put([replace(found(b"a"), sha256="of the content before", event=3)], "7")
    await queue.again((await begun(queue, b"a")).id, "refused")
    assert [(row.sha256, row.event) for row in await queue.waiting(9, "7")] == [("ab", None)]


async def test_outboxes_do_not_see_each_other(journal: Journal) -> None:
    one, other = ResultQueue(journal, "one"), ResultQueue(journal, "other")
    await one.put([found(b"a")], "7")
    await other.put([found(b"a", 20)], "8")
    assert await one.done(await begun(one, b"a"))
    assert (await one.totals()).pending == 0
    assert [row.size for row in await other.waiting(9, "8")] == [20]
    assert (await other.totals()).uploaded == 0


async def test_each_end_is_an_event(journal: Journal) -> None:
    queue = ResultQueue(journal, "results")
    bad = found(b"\xff", state="refused", cause="'\\udcff' is not UTF-8")
    await queue.put([found(b"lost"), found(b"failed"), bad], "7")
    lost, failed = await queue.waiting(9, "7")
    await queue.lose(lost)
    await queue.lose(lost)
    await queue.fail(failed, "the store refuses it")
    events = await journal.events(limit=9)
    assert [(each.code, json.loads(each.data)["name"]) for each in events] == [
        ("result-refused", "\\xff"),
        ("result-lost", "lost"),
        ("result-failed", "failed"),
    ]
    totals = await queue.totals()
    assert (totals.pending, totals.failed) == (0, 2)
    await queue.put([found(b"new")], "7")
    await queue.retry_failed()
    new, again = await queue.waiting(9, "7")
    assert (new.name, again.name) == (b"new", b"failed")
    totals = await queue.totals()
    assert (totals.pending, totals.failed) == (1, 2)  # it counts as failed until it is uploaded
    await queue.fail(again, "the store refuses it again")
    assert len(await journal.events(limit=9)) == 3
    await queue.retry_failed()
    assert await queue.done(await begun(queue, b"failed"))
    assert (await queue.totals()).failed == 1


async def test_many_that_do_not_arrive_are_one_event_a_minute(journal: Journal) -> None:
    queue, now = ResultQueue(journal, "results"), 0.0
    queue._unsent._clock = lambda: now
    for start in range(0, 10_000, 500):
        names = [f"{number}\x07".encode() for number in range(start, start + 500)]
        await queue.put([found(name, state="refused", cause=f"{name!r} is bad") for name in names], "7")
    await queue.put([found(f"lost {number}".encode()) for number in range(30)], "7")
    for row in await queue.waiting(99, "7"):
        await queue.lose(row)
    await queue.write_due()

    async def events() -> list[tuple[str, int]]:
        return [(each.code, json.loads(each.data)["count"]) for each in await journal.events(limit=99)]

    assert await events() == [("result-refused", 500), ("result-lost", 1)]
    now = 61.0
    await queue.write_due()
    await queue.write_due()
    assert await events() == [
        *(("result-refused", 500), ("result-lost", 1)),
        *(("result-refused", 9_500), ("result-lost", 29)),
    ]
    data = json.loads((await journal.events(limit=99))[2].data)
    assert data["name"] == data["names"][0] == "500\\x07"
    assert len(data["names"]) == 10
    assert (await queue.totals()).failed == 10_000  # each has its row
    now = 200.0
    await queue.put([found(b"one more", state="refused", cause="bad")], "7")
    assert (await events())[-1] == ("result-refused", 1)


async def test_what_waits_for_its_minute_is_written_at_the_end(journal: Journal) -> None:
    queue = ResultQueue(journal, "results")
    for name in (b"a", b"b"):
        await queue.put([found(name, state="refused", cause="bad")], "7")
    await queue.write_due()
    assert len(await journal.events(limit=9)) == 1
    await queue.write_due(all_of_them=True)
    assert [json.loads(each.data)["names"] for each in await journal.events(limit=9)] == [["a"], ["b"]]


async def test_what_a_killed_run_has_not_said_is_said_by_the_next_one(journal: Journal) -> None:
    killed = ResultQueue(journal, "results")
    await killed.put([found(b"%d" % number, state="refused", cause=f"{number} is bad") for number in range(3)], "7")
    await killed.put([found(b"late %d" % number, state="refused", cause=f"{number}") for number in range(30)], "7")
    await killed.put([found(b"lost"), found(b"lost late"), found(b"failed"), found(b"failed late")], "7")
    lost, lost_late, failed, failed_late = await killed.waiting(9, "7")
    for row in (lost, lost_late):
        await killed.lose(row)
    for row in (failed, failed_late):
        await killed.fail(row, "the store refuses it")
    await killed.write_due()  # nothing: the minute is not over

    async def events() -> list[tuple[str, int, str]]:
        found = [(each.code, json.loads(each.data)) for each in await journal.events(limit=99)]
        return [(code, data["count"], data["name"]) for code, data in found]

    before = [("result-refused", 3, "0"), ("result-lost", 1, "lost"), ("result-failed", 1, "failed")]
    assert await events() == before
    for _ in range(2):
        queue = ResultQueue(journal, "results")
        await queue.write_due()
        assert await events() == [
            *before,
            *(("result-lost", 1, "lost late"), ("result-refused", 30, "late 0"), ("result-failed", 1, "failed late")),
        ]
    data = json.loads((await journal.events(limit=99))[4].data)
    assert data["names"] == [f"late {number}" for number in range(10)]


@pytest.mark.parametrize("name", [b"\xff" * 100_000, b"\x07" * 100_000, "声".encode() * 50_000, b"\\" * 100_000])
async def test_long_names_and_causes_are_cut_and_stay_readable(journal: Journal, name: bytes) -> None:
    queue = ResultQueue(journal, "results")
    queue._unsent._clock = iter(range(0, 10**6, 100)).__next__
    cause = f"the store says {name.decode('utf-8', 'replace')}"
    bad = [found(name + str(number).encode(), state="refused", cause=cause) for number in range(20)]
    await queue.put([found(name), found(name + b"lost"), *bad], "7")
    first, second = await queue.waiting(9, "7")
    await queue.fail(first, cause)
    await queue.lose(second)
    events = await journal.events(limit=9)
    assert [each.code for each in events] == ["result-refused", "result-failed", "result-lost"]
    for each in events:
        assert json.loads(each.data)["count"] >= 1
        assert len(each.text) < 700
    assert (await queue.totals()).failed_cause.startswith("the store says")
    assert all(len(row.cause) <= 300 for row in await queue.page(0, 99, "refused", "failed"))


async def test_a_file_that_was_removed_stays_known_as_long_as_there_are_few(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    queue = ResultQueue(journal, "results")
    names = [f"{number}".encode() for number in range(6)]
    await queue.put([found(name) for name in names], "7")
    for name in names:
        assert await queue.done(await begun(queue, name))
    rows = await queue.known(names)
    await queue.removed([row.id for row in rows.values() if row.name != b"0"])
    left = await queue.known(names)
    assert {name: row.state for name, row in left.items()} == {
        b"0": "uploaded",  # it is still here
        b"3": "removed",
        b"4": "removed",
        b"5": "removed",
    }
    await queue.returned([left[b"3"].id, left[b"0"].id])
    assert (await queue.known([b"3"]))[b"3"].state == "uploaded"
    assert (await queue.totals()).uploaded == 6


async def test_the_content_that_was_announced_is_not_announced_again(journal: Journal) -> None:
    queue = ResultQueue(journal, "results")
    await queue.put([found(b"a")], "7")
    await queue.done(await begun(queue, b"a"))
    row = (await queue.known([b"a"]))[b"a"]
    again = replace(found(b"a", stamp="1.2.9"), sha256=row.sha256, key=row.key, uploaded=row.uploaded, event=row.event)
    await queue.put([again], "7")
    (waiting,) = await queue.waiting(9, "7")
    assert (waiting.sha256, waiting.event) == ("ab", row.event)
    await queue.same_as_before(waiting.id)
    now = (await queue.known([b"a"]))[b"a"]
    assert (now.state, now.event, now.uploaded, now.stamp) == ("uploaded", row.event, row.uploaded, "1.2.9")
    assert len(await journal.events(limit=9)) == 1


async def test_a_file_that_was_touched_after_the_last_look_is_not_announced_as_it_was(journal: Journal) -> None:
    queue = ResultQueue(journal, "results")
    await queue.put([found(b"a")], "7")
    row = await begun(queue, b"a")
    await queue.restamp({row.id: "1.2.5"})
    assert not await queue.done(row, "1.2.4")
    (waiting,) = await queue.waiting(9, "7")
    assert (waiting.state, waiting.stamp) == ("uploading", "1.2.5")
    assert await queue.done(waiting, "1.2.5")
    await queue.restamp({row.id: "1.2.5"})
    assert (await queue.known([b"a"]))[b"a"].state == "uploaded"
    await queue.restamp({row.id: "1.2.6"})  # found before it was announced, and journaled after that
    (again,) = await queue.waiting(9, "7")
    assert (again.stamp, again.sha256, again.event) == ("1.2.6", "ab", 1)


async def test_what_was_found_again_meanwhile_is_not_dropped(journal: Journal) -> None:
    queue = ResultQueue(journal, "results")
    await queue.put([found(b"a"), found(b"b")], "7")
    first, second = await queue.waiting(9, "7")
    await queue.restamp({first.id: "1.2.5"})
    for row in (first, second):
        await queue.drop(row)
    assert [row.name for row in await queue.waiting(9, "7")] == [b"a"]


async def test_the_last_look_at_the_file_is_what_is_known_of_it(journal: Journal) -> None:
    queue = ResultQueue(journal, "results")
    await queue.put([found(b"a")], "7")
    assert await queue.done(await begun(queue, b"a"), "1.2.4")
    assert (await queue.known([b"a"]))[b"a"].stamp == "1.2.4"


async def test_pages_have_each_row_once(journal: Journal) -> None:
    queue = ResultQueue(journal, "results")
    await queue.put([found(f"{number}".encode()) for number in range(7)], "7")
    names, after = [], 0
    while rows := await queue.page(after, 3, "queued", "uploaded"):
        names += [row.name for row in rows]
        after = rows[-1].id
    assert names == [f"{number}".encode() for number in range(7)]
    assert await queue.page(0, 9, "uploaded") == []


async def test_uploads_push_no_other_event_out_and_no_other_pushes_out_uploads(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "EVENTS_KEPT", 3)
    queue = ResultQueue(journal, "results")
    for number in range(2):
        await journal.event("switch-failed", "hub", f"it failed: {number}")
    for number in range(5):
        await queue.put([found(b"%d" % number)], "7")
        assert await queue.done(await begun(queue, b"%d" % number))
    assert [each.id for each in await journal.events(limit=99)] == [1, 2, 5, 6, 7]
    for number in range(4):
        await journal.event("switch-failed", "hub", f"it failed: {number}")
    assert [each.id for each in await journal.events(limit=99)] == [5, 6, 7, 9, 10, 11]


async def test_files_that_are_kept_come_page_by_page(journal: Journal) -> None:
    queue = ResultQueue(journal, "results")
    names = [b"a", b"b", b"c", b"d", b"e"]
    for name in names:
        await queue.put([found(name)], "7")
        assert await queue.done(await begun(queue, name))
    # Several of one moment too.
    await journal.rows("UPDATE outbox SET uploaded = '2026-01-01T00:00:00Z' WHERE name != CAST('e' AS BLOB)")
    got: list[bytes] = []
    after = ("", 0)
    while rows := await queue.kept_until("2999-01-01T00:00:00Z", 2, after):
        got += [row.name for row in rows]
        after = rows[-1].uploaded or "", rows[-1].id
    assert got == names
