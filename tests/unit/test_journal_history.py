"""Steps, quarantine, known content, history and events: what is written is found again, newest or oldest first."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mountd.clock import now_text
from mountd.journal import database
from mountd.journal import journal as journals
from mountd.journal.journal import Committed, Journal, KnownContent, OperationRecord, Quarantined
from mountd.model.changes import Changes, recorded, rename
from mountd.model.content import Content
from mountd.model.known import changed_since
from mountd.model.survey import FileList
from mountd.status.snapshot import Reason


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = Journal(tmp_path / "mountd.db")
    await journal.open()
    yield journal
    await journal.close()


async def begin(journal: Journal, model: str = "hub", kind: str = "switch") -> OperationRecord:
    return await journal.begin(
        kind=kind,
        model=model,
        from_version="v22",
        to_version="v23",
        operator="tina",
        source="cli",
        reason="",
        step="preflight",
    )


async def finish(journal: Journal, record: OperationRecord, result: str) -> OperationRecord:
    await journal.finish(replace(record, finished=now_text(), result=result, exit_code=0, duration_s=1.0))
    ended = await journal.operation(record.id)
    assert ended is not None
    return ended


def noted(model: str, version: str, digest: str, listing: str) -> KnownContent:
    return KnownContent(model, version, digest, listing, now_text())


# -- steps ------------------------------------------------------------------------------------------------------------


async def test_steps_in_the_order_in_which_they_were_begun(journal: Journal) -> None:
    first, second = await begin(journal), await begin(journal)
    for name in ("preflight", "warm"):
        await journal.begin_step(first.id, name)
        await journal.begin_step(second.id, name)
        await journal.end_step(first.id, name, "done")
    await journal.begin_step(first.id, "flip")
    found = await journal.steps(first.id)
    assert [(step.step, step.outcome) for step in found] == [("preflight", "done"), ("warm", "done"), ("flip", None)]
    for step in found[:2]:
        assert step.ended is not None
        assert step.began <= step.ended
        assert step.duration_s is not None
        assert 0 <= step.duration_s < 10
    assert (found[2].ended, found[2].duration_s) == (None, None)
    assert [step.outcome for step in await journal.steps(second.id)] == [None, None]
    current = await journal.operation(first.id)
    assert current is not None
    assert current.step == "flip"


async def test_a_step_that_is_begun_twice_ends_twice(journal: Journal) -> None:
    record = await begin(journal)
    for outcome in ("failed", "done"):
        await journal.begin_step(record.id, "flip-back")
        await journal.end_step(record.id, "flip-back", outcome)
    assert [step.outcome for step in await journal.steps(record.id)] == ["failed", "done"]


async def test_a_step_that_a_previous_run_began_has_no_seconds(journal: Journal) -> None:
    record = await begin(journal)
    await journal.begin_step(record.id, "flip")
    later = Journal(journal.path)
    await later.open()
    await later.end_step(record.id, "flip", "interrupted")
    (step,) = await later.steps(record.id)
    await later.close()
    assert (step.outcome, step.duration_s) == ("interrupted", None)
    assert step.ended is not None


async def test_a_step_is_begun_as_a_whole_or_not_at_all(journal: Journal) -> None:
    """Its row and the operation's step say the same whenever the disk fails."""
    record = await begin(journal)
    with closing(sqlite3.connect(journal.path)) as db:
        db.execute("CREATE TRIGGER no BEFORE UPDATE ON operations BEGIN SELECT raise(ABORT, 'the disk is full'); END")
    with pytest.raises(Exception, match="the disk is full"):
        await journal.begin_step(record.id, "flip")
    assert await journal.steps(record.id) == []
    with closing(sqlite3.connect(journal.path)) as db:
        db.execute("DROP TRIGGER no")
    await journal.begin_step(record.id, "flip")
    assert [step.step for step in await journal.steps(record.id)] == ["flip"]


async def test_steps_go_with_their_operation(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "OPERATIONS_KEPT", 2)
    ids = []
    for _ in range(4):
        ids.append((await begin(journal)).id)
        await journal.begin_step(ids[-1], "preflight")
    assert [len(await journal.steps(id_)) for id_ in ids] == [0, 0, 1, 1]


async def test_a_schedule_that_waits_stays_however_many_operations_come_after_it(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "OPERATIONS_KEPT", 2)
    waits = await begin(journal, kind="schedule")
    ended = await begin(journal, kind="schedule")
    await journal.finish(replace(ended, finished="2026-01-01T00:00:00Z", result="done"))
    ids = []
    for _ in range(4):
        ids.append((await begin(journal)).id)
        await journal.begin_step(ids[-1], "preflight")
    assert [each.id for each in await journal.scheduled()] == [waits.id]
    assert [each.id for each in await journal.history(limit=10)] == [*ids[:1:-1], waits.id]
    assert [len(await journal.steps(id_)) for id_ in ids] == [0, 0, 1, 1]


