"""What is wrong in mountd itself, with a cache, a version or the configuration: reasons, health, what is journaled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from mountd.errors import Problem
from mountd.status import readiness
from mountd.status.board import Board
from mountd.status.events import between
from mountd.status.snapshot import (
    AppStatus,
    ConfigStatus,
    DrainStatus,
    Health,
    ModelStage,
    ModelStatus,
    MountStage,
    MountStatus,
    Operation,
    Reason,
    RemoteStatus,
    Snapshot,
    State,
)

MOUNT = MountStatus(
    "/mnt/x", "store:bucket", State.RUNNING, MountStage.READY, Health.HEALTHY, backend=RemoteStatus(Health.HEALTHY)
)
MODEL = ModelStatus("disk", "/srv/hub", ModelStage.LINKED, Health.HEALTHY, current="v23", mount_restarts=0)
APP = AppStatus(needs=("hub",), state=State.RUNNING, health=Health.HEALTHY)
GOOD = Snapshot({"disk": MOUNT}, {"hub": MODEL}, {"webui": APP})
FULL, NO_FILES = Reason("disk-full", "the disk is full", "app", "webui"), Reason("no-files", "no descriptor is left")
CHANGED = Reason("content-changed", "v23 has changed", "link", "hub")
BROKEN = Problem("mounts.disk", 7, "there is no such remote")


def model(**changes: Any) -> Snapshot:
    return replace(GOOD, models={"hub": replace(MODEL, **changes)})


def app(**changes: Any) -> Snapshot:
    return replace(GOOD, apps={"webui": replace(APP, **changes)})


def config(**changes: Any) -> Snapshot:
    return replace(GOOD, config=ConfigStatus(**{"source": "/etc/mountd.yaml", "loaded": "1", **changes}))


def lacks(**found: Reason) -> Snapshot:
    return replace(GOOD, lacks=found)


# -- reasons and health -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "codes", "health"),
    [
        (GOOD, [], Health.HEALTHY),
        (config(problems=(BROKEN,)), ["config-broken"], Health.DEGRADED),
        (config(incomplete="the disk is full"), ["config-incomplete"], Health.DEGRADED),
        (config(warnings=(BROKEN, BROKEN)), ["config-warning", "config-warning"], Health.HEALTHY),
        (
            config(incomplete="x", problems=(BROKEN,), warnings=(BROKEN,)),
            ["config-incomplete", "config-broken", "config-warning"],
            Health.DEGRADED,
        ),
        (replace(GOOD, journal=Reason("journal-unusable", "x")), ["journal-unusable"], Health.DEGRADED),
        (lacks(a=FULL, b=NO_FILES), ["disk-full", "no-files"], Health.DEGRADED),
        (lacks(a=FULL, b=replace(FULL, object="other")), ["disk-full"], Health.DEGRADED),
        (replace(lacks(a=FULL), apps={"webui": replace(APP, reason=FULL)}), ["disk-full"], Health.DEGRADED),
        (model(changed=CHANGED), ["content-changed"], Health.DEGRADED),
        (model(changed=CHANGED, suspended="alice", desired="v23"), ["content-changed", "suspended"], Health.DEGRADED),
        (app(mounts={"disk": 1}, follows_remounts=True), ["app-behind-remount"], Health.PROGRESSING),
        (app(mounts={"disk": 1}, follows_remounts=False), [], Health.HEALTHY),
        (app(mounts={"gone": 1}, follows_remounts=True), [], Health.HEALTHY),
    ],
)
def test_what_is_wrong_and_how_bad_it_is(now: Snapshot, codes: list[str], health: Health) -> None:
    assert [each.code for each in readiness.reasons(now)] == codes
    assert readiness.health(now) is health


def test_of_a_broken_file_a_few_problems_are_shown() -> None:
    many = tuple(Problem(f"mounts.m{number}", 0, "x") for number in range(readiness.PROBLEMS_SHOWN + 2))
    (reason,) = readiness.reasons(config(problems=many, hint="correct it"))
    assert [each.path in reason.text for each in many] == [True] * readiness.PROBLEMS_SHOWN + [False] * 2
    assert (reason.hint, "2 more" in reason.text) == ("correct it", True)


@pytest.mark.parametrize(
    ("changes", "needs", "stops"),
    [
        ({"cache_broken": True, "cache_stops_apps": True}, ("hub",), True),
        ({"cache_broken": True, "cache_stops_apps": True}, ("disk",), True),
        ({"cache_broken": True, "cache_stops_apps": True}, (), False),
        ({"cache_broken": True}, ("hub",), False),
        ({"cache_stops_apps": True}, ("hub",), False),
    ],
)
def test_where_the_cache_cannot_be_used_no_app_runs_if_the_configuration_says_so(
    changes: dict[str, Any], needs: tuple[str, ...], stops: bool
) -> None:
    now = replace(app(needs=needs, state=State.STOPPED), mounts={"disk": replace(MOUNT, **changes)})
    for found in (readiness.must_stop(now, "webui"), readiness.blockers(now, "webui")):
        assert [each.code for each in found] == (["waiting-for-cache"] if stops else [])
    assert readiness.is_serving_disk(now) is not stops


def test_a_model_that_the_caller_takes_care_of_blocks_no_app() -> None:
    now = model(stage=ModelStage.WAITING)
    assert [each.code for each in readiness.blockers(now, "webui")] == ["waiting-for-model"]
    assert readiness.blockers(now, "webui", besides="hub") == ()


DRAIN = DrainStatus(3, 2, 2048)
DRILL = Operation(1, "drill", "disk", None, "hang", "tina", "cli", "fault", "")
HEADLINES: Mapping[str, Snapshot] = {
    "Drill hang of disk is running, step fault.": replace(GOOD, operation=DRILL),
    f"Stopping: disk uploads, {DRAIN}.": replace(
        GOOD, stopping=True, mounts={"disk": replace(MOUNT, drain=DRAIN), "other": MOUNT}
    ),
}


@pytest.mark.parametrize(("text", "now"), HEADLINES.items())
def test_the_line_for_systemd(text: str, now: Snapshot) -> None:
    assert readiness.headline(now) == text


# -- what is journaled ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "reported"),
    [
        (GOOD, config(), []),  # the first one to be read
        (config(), config(loaded="2", summary="disk"), ["config-reloaded"]),
        (config(), config(problems=(BROKEN,)), ["config-broken"]),
        (config(problems=(BROKEN,)), config(problems=(BROKEN,), hint="x"), []),
        (config(problems=(BROKEN,)), config(), ["config-reloaded"]),
        (config(), config(loaded="2", incomplete="x"), ["config-incomplete"]),
        (config(incomplete="x"), config(incomplete="x", warnings=(BROKEN,)), []),
        (GOOD, lacks(a=FULL), ["disk-full"]),
        (lacks(a=FULL), lacks(a=FULL, b=replace(FULL, object="other"), c=NO_FILES), ["no-files"]),
        (lacks(a=FULL, b=NO_FILES), lacks(b=NO_FILES), ["recovered"]),
        (lacks(a=FULL, b=FULL), lacks(b=FULL), []),
        (GOOD, model(changed=CHANGED), ["content-changed"]),
        (model(changed=CHANGED), model(changed=CHANGED, suspended="alice"), []),
        (model(changed=CHANGED), GOOD, ["content-restored"]),
        (model(changed=CHANGED), model(current="v22"), ["model-linked"]),  # another version
        (GOOD, app(killed="it ignored SIGTERM"), ["app-ignored-signal"]),
        (app(killed="it ignored SIGTERM"), app(killed="it ignored SIGTERM", pid=9), []),
        (replace(GOOD, apps={}), GOOD, []),
        (replace(GOOD, models={}, apps={}), GOOD, ["model-linked"]),
        (model(stage=ModelStage.WARMED), GOOD, ["model-linked"]),
    ],
)
def test_what_happened_between_two_snapshots(before: Snapshot, after: Snapshot, reported: list[str]) -> None:
    assert [each.code for each in between(before, after)] == reported


# -- the board --------------------------------------------------------------------------------------------------------


def test_what_is_removed_takes_its_lacks_with_it_and_leaves_the_rest() -> None:
    board = Board(replace(GOOD, lacks={"a": FULL, "b": NO_FILES}))
    board.remove("apps", "webui")
    assert board.snapshot == replace(GOOD, apps={}, lacks={"b": NO_FILES})
    board.remove("models", "hub")
    board.remove("mounts", "disk")
    assert board.snapshot == Snapshot(lacks={"b": NO_FILES})


def test_what_is_lacking_is_shown_for_each_part_until_it_is_over() -> None:
    board = Board()
    board.set_lack("a", FULL)
    board.set_lack("b", NO_FILES)
    board.set_lack("a", NO_FILES)
    assert board.snapshot.lacks == {"a": NO_FILES, "b": NO_FILES}
    board.set_lack("a", None)
    board.set_journal(FULL)
    board.set_config(ConfigStatus("x"))
    assert board.snapshot == Snapshot(lacks={"b": NO_FILES}, journal=FULL, config=ConfigStatus("x"))
