"""Plans: the order of a switch, and that what undoes it restores, wherever it broke off."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from mountd.operation.plan import Step, Undo, changes, plan, undo

V, S, F, A, C = Step.VERIFY, Step.STOP, Step.FLIP, Step.START, Step.COMMIT


@pytest.mark.parametrize(
    ("apps", "steps"), [([], (V, F, C)), (["webui"], (V, S, F, A, C)), (["webui", "api"], (V, S, F, A, C))]
)
def test_plan(apps: list[str], steps: tuple[Step, ...]) -> None:
    assert plan(apps) == steps


@pytest.mark.parametrize(
    ("begun", "undone"),
    [
        ((), ()),
        ((V,), ()),
        ((V, S), (Undo.STOP_NEW, Undo.START_OLD)),
        ((V, S, F), (Undo.STOP_NEW, Undo.FLIP_BACK, Undo.START_OLD)),
        ((V, S, F, A), (Undo.STOP_NEW, Undo.FLIP_BACK, Undo.START_OLD)),
        ((V, S, F, A, C), (Undo.STOP_NEW, Undo.FLIP_BACK, Undo.START_OLD)),
        ((V, F), (Undo.FLIP_BACK,)),
        ((V, F, C), (Undo.FLIP_BACK,)),
    ],
)
def test_undo(begun: tuple[Step, ...], undone: tuple[Undo, ...]) -> None:
    assert undo(begun) == undone


def test_only_what_changes_something_has_to_be_undone() -> None:
    assert [step for step in Step if not changes(step)] == [V]
    for apps in ([], ["webui"]):
        steps = plan(apps)
        for count in range(len(steps) + 1):
            assert bool(undo(steps[:count])) == any(changes(step) for step in steps[:count])


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
        case Step.VERIFY | Step.COMMIT:
            return world
        case Step.STOP | Undo.STOP_NEW:
            return replace(world, apps=(None,) * len(world.apps))
        case Step.FLIP:
            return flipped(world, "new")
        case Undo.FLIP_BACK:
            return flipped(world, "old")
        case Step.START | Undo.START_OLD:
            return replace(world, apps=tuple(app or world.link for app in world.apps))


def broken_off(world: World, step: Step) -> Iterator[World]:
    """Every state that a step which failed may leave: nothing, all, or some of it."""
    whole = done(world, step)
    for apps in itertools.product(*zip(world.apps, whole.apps, strict=True)):
        for link in {world.link, whole.link}:
            yield World(link, apps)


@pytest.mark.parametrize("apps", [(), ("webui",), ("webui", "api"), ("a", "b", "c")], ids=len)
def test_wherever_it_breaks_off_the_undo_restores(apps: Sequence[str]) -> None:
    before = World("old", ("old",) * len(apps))
    steps = plan(apps)
    for failing in range(len(steps)):
        world = before
        for step in steps[:failing]:
            world = done(world, step)
        for left in broken_off(world, steps[failing]):
            restored = left
            for backwards in undo(steps[: failing + 1]):
                restored = done(restored, backwards)
            assert restored == before, f"{steps[failing]} left {left}"


@pytest.mark.parametrize("apps", [(), ("webui",), ("webui", "api")], ids=len)
def test_carried_out_it_is_live(apps: Sequence[str]) -> None:
    world = World("old", ("old",) * len(apps))
    for step in plan(apps):
        world = done(world, step)
    assert world == World("new", ("new",) * len(apps))
