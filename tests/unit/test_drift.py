"""A link that somebody changes: what is made of it, how soon it is put right, and what is never touched."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.model import link
from mountd.model.drift import (
    BLOCKED,
    DRIFTED,
    HEAL_WINDOW_S,
    HEALS_PER_WINDOW,
    FoundLink,
    LinkKind,
    WantedLink,
    decide,
    recently,
    wait_s,
)
from mountd.model.link_watch import places
from mountd.process import lifecycle
from mountd.status import events, readiness
from mountd.status.snapshot import (
    DriftStatus,
    Health,
    ModelStage,
    ModelStatus,
    MountStage,
    MountStatus,
    Reason,
    Snapshot,
    State,
    Sync,
)

LINK, TARGET = Path("/srv/app/cache_hub"), "/mnt/storage/cache_hub_v23"
KEEPING = WantedLink(LINK, TARGET)
ALONE = WantedLink(LINK, TARGET, "it is not healed while cache_hub is paused", "`mountd resume` puts it right")
FIGHT = [100.0 + n for n in range(HEALS_PER_WINDOW)]


# -- decisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "heal", "code", "named", "health"),
    [
        (FoundLink(LinkKind.LINK, TARGET), False, "", "", Health.HEALTHY),
        (FoundLink(LinkKind.NOTHING), True, DRIFTED, "removed", Health.PROGRESSING),
        (FoundLink(LinkKind.LINK, "/tmp/x"), True, DRIFTED, "/tmp/x", None),
        (FoundLink(LinkKind.LINK, TARGET + "/"), True, DRIFTED, TARGET + "/", None),
        (FoundLink(LinkKind.FILE), False, BLOCKED, " file ", Health.DEGRADED),
        (FoundLink(LinkKind.DIRECTORY), False, BLOCKED, "real directory", Health.DEGRADED),
        (FoundLink(LinkKind.NO_PARENT), False, BLOCKED, "/srv/app ", Health.DEGRADED),
        (FoundLink(LinkKind.UNREADABLE, "permission denied"), False, BLOCKED, "permission denied", Health.DEGRADED),
    ],
)
def test_what_is_seen_decides(seen: FoundLink, heal: bool, code: str, named: str, health: Health | None) -> None:
    found = decide(KEEPING, seen, [], 0.0)
    assert (found.heal, found.code) == (heal, code)
    assert named in found.text
    assert health is None or found.health is health
    assert bool(found.hint) == bool(code)
    reason = found.reason("cache_hub")
    assert (reason is None) == (not code)


@pytest.mark.parametrize(
    ("seen", "health"),
    [(FoundLink(LinkKind.NOTHING), Health.MISSING), (FoundLink(LinkKind.LINK, "/tmp/x"), Health.HEALTHY)],
)
def test_what_is_paused_is_reported_and_not_healed(seen: FoundLink, health: Health) -> None:
    found = decide(ALONE, seen, [], 0.0)
    assert (found.heal, found.code, found.health) == (False, DRIFTED, health)
    assert found.text.endswith(ALONE.left_alone)
    assert found.hint == ALONE.hint
    assert decide(ALONE, FoundLink(LinkKind.LINK, TARGET), [], 0.0).code == ""
    assert decide(ALONE, FoundLink(LinkKind.FILE), [], 0.0).code == BLOCKED


def test_a_fight_is_reported_and_slowed_down() -> None:
    now = FIGHT[-1] + 1
    found = decide(KEEPING, FoundLink(LinkKind.LINK, "/tmp/x"), FIGHT, now)
    assert (found.heal, found.code, found.health) == (False, DRIFTED, Health.DEGRADED)
    assert f" {HEALS_PER_WINDOW} " in found.text
    assert "/tmp/x" not in found.text
    assert found.again_s == pytest.approx(FIGHT[0] + HEAL_WINDOW_S - now)
    # The same words wherever it points now: else each change would be news.
    assert decide(KEEPING, FoundLink(LinkKind.NOTHING), FIGHT, now).text == found.text
    assert decide(KEEPING, FoundLink(LinkKind.NOTHING), FIGHT, FIGHT[0] + HEAL_WINDOW_S).heal


@given(st.lists(st.floats(0, 300), max_size=200).map(sorted))
def test_however_often_it_is_changed_the_heals_of_any_window_are_bounded(changes: list[float]) -> None:
    heals: list[float] = []
    for now in changes:
        if decide(KEEPING, FoundLink(LinkKind.NOTHING), recently(heals, now), now).heal:
            heals.append(now)
        else:
            assert wait_s(heals, now) > 0
    for first in heals:
        assert sum(first <= heal < first + HEAL_WINDOW_S for heal in heals) <= HEALS_PER_WINDOW
    assert not changes or heals[:1] == changes[:1]


def test_look_names_what_is_there_and_follows_nothing(tmp_path: Path) -> None:
    here = tmp_path / "link"
    assert link.look(here) == FoundLink(LinkKind.NOTHING)
    here.symlink_to("/nowhere/at/all")
    assert link.look(here) == FoundLink(LinkKind.LINK, "/nowhere/at/all")
    here.unlink()
    here.write_text("precious")
    assert link.look(here) == FoundLink(LinkKind.FILE)
    assert link.look(here / "below").kind is LinkKind.UNREADABLE
    here.unlink()
    here.mkdir()
    assert link.look(here) == FoundLink(LinkKind.DIRECTORY)
    here.rmdir()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        with contextlib.chdir(tmp_path):
            sock.bind("link")
        assert link.look(here) == FoundLink(LinkKind.FILE)
    assert link.look(tmp_path / "gone" / "link") == FoundLink(LinkKind.NO_PARENT)


def test_places_are_the_directory_and_the_one_above_or_what_there_is(tmp_path: Path) -> None:
    found = places(tmp_path / "a" / "b" / "link")
    assert {identity[0]: set(names) for identity, names in found.items()} == {
        str(tmp_path): {"a"},
        str(tmp_path.parent): {tmp_path.name},
    }
    (tmp_path / "a" / "b").mkdir(parents=True)
    found = places(tmp_path / "a" / "b" / "link")
    assert {identity[0]: set(names) for identity, names in found.items()} == {
        str(tmp_path / "a" / "b"): {"link"},
        str(tmp_path / "a"): {"b"},
    }
    assert [identity[0] for identity in places(Path("/link"))] == ["/"]


# -- the status that follows ------------------------------------------------------------------------------------------


def snapshot(**changes: Any) -> Snapshot:
    model = ModelStatus(
        "storage",
        str(LINK),
        stage=ModelStage.LINKED,
        health=Health.HEALTHY,
        current="v23",
        desired="v23",
        sync=Sync.SYNCED,
        **changes,
    )
    mount = MountStatus("/mnt", "store:b", State.RUNNING, MountStage.READY, Health.HEALTHY)
    return Snapshot(mounts={"storage": mount}, models={"cache_hub": model})


def test_drift_counts_as_events_even_when_it_is_healed_by_then() -> None:
    healed = DriftStatus(times=1, heals=1, last="the link was removed")
    found = events.between(snapshot(), snapshot(drift=healed))
    assert [(each.code, each.object) for each in found] == [("link-drifted", "cache_hub"), ("link-healed", "cache_hub")]
    assert found[0].text == healed.last
    blocked = DriftStatus(Reason(BLOCKED, "a file"), Health.DEGRADED, times=2, heals=1, last="a file")
    (shown,) = events.between(snapshot(drift=healed), snapshot(drift=blocked))
    assert (shown.code, shown.text) == ("link-blocked", "a file")
    assert events.between(snapshot(drift=blocked), snapshot(drift=blocked)) == []


def test_drift_shows_in_health_and_reasons_once() -> None:
    reason = Reason(BLOCKED, "a real file is in its place", "link", "cache_hub", "mv")
    blocked = snapshot(drift=DriftStatus(reason, Health.DEGRADED, times=1, last=reason.text))
    assert readiness.health(blocked) is Health.DEGRADED
    assert readiness.reasons(blocked) == (reason,)
    both = snapshot(drift=DriftStatus(reason, Health.DEGRADED), reason=reason)
    assert readiness.reasons(both) == (reason,)


# -- other flags than configured --------------------------------------------------------------------------------------


@given(
    st.lists(
        st.sampled_from(
            ["reload", "spawned", "ready", "failed", "exited", "abandoned", "cleaned", "tick", "shut", "open"]
        )
    )
)
def test_what_runs_was_begun_with_the_settings_of_the_last_reload(happenings: list[str]) -> None:
    """At whatever moment a reload that changes flags comes: nothing older than it starts or runs afterwards.

    So there is nothing to compare later: a child is held by its pidfd, and nobody can give it another command line.
    """
    life, settings, begun, now = lifecycle.Life(), 0, -1, 0.0
    policy = lifecycle.Policy(grace_s=5.0)
    events_of: list[lifecycle.Event] = [lifecycle.Notice.WANTED, lifecycle.Notice.ALLOWED]
    for happening in [*happenings, *["exited", "abandoned", "cleaned", "tick"] * 2]:
        now += 100.0
        match happening:
            case "reload":
                settings += 1
                events_of.append(lifecycle.RestartAsked("the configuration was changed"))
            case "spawned" if life.attempting and not life.child:
                events_of.append(lifecycle.Notice.SPAWNED)
            case "ready" if life.attempting and life.child:
                events_of.append(lifecycle.Notice.READY)
            case "failed" if life.attempting:
                events_of.append(lifecycle.StartFailed("no", permanent=False))
            case "exited" if life.child:
                events_of.append(lifecycle.Exited("signal SIGKILL"))
            case "abandoned" if life.attempting and life.state is State.STOPPING:
                events_of.append(lifecycle.Notice.ABANDONED)
            case "cleaned" if life.state is State.CLEANING:
                events_of.append(lifecycle.Notice.CLEANED)
            case "tick":
                events_of.append(lifecycle.Notice.TICKED)
            case "shut":
                events_of.append(lifecycle.Notice.FORBIDDEN)
            case "open":
                events_of.append(lifecycle.Notice.ALLOWED)
        for event in events_of:
            life, actions = lifecycle.step(life, event, now, policy)
            if lifecycle.Action.BEGIN in actions:
                begun = settings
        events_of.clear()
        if life.state in (State.STARTING, State.RUNNING):
            assert begun == settings
