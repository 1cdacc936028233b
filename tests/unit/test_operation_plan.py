"""Plans: the order of a switch, and that its undo restores what was, wherever it broke off; the wording of a plan."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from mountd.api.documents.operations import switch_plan
from mountd.operation.plan import HARMLESS, AffectedApp, PlannedGate, Step, SwitchPlan, Undo, changes, undo

P, W, V, S, F, A, R, G, O, C = Step  # noqa: E741
WEBUI = AffectedApp("webui", stop_s=35.0, ready_s=935.0)
API = AffectedApp("api", stop_s=15.0, ready_s=20.0)
CHECKED = AffectedApp("webui", stop_s=35.0, ready_s=1235.0, check_s=300.0)
GATE = PlannedGate("http http://127.0.0.1:7860/config", 60.0)


def planned(
    apps: Sequence[AffectedApp] = (WEBUI,), gates: Sequence[PlannedGate] = (), watch_s: float = 0.0, **more: Any
) -> SwitchPlan:
    return SwitchPlan(
        kind="switch",
        model="cache_hub",
        from_version=more.pop("from_version", "v22"),
        to_version="v23",
        link="/srv/cache_hub",
        target="/mnt/cache_hub_v23",
        apps=tuple(apps),
        gates=tuple(gates),
        watch_s=watch_s,
        **more,
    )


@pytest.mark.parametrize(
    ("apps", "gates", "watch_s", "steps"),
    [
        ([], [], 0, (P, W, V, F, C)),
        ([], [], 30, (P, W, V, F, C)),  # nobody to watch
        ([], [GATE], 30, (P, W, V, F, G, O, C)),
        ([WEBUI], [], 0, (P, W, V, S, F, A, R, C)),
        ([WEBUI, API], [], 0, (P, W, V, S, F, A, R, C)),
        ([WEBUI], [], 30, (P, W, V, S, F, A, R, O, C)),
        ([WEBUI], [GATE], 0, (P, W, V, S, F, A, R, G, C)),
        ([WEBUI], [GATE], 30, (P, W, V, S, F, A, R, G, O, C)),
    ],
)
def test_steps(apps: list[AffectedApp], gates: list[PlannedGate], watch_s: float, steps: tuple[Step, ...]) -> None:
    assert planned(apps, gates, watch_s).steps == steps


def test_what_is_live_needs_no_steps() -> None:
    plan = planned(is_live=True)
    assert (plan.steps, plan.limit_s) == ((), 0)
    assert plan.lines() == ["cache_hub is at v23 already: nothing to do"]
    assert switch_plan(plan)["undo"] == []


def test_a_plan_names_the_apps_that_stay_stopped() -> None:
    plan = planned([], stopped=("webui",))
    assert plan.lines()[-2] == "webui stays stopped, and no gate is asked."
    assert switch_plan(plan)["stopped"] == ["webui"]


BACK = (Undo.STOP_NEW, Undo.FLIP_BACK, Undo.START_OLD)


@pytest.mark.parametrize(
    ("begun", "undone"),
    [
        ((), ()),
        ((P,), ()),
        ((P, W, V), ()),
        ((P, W, V, S), (Undo.STOP_NEW, Undo.START_OLD)),
        ((P, W, V, S, F), BACK),
        ((P, W, V, S, F, A), BACK),
        ((P, W, V, S, F, A, R, G, O, C), BACK),
        ((P, W, V, F), (Undo.FLIP_BACK,)),
        ((P, W, V, F, C), (Undo.FLIP_BACK,)),
    ],
)
def test_undo(begun: tuple[Step, ...], undone: tuple[Undo, ...]) -> None:
    assert undo(begun) == undone


def test_only_what_changes_something_has_to_be_undone() -> None:
    assert [step for step in Step if not changes(step)] == [*HARMLESS] == [P, W, V]
    for apps in ([], [WEBUI]):
        steps = planned(apps, [GATE], 30).steps
        for count in range(len(steps) + 1):
            assert bool(undo(steps[:count])) == any(changes(step) for step in steps[:count])


# -- texts ------------------------------------------------------------------------------------------------------------


def test_the_text_for_people() -> None:
    plan = planned([WEBUI], [GATE], 30, crashes=2, digests=True)
    assert plan.lines() == [
        "switch cache_hub v22 → v23",
        "  preflight  load the names and sizes of its files, at most 15m; see that v23 is complete, and not in"
        " quarantine, and that the link can be placed",
        "  warm       load them again if the mount was replaced meanwhile, at most 10m",
        "  verify     see that the mount shows them, and read every byte for its sha256, at most 6h5m",
        "  stop       stop webui, at most 35s",
        "  flip       point /srv/cache_hub at /mnt/cache_hub_v23",
        "  start      start webui",
        "  ready      wait until webui is ready, at most 15m35s",
        "  gates      http http://127.0.0.1:7860/config",
        "  watch      for 30s: crash 2 of webui or a gate that fails brings v22 back",
        "  commit     v23 is live for good, and v22 its way back",
        "Whatever fails from stop on is undone: stop-new, flip-back, start-old.",
    ]


@pytest.mark.parametrize(
    ("plan", "line"),
    [
        (planned([WEBUI, API]), "  ready      wait until webui and api are ready, at most 15m35s"),
        (planned([CHECKED, API]), "  start      start webui and api after the preflight of webui, at most 6m40s"),
        (planned([], from_version=None), "switch cache_hub nothing → v23"),
        (planned([]), "Whatever fails from flip on is undone: flip-back."),
        (
            planned(force=True),
            "  preflight  load the names and sizes of its files, at most 15m; see that v23 is complete, and that the"
            " link can be placed",
        ),
        (planned([], [GATE], 1.5), "  watch      for 1s500ms: a gate that fails brings v22 back"),
    ],
)
def test_a_line(plan: SwitchPlan, line: str) -> None:
    assert line in plan.lines()


def test_the_json_for_scripts() -> None:
    plan = planned([WEBUI, API], [GATE], 30)
    document = json.loads(json.dumps(switch_plan(plan)))
    assert [step["step"] for step in document["steps"]] == [str(step) for step in plan.steps]
    assert document["undo"] == ["stop-new", "flip-back", "start-old"]
    assert (document["from"], document["to"], document["link"], document["target"]) == (
        *("v22", "v23"),
        *("/srv/cache_hub", "/mnt/cache_hub_v23"),
    )
    assert (document["apps"], document["gates"]) == (["webui", "api"], [GATE.words])
    assert (document["watch"], document["digests"], document["force"]) == ({"for_s": 30, "crashes": 1}, False, False)
    assert document["limit_s"] >= sum(step["limit_s"] for step in document["steps"]) > 35 + 935 + 60 + 30
    assert document["text"] == plan.lines()


def test_limits_grow_with_what_is_asked() -> None:
    least = planned([], []).limit_s
    assert planned([WEBUI]).limit_s > least + 2 * (35 + 935), "the undoing takes as long once more"
    assert planned(digests=True).limit_s > planned().limit_s + 3600
    assert planned(gates=[GATE]).limit_s == planned().limit_s + 60
    assert planned([CHECKED]).limit_s == planned([WEBUI]).limit_s + 3 * 300, (
        "in start, in ready, and once more in the undo"
    )
    both = planned([WEBUI, API])
    assert both.limit_s == planned([WEBUI]).limit_s, "apps are stopped and started together"


# -- a world in which the plan is carried out -------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    link: str
    apps: tuple[str | None, ...]
    """the version each app runs with; None: it does not run"""


def flipped(world: World, version: str) -> World:
    assert all(app is None for app in world.apps), "files change under an app that runs"
    return replace(world, link=version)


def done(world: World, step: Step | Undo) -> World:
    match step:
        case Step.STOP | Undo.STOP_NEW:
            return replace(world, apps=(None,) * len(world.apps))
        case Step.FLIP:
            return flipped(world, "new")
        case Undo.FLIP_BACK:
            return flipped(world, "old")
        case Step.START | Undo.START_OLD:
            return replace(world, apps=tuple(app or world.link for app in world.apps))
        case _:
            return world


def broken_off(world: World, step: Step) -> Iterator[World]:
    """Every state that a step which failed may leave: nothing, all, or some of it; and an app that crashed."""
    whole = done(world, step)
    later = step in (Step.READY, Step.GATES, Step.WATCH)
    choices = [{was, becomes, *([None] if later else [])} for was, becomes in zip(world.apps, whole.apps, strict=True)]
    for apps in itertools.product(*choices):
        for link in {world.link, whole.link}:
            yield World(link, apps)


NAMES = [(), ("webui",), ("webui", "api"), ("a", "b", "c")]


def plan_for(names: Sequence[str]) -> SwitchPlan:
    return planned([AffectedApp(name, 1, 1) for name in names], [GATE], 30)


@pytest.mark.parametrize("names", NAMES, ids=len)
def test_wherever_it_breaks_off_the_undo_restores(names: Sequence[str]) -> None:
    before = World("old", ("old",) * len(names))
    steps = plan_for(names).steps
    for failing in range(len(steps)):
        world = before
        for step in steps[:failing]:
            world = done(world, step)
        for left in broken_off(world, steps[failing]):
            restored = left
            for backwards in undo(steps[: failing + 1]):
                restored = done(restored, backwards)
            assert restored == before, f"{steps[failing]} left {left}"


@pytest.mark.parametrize("names", NAMES, ids=len)
def test_carried_out_it_is_live(names: Sequence[str]) -> None:
    world = World("old", ("old",) * len(names))
    for step in plan_for(names).steps:
        world = done(world, step)
    assert world == World("new", ("new",) * len(names))