# -- quarantine and content -------------------------------------------------------------------------------------------


async def test_quarantine_by_model_and_digest(journal: Journal) -> None:
    await journal.quarantine("hub", "sha256:1", version="v9", operation=7, cause="it crashed")
    await journal.quarantine("hub", "sha256:2", version="v10", operation=None, cause="a gate failed")
    await journal.quarantine("hub", "sha256:1", version="v9-again", operation=8, cause="it crashed again")
    await journal.quarantine("other", "sha256:1", version="v9", operation=9, cause="it crashed")
    found = await journal.quarantined("hub")
    assert found.keys() == {"sha256:1", "sha256:2"}
    since = found["sha256:1"].since
    assert found["sha256:1"] == Quarantined("hub", "sha256:1", "v9-again", 8, "it crashed again", since)
    assert await journal.release("hub", "sha256:1") is True
    assert await journal.release("hub", "sha256:1") is False
    assert (await journal.quarantined("hub")).keys() == {"sha256:2"}
    assert (await journal.quarantined("other")).keys() == {"sha256:1"}


async def test_known_content_is_what_was_recorded_last(journal: Journal) -> None:
    assert await journal.content("hub", "v23") is None
    for listing in ("a", "b"):
        await journal.record_content(noted("hub", "v23", "sha256:1", listing))
    known = await journal.content("hub", "v23")
    assert known is not None
    assert (known.digest, known.listing) == ("sha256:1", "b")
    assert await journal.content("other", "v23") is None


async def test_what_a_version_holds_is_recorded_with_its_commit(journal: Journal) -> None:
    await journal.commit("hub", Committed(current="v23"), holds=noted("hub", "v23", "sha256:1", "a"))
    await journal.commit("hub", Committed(current="v24"))
    known = await journal.content("hub", "v23")
    assert known is not None
    assert (known.digest, known.listing) == ("sha256:1", "a")
    assert await journal.content("hub", "v24") is None


async def test_what_is_known_under_one_digest_is_known_under_another(journal: Journal) -> None:
    await journal.record_content(noted("hub", "v23", "old", "a"))
    await journal.record_content(noted("other", "v23", "old", "a"))
    before = await journal.content("hub", "v23")
    for digest in ("old", "new"):  # of two names of one content the later one counts
        await journal.quarantine("hub", digest, version="v24", operation=1, cause=digest)
    await journal.rename_digest("hub", "old", "new")
    known, other = await journal.content("hub", "v23"), await journal.content("other", "v23")
    assert before is not None
    assert known == replace(before, digest="new")
    assert other is not None
    assert other.digest == "old"
    assert (await journal.quarantined("hub")).keys() == {"new"}


async def test_what_mountd_0_1_has_recorded_is_recognised(journal: Journal) -> None:
    """By the bytes of the manifest, which was the digest then: neither changed, nor out of quarantine."""
    content = Content("v23", "hub_v23", FileList.of({"a": 1, "MANIFEST.json": 9}), "new", True, (), former="old")
    await journal.record_content(noted("hub", "v23", "old", "a"))
    await journal.quarantine("hub", "old", version="v23", operation=1, cause="it crashed")
    known = await recorded(journal, "hub", content)
    assert known is not None
    assert known.digest == "new"
    assert changed_since(known, content) is None
    held = await journal.content("hub", "v23")
    assert held is not None
    assert held.digest == "old"  # a read writes nothing
    await rename(journal, "hub", content)
    assert await journal.content("hub", "v23") == await recorded(journal, "hub", content) == known
    assert (await journal.quarantined("hub")).keys() == {"new"}
    other = replace(content, digest="newer", former="older")
    assert changed_since(await recorded(journal, "hub", other), other) is not None


async def test_a_journal_that_cannot_be_written_hides_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCKED_S", 0.05)
    journal = Journal(tmp_path / "mountd.db")
    await journal.open()  # which keeps the LOCKED_S of now
    content = Content("v23", "hub_v23", FileList.of({"a": 1, "MANIFEST.json": 9}), "new", True, (), former="former")
    await journal.record_content(noted("hub", "v23", "old", "a"))
    await journal.quarantine("hub", "former", version="v24", operation=1, cause="it crashed")
    changes = Changes("hub", journal, lambda **_: None)
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as other, capture_logs() as logs:
        other.execute("BEGIN IMMEDIATE")
        await changes.compare(content)
    assert [each["event"] for each in logs] == ["cannot rename a digest yet", "version has changed since it was live"]
    assert changes.of("v23") is not None
    await journal.close()


