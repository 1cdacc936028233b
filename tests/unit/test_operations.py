"""Operations on a real model, link and journal: their results, who is refused, and a journal that fails."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.clock import now_text
from mountd.errors import Busy, JournalError, MountdError
from mountd.journal import database
from mountd.operation import results
from mountd.operation.rules import FROM_FILE
from mountd.operation.running import Running
from tests.support.shelf import SOON_S, TINA, Shelf, shelf, until


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Shelf]:
    async with shelf(tmp_path) as found:
        yield found


@pytest.fixture
async def live(hub: Shelf) -> AsyncIterator[Shelf]:
    """v22 is live."""
    async with hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        yield hub


@pytest.mark.parametrize(
    ("model", "apps", "meets"),
    [
        ("hub", {"webui"}, True),
        ("hub", set(), True),
        ("other", {"webui", "batch"}, True),
        ("other", {"batch"}, False),
        ("other", set(), False),
        ("", set(), True),  # an exclusive task may touch all
    ],
)
def test_a_switch_conflicts_with_those_of_its_model_and_of_its_apps(model: str, apps: set[str], meets: bool) -> None:
    running = Running("switch", "hub", "v23", "tina", model="hub", apps=frozenset({"webui"}))
    assert running.meets(model, frozenset(apps)) is meets
    assert Running("drill", "storage", "hang", "tina").meets(model, frozenset(apps))


# -- a journal that fails ---------------------------------------------------------------------------------------------


async def test_an_end_that_cannot_be_written_is_reported_and_written_before_the_next_begins(live: Shelf) -> None:
    with live.without_ends():
        first = await live.switch("v23")
        assert (first.result, first.step, first.exit_code, live.target) == ("committed", "commit", 0, "hub_v23")
        assert first.finished is not None
        row = await live.journal.operation(first.id)
        assert row is not None
        assert row.finished is None

        async with asyncio.timeout(SOON_S):
            assert await live.operations.wait(first.id, seen_step="commit", timeout_s=100 * SOON_S) == first
        history = live.operations.results.history
        assert await history(limit=5) == [first]
        assert await history("hub", "switch", "committed", limit=5) == [first]
        assert await history(result="rolled-back", limit=5) == []
        assert await history(limit=5, before=first.id) == []

        with pytest.raises(MountdError) as refused:  # a crash would take both for cut off
            await live.operations.switch(None, "v24", TINA)
        assert refused.value.code == "journal-unusable"
        assert len(await live.journal.history(limit=5)) == 1
        live.operations.check_free()
    second = await live.switch("v24")
    assert await live.journal.history(limit=5) == [second, first], "with the time at which it ended"
    meters = live.board.meters.operations
    assert dict(meters.results) == {("switch", "committed"): 2}, "each once"
    assert sum(meters.durations["switch"].counts) == 2
    assert (first.finished or "") <= second.started


async def test_it_is_written_without_another_operation(live: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "AGAIN_S", 0.05)
    with live.without_ends():
        ended = await live.switch("v23")
    async with asyncio.timeout(SOON_S):
        while await live.journal.operation(ended.id) != ended:
            await asyncio.sleep(0.01)


async def test_pages_of_a_history_with_ends_that_are_not_written(hub: Shelf) -> None:
    begun = [await hub.begin(f"v{number}") for number in range(6)]
    for record in begun[1:]:
        await hub.journal.finish(replace(record, finished=now_text(), result="committed", exit_code=0))
    with hub.without_ends():
        await hub.operations.results.finish(replace(begun[0], result="committed", exit_code=0))
        history = hub.operations.results.history
        for result in (None, "committed"):
            newest = await history(result=result, limit=4)
            assert [each.id for each in newest] == [each.id for each in begun[:1:-1]]
            older = await history(result=result, limit=4, before=newest[-1].id)
            assert [each.id for each in older] == [begun[1].id, begun[0].id]
        assert await history("other", limit=4) == []


async def test_what_a_previous_run_left_is_reported_as_it_is(hub: Shelf) -> None:
    """Of two on one model the newer one decides about the link."""
    hub.link.symlink_to("/mnt/hub_v23")
    older = await hub.begin("v23", step="gates")
    other = await hub.begin("v23", step="warm", model="voices")
    newer = await hub.begin("v22")
    await hub.journal.finish(replace(newer, finished=now_text(), result="committed", exit_code=0))
    await hub.operations.close_interrupted()
    shown = await hub.journal.operation(older.id)
    assert shown is not None
    assert (shown.result, shown.exit_code) == ("interrupted", 1)
    assert [word in shown.cause for word in ("gates", f"operation {newer.id}")] == [True, True]
    assert hub.target == "hub_v23", "the model puts it right when it starts up"
    shown = await hub.journal.operation(other.id)
    assert shown is not None
    assert (shown.result, shown.cause.split()[-1]) == ("interrupted", "warm")


async def test_a_recovery_that_cannot_be_written_is_reported_all_the_same(hub: Shelf) -> None:
    hub.link.symlink_to("/mnt/hub_v23")
    record = await hub.begin("v23", step="start")
    with hub.without_ends():
        async with hub.running():
            (shown,) = await hub.operations.results.history(limit=5)
            assert (shown.id, shown.result, shown.exit_code) == (record.id, "rolled-back", 5)
            assert [word in shown.cause for word in ("v23", "start", "v22")] == [True] * 3
            assert hub.target == "hub_v22"
    assert await hub.journal.history(limit=5, result="rolled-back") == []
    await hub.operations.results.flush()
    assert [each.id for each in await hub.journal.history(limit=5, result="rolled-back")] == [record.id]


# -- the link as somebody left it -------------------------------------------------------------------------------------


async def test_who_asks_for_what_is_live_gets_a_link_that_points_there(live: Shelf) -> None:
    asked = await live.operations.switch(None, "v22", TINA)
    assert (asked.record, asked.plan.steps) == (None, ())
    await live.model.suspend("alice")
    live.point("/somewhere/else")
    await until(lambda: live.status.drift.reason, "the link to be seen")
    assert (live.status.current, live.status.linked) == ("v22", True)

    of_the_file = await live.operations.switch(None, "v22", replace(TINA, source=FROM_FILE))
    assert (of_the_file.record, live.target) == (None, "else"), "it heals nothing that is to be left alone"
    dry = await live.operations.switch(None, "v22", replace(TINA, dry_run=True))
    assert "flip" in dry.plan.steps
    assert live.target == "else"
    ended = await live.switch("v22")
    assert (ended.result, ended.from_version, live.target) == ("committed", "v22", "hub_v22")
    assert (live.status.current, live.status.previous, live.status.drift.reason) == (
        "v22",
        None,
        None,
    )
    assert (await live.operations.switch(None, "v22", TINA)).record is None


# -- who is refused ---------------------------------------------------------------------------------------------------


async def test_busy_says_what_was_asked_for_and_who_is_at_it(live: Shelf) -> None:
    await live.switch("v23")
    live.disk.gate.clear()
    begun = await live.operations.switch(None, "v24", TINA)
    assert begun.record is not None
    with pytest.raises(Busy, match="v25") as switch:
        await live.operations.switch(None, "v25", TINA)
    with pytest.raises(Busy, match="v22") as rollback:
        await live.operations.rollback(None, TINA)
    for refused in (switch.value, rollback.value):
        assert re.fullmatch(r"tina \(switch hub to v24, since \d+ s\)", refused.holder)
        assert refused.holder in refused.text
        assert "mountd cancel" in refused.hint
    live.disk.gate.set()
    await live.operations.outcome(begun.record)
    assert (await live.operations.wait(begun.record.id, seen_step="", timeout_s=0)).result == "committed"


async def test_what_is_just_being_begun_cannot_be_cancelled_yet(live: Shelf) -> None:
    with live.locked():
        asking = asyncio.create_task(live.operations.switch(None, "v23", TINA))
        await asyncio.sleep(0)
        with pytest.raises(Busy) as shown:
            live.operations.cancel(None, "tina")
        assert (shown.value.exit_code, shown.value.holder.split()[0]) == (6, "tina")
        assert "mountd cancel" not in shown.value.hint
    begun = await asking
    assert begun.record is not None
    assert live.operations.cancel(None, "tina").id == begun.record.id
    await live.operations.outcome(begun.record)
    assert (await live.operations.wait(begun.record.id, seen_step="", timeout_s=0)).result == "cancelled"


async def test_what_is_cancelled_while_it_is_being_begun_does_not_stay_running(live: Shelf) -> None:
    with live.locked():
        asking = asyncio.create_task(live.operations.switch(None, "v23", TINA))
        await until(lambda: live.operations._running, "the switch to be claimed")
        asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await live.journal.unfinished() == []
    (written,) = await live.journal.history(limit=5)
    assert (written.to_version, written.result, written.exit_code) == ("v23", "cancelled", 1)
    assert (await live.switch("v23")).result == "committed"


async def test_a_journal_that_is_held_is_worth_another_try(hub: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCKED_S", 0.05)
    again = type(hub.journal)(hub.journal.path)
    await again.open()
    try:
        with hub.locked(), pytest.raises(JournalError) as shown:
            await again.event("ready", "hub", "")
        assert (shown.value.code, shown.value.retryable) == ("journal-unusable", True)
        os.truncate(hub.journal.path, 100)
        with pytest.raises(MountdError) as broken:
            await again.event("ready", "hub", "")
        assert (broken.value.code, broken.value.retryable) == ("journal-unusable", False)
    finally:
        await again.close()
