"""Single steps of a switch, with apps that need no process: what each refuses, and how the watch counts crashes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import CannotStart, GateFailed, Unavailable
from mountd.operation import steps
from mountd.operation.plan import AffectedApp, PlannedGate, Step, SwitchPlan
from mountd.operation.show import Display
from mountd.operation.steps import Steps
from mountd.status.load import AppLoad
from mountd.status.snapshot import AppStatus, ModelStatus, State
from tests.support.fake_app import FakeApp
from tests.support.shelf import Shelf, shelf, until

CRASHED = CannotStart("webui exited with code 1", code="app-exited")
NO = {"command": ["false"], "timeout": "20s"}


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a gate that says no: what ends in these tests is known at once."""
    monkeypatch.setattr(steps, "NOTICE_S", 0.05)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Shelf]:
    """v22 is live, and webui runs with it. A gate says no."""
    async with shelf(tmp_path, apps=["webui"], gates=[NO]) as found, found.running():
        await until(lambda: found.status.linked, "v22 to be linked")
        yield found


@pytest.fixture
def webui(hub: Shelf) -> FakeApp:
    return hub.apps["webui"]


def steps_of(hub: Shelf, **changes: Any) -> Steps:
    plan = SwitchPlan(
        *("switch", "hub", "v22", "v23", str(hub.link), "/mnt/hub_v23"),
        **{"apps": tuple(AffectedApp(name, 1.0, 1.0) for name in hub.apps), **changes},
    )
    return Steps(1, plan, hub.model, [*hub.apps.values()], hub.board, hub.journal, Display(hub.board))


async def test_an_app_that_runs_is_stopped_only_if_it_could_be_started_again(hub: Shelf, webui: FakeApp) -> None:
    other = ModelStatus(mount="storage", link="/srv/other")
    hub.board.set_model("other", other)
    hub.board.set_app("webui", AppStatus(needs=("hub", "other"), state=State.RUNNING))
    with pytest.raises(Unavailable, match="other"):
        await steps_of(hub).do(Step.PREFLIGHT)
    hub.board.set_app("webui", AppStatus(needs=("hub", "other"), state=State.STOPPED))
    await steps_of(hub).do(Step.PREFLIGHT)
    assert webui.calls == []


async def test_a_gate_that_an_app_failed_by_crashing_is_no_gate_that_failed(hub: Shelf, webui: FakeApp) -> None:
    with pytest.raises(GateFailed):
        await steps_of(hub).do(Step.GATES)
    webui.crash()
    with pytest.raises(CannotStart) as caught:
        await steps_of(hub).do(Step.GATES)
    assert caught.value.code == "app-exited"


@pytest.mark.parametrize("crashes", [1, 2, 3])
async def test_the_watch_restarts_an_app_until_it_has_crashed_too_often(
    hub: Shelf, webui: FakeApp, crashes: int
) -> None:
    watching = asyncio.create_task(steps_of(hub, watch_s=60.0, crashes=crashes).do(Step.WATCH))
    for number in range(1, crashes + 1):
        await until(lambda: webui.state is State.RUNNING, "the app to run")
        webui.crash()
        if number < crashes:
            await until(lambda: webui.calls.count("begin hub_v22") == number, "the restart")  # noqa: B023
    with pytest.raises(CannotStart) as caught:
        await watching
    assert caught.value.code == "app-exited"
    assert webui.calls == ["stop", "begin hub_v22"] * (crashes - 1)


async def test_a_crash_while_the_watch_restarts_the_app_is_counted_as_well(hub: Shelf, webui: FakeApp) -> None:
    webui.bad["hub_v22"] = CRASHED
    webui.crash()
    with pytest.raises(CannotStart) as caught:
        await steps_of(hub, watch_s=60.0, crashes=3).do(Step.WATCH)
    assert caught.value.code == "app-exited"
    assert webui.calls == ["stop", "begin hub_v22"] * 2


async def test_a_watch_without_crashes_passes(hub: Shelf, webui: FakeApp) -> None:
    await steps_of(hub, watch_s=0.05).do(Step.WATCH)
    assert webui.calls == []


async def test_a_gate_is_asked_again_during_the_watch(hub: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mountd.operation.steps.GATES_AGAIN_S", 0.01)
    with pytest.raises(GateFailed):
        await steps_of(hub, gates=(PlannedGate("command false", 20.0),), watch_s=60.0).do(Step.WATCH)


async def test_a_gate_that_fails_while_an_app_is_on_its_way_back_says_nothing(
    hub: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mountd.operation.steps.GATES_AGAIN_S", 0.01)
    hub.board.set_app("webui", AppStatus(needs=("hub",), state=State.STARTING))
    await steps_of(hub, gates=(PlannedGate("command false", 20.0),), watch_s=0.1).do(Step.WATCH)
    assert hub.apps["webui"].state is State.RUNNING, "which is waited for"


async def test_all_apps_stop_before_the_failure_of_one_is_raised(tmp_path: Path) -> None:
    async with shelf(tmp_path, apps=["api", "webui"]) as hub, hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        hub.apps["api"].stuck = CannotStart("it hangs in the kernel", code="app-stuck")
        with pytest.raises(CannotStart):
            await steps_of(hub).do(Step.STOP)
        assert hub.apps["webui"].state is State.STOPPED


async def test_the_watch_shows_how_much_of_its_time_is_over(hub: Shelf) -> None:
    record = await hub.begin("v23", step="watch")
    steps = steps_of(hub, watch_s=600.0)
    assert record.id == steps.id
    steps.display.step(record, "watch", 600.0)
    watching = asyncio.create_task(steps.do(Step.WATCH))
    await until(lambda: hub.board.snapshot.operations[0].percent is not None, "its progress")
    assert hub.board.snapshot.operations[0].percent == 0
    watching.cancel()


async def test_an_app_that_gets_ready_is_shown_with_its_load_of_several_the_one_that_is_least_far(
    tmp_path: Path,
) -> None:
    async with shelf(tmp_path, apps=["api", "webui", "other"]) as hub, hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")

        def show(app: str, load: AppLoad | None) -> None:
            hub.board.set_app(app, AppStatus(needs=("hub",), state=State.STARTING, load=load))

        for app in hub.apps.values():
            app.gate.clear()
        show("other", AppLoad(1, 5))
        steps = steps_of(hub)
        steps.display.step(await hub.begin("v23", step="ready"), "ready", 600.0)
        getting_ready = asyncio.create_task(steps.do(Step.READY))
        for app_, load, shown in (
            ("webui", AppLoad(1, 20, 2, 100, 7.0), (20, 7.0)),
            ("api", AppLoad(1, 10, 2, 100, 8.0), (10, 8.0)),
            ("api", None, (20, 7.0)),
        ):
            show(app_, load)

            def is_shown(expected: tuple[int, float] = shown) -> bool:
                operation = hub.board.snapshot.operations[0]
                return (operation.percent, operation.bytes_per_s) == expected

            await until(is_shown, f"{shown} to be shown")
        assert hub.board.snapshot.operations[0].eta_s is None
        for app in hub.apps.values():
            app.gate.set()
        await getting_ready
