"""Switches for a later time, by a clock that the test moves: durable, carried out once, dropped, or missed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mountd import clock
from mountd.errors import BadVersionName, JournalError, MountdError, NotFound, Refused, UsageError
from mountd.journal.journal import Journal
from mountd.journal.records import OperationRecord
from mountd.operation import due, schedule
from mountd.status.snapshot import ModelStage, ModelStatus
from tests.support.shelf import SOON_S, TINA, Shelf, shelf, until

AT = "2026-01-31T03:00:00Z"
LINKED = ModelStatus("storage", "/srv/hub", ModelStage.LINKED, current="v22")


class HandClock:
    """The wall clock, until the test moves it."""

    def __init__(self) -> None:
        self.present = datetime(2026, 1, 31, 2, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.present

    def move(self, **ahead: float) -> None:
        self.present += timedelta(**ahead)


@pytest.fixture(autouse=True)
def hand(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    found = HandClock()
    monkeypatch.setattr(clock, "now", found.now)
    monkeypatch.setattr(schedule, "RECHECK_S", 0.02)
    return found


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Shelf]:
    async with shelf(tmp_path) as found:
        yield found


@contextlib.asynccontextmanager
async def live(hub: Shelf) -> AsyncIterator[None]:
    async with hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        yield


async def ended(hub: Shelf, id_: int) -> OperationRecord:
    async def finished() -> OperationRecord:
        while (found := await hub.operations.results.operation(id_)) is None or found.finished is None:
            await asyncio.sleep(0.01)
        return found

    return await asyncio.wait_for(finished(), 60)


async def codes(hub: Shelf) -> list[str]:
    return [each.code for each in await hub.journal.events(limit=100) if "schedule" in each.code]


async def reported(hub: Shelf, code: str) -> None:
    """It is finished before that is an event."""
    async with asyncio.timeout(SOON_S):
        while code not in await codes(hub):
            await asyncio.sleep(0.01)


async def looks(count: int = 4) -> None:
    """So many looks at the clock."""
    for _ in range(count):
        await asyncio.sleep(schedule.RECHECK_S)


async def test_at_its_time_it_becomes_a_switch_and_ends_as_that(hub: Shelf, hand: HandClock) -> None:
    async with live(hub):
        asked = await hub.schedules.ask(None, "v23", AT, replace(TINA, reason="nightly", force=True))
        (shown,) = hub.board.snapshot.scheduled
        assert (shown.id, shown.model, shown.version, shown.due) == (asked.id, "hub", "v23", AT)
        assert (shown.operator, shown.reason, shown.waits) == ("tina", "nightly", "")
        hand.move(minutes=59)
        await looks()
        assert await hub.journal.unfinished() == []
        hand.move(minutes=1)
        done = await ended(hub, asked.id)
        assert (done.kind, done.result, done.exit_code) == ("schedule", "committed", 0)
        assert (hub.target, hub.board.snapshot.scheduled) == ("hub_v23", ())
        switch, waited = await hub.journal.history(limit=5)
        assert waited.id == asked.id
        assert (switch.kind, switch.to_version, switch.result) == ("switch", "v23", "committed")
        assert (switch.operator, switch.source, switch.reason, switch.schedule) == (
            *("tina", "schedule", "nightly"),
            asked.id,
        )
        hand.move(hours=-3)  # set back: it is over for good
        await looks()
        hand.move(hours=3)
        await looks()
        assert len(await hub.journal.history(limit=5)) == 2
    assert await codes(hub) == ["switch-scheduled", "schedule-begun"]
    assert hub.board.meters.operations.results == {("switch", "committed"): 1}, "the metrics count it once"


async def test_one_that_fails_says_what_its_switch_said(hub: Shelf, hand: HandClock) -> None:
    hub.disk.missing.add("hub_v24")
    async with live(hub):
        asked = await hub.schedules.ask("hub", "v24", "+1h", TINA)
        hand.move(hours=1)
        done = await ended(hub, asked.id)
        switch = (await hub.journal.history(kind="switch", limit=1))[0]
        assert (done.result, done.exit_code, done.cause) == (switch.result, switch.exit_code, switch.cause)
        assert done.result in ("failed", "refused")
        assert hub.target == "hub_v22"


async def test_one_to_what_is_live_by_then_has_nothing_to_do(hub: Shelf, hand: HandClock) -> None:
    async with live(hub):
        asked = await hub.schedules.ask("hub", "v22", "+1h", TINA)
        hand.move(hours=1)
        done = await ended(hub, asked.id)
        assert (done.result, done.exit_code) == ("done", 0)
        assert len(await hub.journal.history(limit=5)) == 1
    assert hub.board.meters.operations.results == {("schedule", "done"): 1}


# -- mountd was down --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def another_run(before: Shelf) -> AsyncIterator[Shelf]:
    """Of mountd, on the same state."""
    async with shelf(before.directory, live="") as found:
        yield found


@pytest.mark.parametrize(
    ("late", "result"), [({"minutes": 59}, "committed"), ({"minutes": 61}, "missed"), ({"days": 300}, "missed")]
)
async def test_one_that_was_due_meanwhile_begins_late_or_was_missed(
    tmp_path: Path, hand: HandClock, late: dict[str, float], result: str
) -> None:
    async with shelf(tmp_path) as hub, live(hub):
        asked = await hub.schedules.ask("hub", "v23", AT, TINA)
    hand.move(hours=1, **late)
    async with another_run(hub) as again, live(again):
        done = await ended(again, asked.id)
        assert (done.result, again.board.snapshot.scheduled) == (result, ())
        assert again.target == ("hub_v23" if result == "committed" else "hub_v22")
        assert (await codes(again))[-1] == ("schedule-begun" if result == "committed" else "schedule-missed")


async def test_one_whose_time_is_yet_to_come_is_there_after_a_restart(tmp_path: Path, hand: HandClock) -> None:
    async with shelf(tmp_path) as hub, live(hub):
        asked = await hub.schedules.ask("hub", "v23", AT, replace(TINA, digests=True, force=True))
    async with another_run(hub) as again, live(again):
        assert [each.id for each in again.board.snapshot.scheduled] == [asked.id]
        (kept,) = await again.journal.scheduled()
        assert kept == asked
        assert kept.options == "force digests"
        assert await again.journal.unfinished() == [], "a start does not take it for interrupted"


class KilledJournal(Journal):
    """Of a mountd that dies before or after the switch of a schedule is in the journal."""

    after = False

    async def begin(self, **row: Any) -> OperationRecord:
        if row.get("schedule") is None:
            return await super().begin(**row)
        if self.after:
            await super().begin(**row)
        raise KilledError


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("after", [False, True])
async def test_killed_while_it_becomes_a_switch_there_is_one_switch_all_the_same(
    tmp_path: Path, hand: HandClock, after: bool
) -> None:
    async with shelf(tmp_path) as hub, live(hub):
        asked = await hub.schedules.ask("hub", "v23", AT, TINA)
    hand.move(hours=1)
    async with another_run(hub) as dying:
        dying.operations._journal = killed = KilledJournal(dying.journal.path)
        killed.after = after
        await killed.open()
        try:
            await dying.operations.close_interrupted()
            await dying.schedules.load()
            await dying.desired.load("hub")
            dying.board.set_model("hub", LINKED)
            with pytest.raises(KilledError):
                await dying.schedules.run()
        finally:
            await killed.close()
    async with another_run(hub) as again, live(again):
        done = await ended(again, asked.id)
        switches = await again.journal.history(kind="switch", limit=5)
        assert len(switches) == 1
        assert (done.result, switches[0].result) == (("interrupted",) * 2 if after else ("committed",) * 2)
        assert again.target == ("hub_v22" if after else "hub_v23")


async def test_of_two_that_are_due_the_earlier_one_begins_first(hub: Shelf, hand: HandClock) -> None:
    async with live(hub):
        later = await hub.schedules.ask("hub", "v24", "+40m", TINA)
        earlier = await hub.schedules.ask("hub", "v23", "+20m", TINA)
        assert [each.id for each in hub.board.snapshot.scheduled] == [earlier.id, later.id]
        hand.move(hours=1)
        assert (await ended(hub, later.id)).result == "committed"
        assert [each.schedule for each in await hub.journal.history(kind="switch", limit=5)] == [later.id, earlier.id]


async def test_it_is_waited_for_without_asking_again_and_again(hub: Shelf, hand: HandClock) -> None:
    async with live(hub):
        asked = await hub.schedules.ask("hub", "v23", AT, TINA)
        waiting = asyncio.create_task(hub.operations.wait(asked.id, seen_step=asked.step, timeout_s=60))
        await looks()
        assert not waiting.done()
        await hub.schedules.cancel(None, "alice")
        assert (await asyncio.wait_for(waiting, 30)).result == "cancelled"


# -- what it waits for ------------------------------------------------------------------------------------------------


async def test_a_pause_holds_it_back_until_resume_or_too_late(hub: Shelf, hand: HandClock) -> None:
    async with live(hub):
        asked = await hub.schedules.ask("hub", "v23", AT, TINA)
        other = await hub.schedules.ask("hub", "v24", "+3h", TINA)
        await hub.model.suspend("alice: an incident")
        hand.move(hours=1)
        await until(lambda: "an incident" in hub.board.snapshot.scheduled[0].waits, "it to say why it waits")
        assert await hub.journal.unfinished() == []
        await hub.model.suspend(None)
        assert (await ended(hub, asked.id)).result == "committed"
        await hub.model.suspend("alice: an incident")
        hand.move(hours=2)
        await until(lambda: hub.board.snapshot.scheduled[0].waits, "the other one to be due")
        hand.move(seconds=due.LATE_S + 1)
        done = await ended(hub, other.id)
        assert (done.result, "an incident" in done.cause) == ("missed", True)
        assert hub.target == "hub_v23"


async def test_another_operation_is_waited_for(hub: Shelf, hand: HandClock) -> None:
    async with live(hub):
        asked = await hub.schedules.ask("hub", "v23", AT, TINA)
        hub.disk.gate.clear()
        running = await hub.operations.switch("hub", "v21", TINA)
        assert running.record is not None
        hand.move(hours=1)
        await until(lambda: hub.board.snapshot.scheduled[0].waits, "it to say that it waits")
        hub.disk.gate.set()
        assert (await ended(hub, asked.id)).result == "committed"
        assert [each.to_version for each in await hub.journal.history(kind="switch", limit=5)] == ["v23", "v21"]


async def test_a_model_that_is_gone_by_then(hub: Shelf, hand: HandClock) -> None:
    async with live(hub):
        asked = await hub.schedules.ask("hub", "v23", AT, TINA)
        del hub.models["hub"]
        hand.move(hours=1)
        done = await ended(hub, asked.id)
        assert (done.result, done.exit_code) == ("failed", 3)
        await reported(hub, "schedule-failed")


# -- cancelling -------------------------------------------------------------------------------------------------------


async def test_a_schedule_that_is_cancelled_is_never_carried_out(hub: Shelf, hand: HandClock) -> None:
    async with live(hub):
        asked = await hub.schedules.ask("hub", "v23", AT, TINA)
        dropped = await hub.schedules.cancel(None, "alice")
        assert (dropped.id, dropped.result, dropped.kind) == (asked.id, "cancelled", "schedule")
        assert "alice" in dropped.cause
        assert await hub.journal.scheduled() == []
        hand.move(hours=1)
        await looks()
        assert (hub.board.snapshot.scheduled, hub.target) == ((), "hub_v22")
        with pytest.raises(NotFound):
            await hub.schedules.cancel(None, "alice")
        with pytest.raises(NotFound):
            await hub.schedules.cancel(None, "alice", asked.id)
    assert await codes(hub) == ["switch-scheduled", "schedule-cancelled"]


async def test_of_several_the_one_that_is_meant_must_be_named(hub: Shelf) -> None:
    async with live(hub):
        first, second = [await hub.schedules.ask("hub", version, AT, TINA) for version in ("v23", "v24")]
        with pytest.raises(UsageError) as unclear:
            await hub.schedules.cancel("hub", "alice")
        assert [str(each.id) in unclear.value.text for each in (first, second)] == [True, True]
        await hub.schedules.cancel(None, "alice", second.id)
        assert (await hub.schedules.cancel("hub", "alice")).id == first.id
        with pytest.raises(NotFound):
            await hub.schedules.cancel("nowhere", "alice")


async def test_without_an_id_what_runs_is_meant(hub: Shelf, hand: HandClock) -> None:
    async with live(hub):
        asked = await hub.schedules.ask("hub", "v23", "+2h", TINA)
        begun = await hub.schedules.ask("hub", "v24", "+1h", TINA)
        hub.disk.gate.clear()
        hand.move(hours=1)
        await until(lambda: hub.board.snapshot.operations, "the switch")
        (running,) = hub.board.snapshot.operations
        assert (await hub.schedules.cancel(None, "alice", begun.id)).id == running.id, "by the id of its schedule"
        assert (await hub.schedules.cancel(None, "alice")).id == running.id
        hub.disk.gate.set()
        assert (await ended(hub, begun.id)).result == "cancelled"
        assert [each.id for each in hub.board.snapshot.scheduled] == [asked.id]


async def test_a_cancel_that_cannot_be_written_is_none(hub: Shelf) -> None:
    async with live(hub):
        asked = await hub.schedules.ask("hub", "v23", AT, TINA)
        with hub.without_ends(), pytest.raises(MountdError):
            await hub.schedules.cancel(None, "alice")
        assert [each.id for each in hub.board.snapshot.scheduled] == [asked.id]
        assert (await hub.schedules.cancel(None, "alice")).id == asked.id


# -- what cannot be scheduled -----------------------------------------------------------------------------------------


async def test_what_cannot_be_scheduled(hub: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "MOST", 1)
    await hub.desired.load("hub")
    for name, version, at, error in (
        ("hub", "latest", AT, BadVersionName),
        ("nowhere", "v23", AT, NotFound),
        ("hub", "v23", "03:00", UsageError),
        ("hub", "v23", "2026-01-31T01:00:00Z", UsageError),
    ):
        with pytest.raises(error):
            await hub.schedules.ask(name, version, at, TINA)
    await hub.schedules.ask(None, "v23", AT, TINA)
    with pytest.raises(Refused):
        await hub.schedules.ask(None, "v24", AT, TINA)
    assert len(await hub.journal.history(limit=5)) == 1


async def test_a_schedule_is_one_only_once_it_is_on_disk(hub: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    await hub.desired.load("hub")

    async def fail(**_: Any) -> OperationRecord:
        raise JournalError("cannot use the journal: the disk is full")

    monkeypatch.setattr(hub.journal, "begin", fail)
    with pytest.raises(JournalError):
        await hub.schedules.ask(None, "v23", AT, TINA)
    assert hub.board.snapshot.scheduled == ()
