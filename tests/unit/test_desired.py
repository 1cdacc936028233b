"""The version that a model should have: what the file says, what a person asked for, and when it is tried again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mountd.errors import Busy, MountdError, Refused, RolledBack, Unavailable
from mountd.journal import database
from mountd.journal.journal import Committed
from mountd.model import model
from mountd.operation import desired, plan
from mountd.operation.desired import DesiredVersions, Request
from mountd.operation.runner import OperationOutcome
from mountd.status.snapshot import ModelStage, ModelStatus, Operation, Snapshot
from mountd.status.source import Unmet
from tests.support.shelf import TINA, Shelf, shelf, until
from tests.support.tasks import tasks_of

RETRY = {"retry": {"limit": 0, "initial": "50ms", "max": "50ms"}}


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCKED_S", 0.05)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine does meanwhile, no step is at fault."""
    for name in ("FLIP_S", "COMMIT_S"):
        monkeypatch.setattr(plan, name, 60.0)


# -- decisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "version", "wanted", "pending"),
    [
        (Committed(), "v22", "v22", None),  # a first version starts up by itself
        (Committed(None, None, "v21", "v22"), "v22", "v22", None),
        (Committed("v22", None, "v22", "v22"), "v22", "v22", None),
        (Committed("v22", None, "v22", "v22"), "v23", "v23", "v23"),
        (Committed("v22", None, "v23", "v23"), "v23", "v23", "v23"),  # not reached before mountd stopped
        (Committed("v23", "v22", "v23", "v22"), "v22", "v23", None),  # a person asked for v23 since
        (Committed("v23", "v22", "v23", "v22"), "v24", "v24", "v24"),
        (Committed("v23", "v22", "v23", "v22"), "v23", "v23", None),
    ],
)
def test_what_the_file_says(known: Committed, version: str, wanted: str, pending: str | None) -> None:
    found = desired.declare(known, version)
    assert found == replace(known, desired=wanted, config_version=version)
    assert desired.pending(found) == pending
    assert desired.declare(found, version) == found, "a reload of the same file asks for nothing"


LINKED = ModelStatus("storage", "/srv/hub", ModelStage.LINKED, current="v22", desired="v23")
OTHERS = Operation(1, "switch", "voices", None, "v2", "tina", "cli", "warm", "")


@pytest.mark.parametrize(
    ("status", "operations", "due"),
    [
        (LINKED, (), True),
        (LINKED, (OTHERS,), True),
        (LINKED, (replace(OTHERS, model="hub"),), False),
        (replace(LINKED, stage=ModelStage.WARMED), (), False),  # there is no way back yet
        (replace(LINKED, suspended="alice"), (), False),
        (replace(LINKED, automatic=False), (), False),
        (replace(LINKED, suspended="alice", desired="v24"), (), True),  # so that it is dropped
    ],
)
def test_when_a_pending_switch_is_due(status: ModelStatus, operations: tuple[Operation, ...], due: bool) -> None:
    assert desired.is_due(Snapshot(models={"hub": status}, operations=operations), "hub", "v23") is due


# -- retries ----------------------------------------------------------------------------------------------------------

OUTAGE = OperationOutcome("rolled-back", RolledBack("the bucket is away"), retryable=True)
ITS_FAULT = OperationOutcome("rolled-back", RolledBack("it crashed"))


@dataclass
class Switches:
    """Each switch has the next of these results; the last one stays."""

    results: list[OperationOutcome | MountdError | None]
    asked: list[tuple[str, str, Request]] = field(default_factory=list)

    async def __call__(self, name: str, version: str, request: Request) -> OperationOutcome | None:
        self.asked.append((name, version, request))
        found = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(found, MountdError):
            raise found
        return found


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Shelf]:
    """v22 is live, and the file says v23."""
    sync = {"retry": {"limit": 2, "initial": "10ms", "factor": 1, "max": "10ms"}}
    async with shelf(tmp_path, version="v23", sync=sync) as found, found.running():
        await until(lambda: found.status.linked, "v22 to be linked")
        yield found


async def carried_out(hub: Shelf, switches: Switches) -> None:
    """Until the pending switch is done or given up."""
    wanted = DesiredVersions(hub.models, switches, hub.board)
    async with tasks_of(hub.board) as group:
        wanted.begin(group)
        await wanted.declare("hub")
        await until(lambda: all(task.done() for task in wanted.tasks()), "no pending switch")


@pytest.mark.parametrize(
    ("results", "tries", "unmet"),
    [
        ([OperationOutcome("committed")], 1, False),
        ([None], 1, False),
        ([ITS_FAULT], 1, True),
        ([Refused("it is in quarantine")], 1, True),
        ([OUTAGE], 3, True),
        ([OUTAGE, OperationOutcome("committed")], 2, False),
        ([Unavailable("the disk is full")] * 5 + [OperationOutcome("committed")], 6, False),  # no try has begun
        ([Unavailable("the disk is full")] * 5 + [OUTAGE], 8, True),
    ],
)
async def test_how_often_it_is_tried(
    hub: Shelf, results: list[OperationOutcome | MountdError | None], tries: int, unmet: bool
) -> None:
    switches = Switches(results)
    await carried_out(hub, switches)
    assert switches.asked == [("hub", "v23", desired.BY_FILE)] * tries
    assert (hub.status.unmet is not None) is unmet


async def test_why_the_version_of_the_file_is_not_live_is_shown(hub: Shelf) -> None:
    await carried_out(hub, Switches([Refused("it is in quarantine", hint="--force tries it")]))
    assert hub.status.unmet == Unmet("v23", "it is in quarantine", "--force tries it")
    await carried_out(hub, Switches([None]))
    assert hub.status.unmet is None


