"""A switch with apps that need no process: the order of what it does, how it undoes that, and whom it blames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.errors import CannotStart, Refused
from mountd.operation.plan import Step
from tests.support.fake_app import FakeApp
from tests.support.shelf import MOUNT, TINA, Shelf, shelf, until

FORWARD = ["stop", "begin hub_v23"]
BACK = ["stop", "begin hub_v22"]
CRASHED = CannotStart("webui exited with code 1", code="app-exited")
NO_PORT = CannotStart("its port is taken", code="port-taken")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Shelf]:
    """v22 is live, and webui runs with it."""
    async with shelf(tmp_path, apps=["webui"], watch={"for": "0s"}) as found, found.running():
        await until(lambda: found.status.linked, "v22 to be linked")
        yield found


@pytest.fixture
def webui(hub: Shelf) -> FakeApp:
    return hub.apps["webui"]


async def quarantined(hub: Shelf) -> list[str]:
    return [each.version for each in (await hub.journal.quarantined("hub")).values()]


async def steps(hub: Shelf, id_: int) -> list[tuple[str, str | None]]:
    return [(each.step, each.outcome) for each in await hub.journal.steps(id_)]


async def test_an_app_is_stopped_before_the_flip_and_started_after_it(hub: Shelf, webui: FakeApp) -> None:
    ended = await hub.switch("v23")
    assert (ended.result, hub.target, webui.calls, webui.is_held) == ("committed", "hub_v23", FORWARD, False)
    assert (hub.model.committed.current, hub.model.committed.previous) == ("v23", "v22")
    assert await steps(hub, ended.id) == [(str(step), "done") for step in Step if step not in (Step.GATES, Step.WATCH)]


async def test_it_is_held_from_its_stop_on(hub: Shelf, webui: FakeApp) -> None:
    webui.gate.clear()
    begun = await hub.operations.switch(None, "v23", TINA)
    await until(lambda: webui.calls == FORWARD, "the new version to start")
    assert webui.is_held
    assert hub.status.desired == "v23"
    webui.gate.set()
    assert begun.record is not None
    await hub.operations.outcome(begun.record)
    assert not webui.is_held


@pytest.mark.parametrize(("failure", "blamed"), [(CRASHED, ["v23"]), (NO_PORT, [])])
async def test_an_app_that_fails_brings_the_previous_version_back(
    hub: Shelf, webui: FakeApp, failure: CannotStart, blamed: list[str]
) -> None:
    webui.bad["hub_v23"] = failure
    ended = await hub.switch("v23")
    assert (ended.result, ended.exit_code, hub.target) == ("rolled-back", 5, "hub_v22")
    assert webui.calls == [*FORWARD, *BACK]
    assert await steps(hub, ended.id) == [
        *((step, "done") for step in ("preflight", "warm", "verify", "stop", "flip", "start")),
        *(("ready", "failed"), ("stop-new", "done"), ("flip-back", "done"), ("start-old", "done")),
    ]
    assert hub.status.desired == "v22", "nothing of a failed switch is remembered"
    assert await quarantined(hub) == blamed


async def test_a_broken_cache_refuses_a_switch_unless_the_mount_does_without_it(hub: Shelf, webui: FakeApp) -> None:
    hub.board.set_mount("storage", replace(MOUNT, cache_broken=True))
    ended = await hub.switch("v23")
    assert (ended.result, ended.exit_code, webui.calls, hub.target) == ("refused", Refused.exit_code, [], "hub_v22")
    hub.board.set_mount("storage", replace(MOUNT, cache_broken=True, cache_bypassed=True))
    assert (await hub.switch("v23")).result == "committed"


async def test_where_nothing_was_live_nothing_is_after_a_switch_that_fails(tmp_path: Path) -> None:
    async with shelf(tmp_path, live="", version="v99", apps=["webui"], watch={"for": "0s"}) as hub:
        hub.disk.missing.add("hub_v99")
        hub.apps["webui"].bad["hub_v23"] = CRASHED

        def waits() -> bool:
            return hub.status.reason is not None and hub.status.reason.code == "waiting-for-content"

        async with hub.running():
            await until(waits, "the model to wait for v99")
            assert (await hub.switch("v23")).result == "rolled-back"
            await until(waits, "the model to wait for v99 again")
            assert (hub.link.is_symlink(), hub.model.committed.current, hub.status.desired) == (False, None, "v99")


async def test_when_the_previous_version_fails_as_well_the_machine_is_to_blame(hub: Shelf, webui: FakeApp) -> None:
    webui.bad = {"hub_v22": CRASHED, "hub_v23": CRASHED}
    ended = await hub.switch("v23")
    assert (ended.result, ended.exit_code, hub.target) == ("failed", 1, "hub_v22")
    assert webui.calls == [*FORWARD, *BACK, "want"], "its supervisor goes on"
    assert await quarantined(hub) == []


async def test_an_app_that_cannot_be_stopped_finds_the_previous_version(hub: Shelf, webui: FakeApp) -> None:
    webui.bad["hub_v23"] = CRASHED
    webui.gate.clear()
    begun = await hub.operations.switch(None, "v23", TINA)
    await until(lambda: webui.calls == FORWARD, "the new version to start")
    webui.stuck = CannotStart("it hangs in the kernel", code="app-stuck")
    webui.gate.set()
    assert begun.record is not None
    outcome = await hub.operations.outcome(begun.record)
    assert outcome is not None
    assert (outcome.result, hub.target) == ("failed", "hub_v22")
    assert [outcome for step, outcome in await steps(hub, begun.record.id) if step == "stop-new"] == ["failed"]


async def test_cancelled_it_is_undone_and_nobody_is_blamed(hub: Shelf, webui: FakeApp) -> None:
    webui.gate.clear()
    begun = await hub.operations.switch(None, "v23", TINA)
    await until(lambda: hub.step == "ready", "the new version to start")
    hub.operations.cancel(None, "alice")
    webui.gate.set()
    assert begun.record is not None
    outcome = await hub.operations.outcome(begun.record)
    assert outcome is not None
    assert (outcome.result, outcome.retryable, hub.target) == ("rolled-back", False, "hub_v22")
    assert webui.calls == [*FORWARD, *BACK]
    assert ("ready", "cancelled") in await steps(hub, begun.record.id)
    assert await quarantined(hub) == []


async def test_a_commit_is_too_late_to_be_cancelled(hub: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, may_commit = asyncio.Event(), asyncio.Event()
    commit = hub.journal.commit

    async def slow(*given: object, **named: object) -> None:
        reached.set()
        await may_commit.wait()
        await commit(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(hub.journal, "commit", slow)
    begun = await hub.operations.switch(None, "v23", TINA)
    await asyncio.wait_for(reached.wait(), 20)
    with pytest.raises(Refused):
        hub.operations.cancel(None, "alice")
    may_commit.set()
    assert begun.record is not None
    outcome = await hub.operations.outcome(begun.record)
    assert outcome is not None
    assert outcome.result == "committed"


async def test_when_mountd_stops_the_link_is_at_what_is_committed(tmp_path: Path) -> None:
    async with shelf(tmp_path, apps=["webui"]) as hub:
        webui = hub.apps["webui"]
        async with hub.running():
            await until(lambda: hub.status.linked, "v22 to be linked")
            webui.gate.clear()
            begun = await hub.operations.switch(None, "v23", TINA)
            await until(lambda: webui.calls == FORWARD, "the new version to start")
            assert hub.target == "hub_v23"
        assert begun.record is not None
        ended = await hub.journal.operation(begun.record.id)
        assert ended is not None
        assert (ended.result, hub.target) == ("rolled-back", "hub_v22")
        assert webui.calls == FORWARD, "apps are stopped by mountd itself"