async def test_a_change_is_reported_once_until_it_is_accepted_or_over(journal: Journal) -> None:
    shown: list[Reason | None] = []
    changes = Changes("hub", journal, shown.append)
    await journal.record_content(noted("hub", "v23", "old", "a"))
    content = Content("v23", "hub_v23", FileList.of({"a": 1}), "new", False, ())
    with capture_logs() as logs:
        for _ in range(2):
            await changes.compare(content)
    reason = changes.of("v23")
    assert reason is not None
    assert (reason.code, changes.of("v22"), shown) == ("content-changed", None, []), "it is not linked yet"
    assert [each["log_level"] for each in logs] == ["error"]
    changes.show("v23", reason)
    changes.accept("v23")
    assert (changes.of("v23"), shown) == (None, [reason, None])
    changes.show("v23", reason)
    with capture_logs() as logs:
        for _ in range(2):
            changes.show("v23", None)
    assert (changes.of("v23"), shown[2:]) == (None, [reason, None, None])
    assert [each["log_level"] for each in logs] == ["info"]


async def test_any_text_can_be_journaled(journal: Journal) -> None:
    await journal.event("code\ud800", "a\udcff", "x" * 5_000_000)
    (event,) = await journal.events(limit=1)
    assert (event.code, event.object) == ("code\\ud800", "a\\udcff")
    assert len(event.text) < 20_000


async def test_why_an_operation_fails_is_known_before_it_is_undone(journal: Journal) -> None:
    record = await begin(journal, "hub")
    for step, outcome, cause in [("flip", "done", ""), ("ready", "failed", "it crashed"), ("stop-new", "done", "")]:
        await journal.begin_step(record.id, step)
        await journal.end_step(record.id, step, outcome, cause=cause)
    (unfinished,) = await journal.unfinished()
    assert (unfinished.step, unfinished.cause) == ("stop-new", "it crashed")


async def test_old_ones_are_trimmed_and_what_was_recorded_again_is_not_old(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "CONTENTS_KEPT", 3)
    monkeypatch.setattr(journals, "QUARANTINED_KEPT", 3)
    for version in ("v1", "v2", "v3", "v1", "v4"):
        await journal.record_content(noted("hub", version, version, ""))
        await journal.quarantine("hub", version, version=version, operation=None, cause="")
    assert (await journal.quarantined("hub")).keys() == {"v3", "v1", "v4"}
    kept = [version for version in ("v1", "v2", "v3", "v4") if await journal.content("hub", version)]
    assert kept == ["v1", "v3", "v4"]


# -- history and events -----------------------------------------------------------------------------------------------


async def test_history_newest_first_by_what_is_asked_for(journal: Journal) -> None:
    one = await finish(journal, await begin(journal, "hub"), "committed")
    two = await finish(journal, await begin(journal, "other"), "rolled-back")
    three = await finish(journal, await begin(journal, "hub", "rollback"), "committed")
    four = await begin(journal, "hub")
    assert await journal.history(limit=10) == [four, three, two, one]
    assert await journal.history(limit=2) == [four, three]
    assert await journal.history(limit=2, before=three.id) == [two, one]
    assert await journal.history("hub", limit=10) == [four, three, one]
    assert await journal.history("hub", "switch", limit=10) == [four, one]
    assert await journal.history(result="committed", limit=10) == [three, one]
    assert await journal.history("nobody", limit=10) == []


async def test_events_after_an_id_or_the_last_ones(journal: Journal) -> None:
    assert await journal.last_event() == 0
    for number in range(6):
        await journal.event("even" if number % 2 == 0 else "odd", f"m{number % 3}", str(number))
    assert [event.text for event in await journal.events(limit=2)] == ["4", "5"]
    assert [event.text for event in await journal.events(0, limit=2)] == ["0", "1"]
    seen = (await journal.events(0, limit=2))[-1].id
    assert [event.text for event in await journal.events(seen, limit=10)] == ["2", "3", "4", "5"]
    assert [event.text for event in await journal.events(code="odd", limit=2)] == ["3", "5"]
    assert [event.text for event in await journal.events(0, object_="m0", limit=10)] == ["0", "3"]
    assert await journal.last_event() == (await journal.events(limit=1))[0].id


async def test_everybody_who_waits_for_an_event_is_woken_once_it_can_be_read(journal: Journal) -> None:
    waiting = [journal.event_written() for _ in range(2)]
    gone = asyncio.create_task(asyncio.wait([journal.event_written()]))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    assert not waiting[0].done()
    await journal.event("ready", "mountd", "ready")
    assert all(each.done() for each in waiting)
    assert not journal.event_written().done()