async def test_while_something_else_runs_it_waits_and_counts_no_try(
    hub: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desired, "BUSY_RETRY_S", 0.01)
    switches = Switches([Busy("busy with a drill", holder="tina")] * 5 + [OUTAGE])
    await carried_out(hub, switches)
    assert len(switches.asked) == 5 + 3


async def test_declared_again_it_is_one_switch(hub: Shelf) -> None:
    switches = Switches([OperationOutcome("committed")])
    await hub.model.suspend("alice")
    wanted = DesiredVersions(hub.models, switches, hub.board)
    async with tasks_of(hub.board) as group:
        wanted.begin(group)
        await wanted.declare("hub")
        await wanted.declare("hub")
        await hub.model.suspend(None)
        await until(lambda: all(task.done() for task in wanted.tasks()), "no pending switch")
    assert len(switches.asked) == 1


async def test_another_version_replaces_it(hub: Shelf) -> None:
    switches = Switches([OperationOutcome("committed")])
    await hub.model.suspend("alice")
    wanted = DesiredVersions(hub.models, switches, hub.board)
    async with tasks_of(hub.board) as group:
        wanted.begin(group)
        await wanted.declare("hub")
        hub.model.settings = hub.model.settings.model_copy(update={"version": "v24"})
        await wanted.declare("hub")
        await hub.model.suspend(None)
        await until(lambda: all(task.done() for task in wanted.tasks()), "no pending switch")
    assert [version for _, version, _ in switches.asked] == ["v24"]


async def test_what_a_person_asks_for_drops_it(hub: Shelf) -> None:
    switches = Switches([OperationOutcome("committed")])
    await hub.model.suspend("alice")
    wanted = DesiredVersions(hub.models, switches, hub.board)
    async with tasks_of(hub.board) as group:
        wanted.begin(group)
        await wanted.declare("hub")
        await desired.ask(hub.model, "v22", TINA)
        await until(lambda: all(task.done() for task in wanted.tasks()), "no pending switch")
    assert switches.asked == []
    assert hub.status.desired == "v22"


async def test_what_is_pending_is_shown_until_it_is_done_or_given_up(hub: Shelf) -> None:
    seen: list[str | None] = []

    async def switch(name: str, version: str, request: Request) -> OperationOutcome | None:
        seen.append(hub.status.pending)
        return OperationOutcome("refused", Refused("it is incomplete"))

    await hub.model.suspend("alice")
    wanted = DesiredVersions(hub.models, switch, hub.board)
    async with tasks_of(hub.board) as group:
        wanted.begin(group)
        await wanted.declare("hub")
        await until(lambda: hub.status.pending == "v23", "it to be shown")
        hub.model.settings = hub.model.settings.model_copy(update={"version": "v24"})
        await wanted.declare("hub")
        await until(lambda: hub.status.pending == "v24", "the later one to be shown")
        await hub.model.suspend(None)
        await until(lambda: all(task.done() for task in wanted.tasks()), "it to be given up")
    assert seen == ["v24"]
    assert hub.status.pending is None


# -- a journal that fails ---------------------------------------------------------------------------------------------


async def test_with_a_journal_that_cannot_be_written_the_old_version_serves_until_it_can(tmp_path: Path) -> None:
    async with shelf(tmp_path, version="v23", sync=RETRY) as hub:
        with hub.locked():
            await hub.desired.load("hub")
            assert (hub.model.committed.current, hub.status.desired) == ("v22", "v23")
            assert (await hub.journal.committed("hub")).config_version == "v22"
        async with hub.running(), tasks_of(hub.board) as group:
            with hub.locked(), capture_logs() as logs:
                hub.desired.begin(group)
                await until(lambda: hub.status.linked, "the old version to serve")
                reported = "cannot switch to the version in the file"
                await until(lambda: [each["event"] for each in logs].count(reported) > 2, "more than one try")
                assert [each["log_level"] for each in logs if each["event"] == reported][:2] == ["error", "debug"]
                assert hub.target == "hub_v22"
            await until(lambda: hub.model.committed.current == "v23", "the version of the file")
        assert await hub.journal.committed("hub") == Committed("v23", "v22", "v23", "v23")
        assert [each.source for each in await hub.journal.history(limit=5)] == ["config"]


async def test_a_switch_that_failed_for_the_journal_is_tried_again(tmp_path: Path) -> None:
    sync = {"retry": {**RETRY["retry"], "limit": 100}}
    async with shelf(tmp_path, version="v23", sync=sync) as hub, hub.running(), tasks_of(hub.board) as group:
        await until(lambda: hub.status.linked, "the old version to serve")
        hub.disk.gate.clear()
        hub.desired.begin(group)
        await until(lambda: hub.board.snapshot.operation, "the switch to begin")
        with hub.locked():
            hub.disk.gate.set()
            await until(lambda: not hub.board.snapshot.operation, "it to fail")
            assert hub.target == "hub_v22"
        await until(lambda: hub.model.committed.current == "v23", "the version of the file")
        await until(lambda: not hub.board.snapshot.operation, "it to be written")
        ended = await hub.journal.history(limit=5)
        assert [each.result for each in ended] == ["committed", "failed"]
        assert str(hub.journal.path) in ended[1].cause


async def test_a_first_version_is_served_too_and_written_down_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "CONTENT_INTERVAL_S", 0.05)
    async with shelf(tmp_path, live="") as hub:
        with hub.locked():
            async with hub.running():
                await until(lambda: hub.status.reason, "the reason to be reported")
                assert hub.status.reason is not None
                assert (hub.status.reason.code, hub.target) == ("journal-unusable", "hub_v22")
        async with hub.running():
            await until(lambda: hub.model.committed.current == "v22", "it to be written")
        assert await hub.journal.committed("hub") == Committed("v22", None, "v22", "v22")
