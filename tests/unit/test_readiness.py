"""What follows from a snapshot: may an app start, is all ready, how healthy, why not; the wording of the headline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.status import readiness
from mountd.status.snapshot import (
    AppStatus,
    DrainStatus,
    DriftStatus,
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
    "/mnt/x",
    "store:bucket",
    State.RUNNING,
    MountStage.READY,
    Health.HEALTHY,
    restarts=2,
    backend=RemoteStatus(Health.HEALTHY),
)
MODEL = ModelStatus("disk", "/srv/hub", ModelStage.LINKED, Health.HEALTHY, current="v23", mount_restarts=2)
APP = AppStatus(needs=("hub",), state=State.RUNNING, health=Health.HEALTHY)
OUTAGE = RemoteStatus(Health.DEGRADED, Reason("bucket-unreachable", "the bucket is away", "bucket", "store"))
DRIFTED = DriftStatus(Reason("link-drifted", "somebody pointed it elsewhere", "link", "hub"))
GOOD = Snapshot({"disk": MOUNT}, {"hub": MODEL}, {"webui": APP})


def snapshot(
    mount: MountStatus = MOUNT, model: ModelStatus | None = MODEL, app: AppStatus | None = APP, **changes: Any
) -> Snapshot:
    made = Snapshot({"disk": mount}, {"hub": model} if model else {}, {"webui": app} if app else {})
    return replace(made, **changes)


# -- may it start -----------------------------------------------------------------------------------------------------

BLOCKERS = [
    ("all is there", MOUNT, MODEL, ("hub",), []),
    ("needs nothing", replace(MOUNT, state=State.FAILED), replace(MODEL, stage=ModelStage.WAITING), (), []),
    ("mount down", replace(MOUNT, state=State.BACKOFF), MODEL, ("hub",), [("waiting-for-mount", "disk")]),
    ("mount not proven", replace(MOUNT, stage=MountStage.ANSWERING), MODEL, ("hub",), [("waiting-for-mount", "disk")]),
    ("mount still starting", replace(MOUNT, state=State.STARTING), MODEL, ("hub",), [("waiting-for-mount", "disk")]),
    ("warm, not linked", MOUNT, replace(MODEL, stage=ModelStage.WARMED), ("hub",), [("waiting-for-model", "hub")]),
    ("linked on an older mount", MOUNT, replace(MODEL, mount_restarts=1), ("hub",), [("waiting-for-model", "hub")]),
    ("a mount itself", MOUNT, replace(MODEL, stage=ModelStage.WAITING), ("disk",), []),
    ("a mount itself, down", replace(MOUNT, state=State.STOPPING), MODEL, ("disk",), [("waiting-for-mount", "disk")]),
    ("a degraded mount that runs", replace(MOUNT, health=Health.DEGRADED, backend=OUTAGE), MODEL, ("hub",), []),
    ("both", replace(MOUNT, state=State.STOPPED), MODEL, ("disk", "hub"), [("waiting-for-mount", "disk")] * 2),
]  # fmt: skip


@pytest.mark.parametrize(
    ("mount", "model", "needs", "why"), [case[1:] for case in BLOCKERS], ids=[c[0] for c in BLOCKERS]
)
def test_blockers(mount: MountStatus, model: ModelStatus, needs: tuple[str, ...], why: list[tuple[str, str]]) -> None:
    found = readiness.blockers(snapshot(mount, model, replace(APP, needs=needs)), "webui")
    assert [reason.code for reason in found] == [code for code, _ in why]
    for reason, (_, named) in zip(found, why, strict=True):
        assert (reason.layer, reason.object) == ("app", "webui")
        assert named in reason.text


# -- ready ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.STARTING, State.CLEANING, State.BACKOFF, State.FAILED])
def test_an_app_is_ready_without_its_mount_for_a_minute_and_no_longer(state: State) -> None:
    down = replace(MOUNT, state=state, health=Health.DEGRADED, reason=Reason("mount-down", "it died", "mount", "disk"))
    assert readiness.is_ready(snapshot(down))
    gone = snapshot(replace(down, gone=True))
    assert not readiness.is_ready(gone)
    assert readiness.health(gone) is Health.DEGRADED
    assert [reason.code for reason in readiness.reasons(gone)] == ["mount-down", "app-without-mount"]
    needs_nothing = snapshot(replace(down, gone=True), app=replace(APP, needs=()))
    assert readiness.is_ready(needs_nothing), "it does not need that mount"
    by_name = snapshot(replace(down, gone=True), app=replace(APP, needs=("disk",)))
    assert not readiness.is_ready(by_name)


def test_an_app_is_ready_in_an_outage_however_long() -> None:
    assert readiness.is_ready(snapshot(replace(MOUNT, health=Health.DEGRADED, backend=OUTAGE)))


DOWN = replace(MOUNT, state=State.BACKOFF)
UNLINKED = replace(MODEL, stage=ModelStage.WAITING)
LOADING = replace(APP, state=State.STARTING)
READY = [
    # what,                                 snapshot,                                  ready, serves the disk
    ("all is well", GOOD, True, True),
    ("an app that loads", snapshot(app=LOADING), False, True),
    ("a ready app through an outage", snapshot(replace(MOUNT, backend=OUTAGE)), True, True),
    ("a ready app while its mount is replaced", snapshot(DOWN), True, False),
    ("one of two apps", snapshot(apps={"a": APP, "b": LOADING}), False, True),
    ("no apps, linked", snapshot(app=None), True, True),
    ("no apps, not linked", snapshot(model=UNLINKED, app=None), False, False),
    ("no apps, linked, mount down", snapshot(DOWN, app=None), True, False),
    ("only a mount", snapshot(model=None, app=None), True, True),
    ("only a mount, down", snapshot(DOWN, None, None), False, False),
    ("only a mount, unproven", snapshot(replace(MOUNT, stage=MountStage.MOUNTED), None, None), False, False),
    ("an app that needs nothing of a broken disk", snapshot(DOWN, UNLINKED, replace(APP, needs=())), True, True),
    ("stopping", snapshot(stopping=True), False, True),
]


@pytest.mark.parametrize(("now", "ready", "serves"), [case[1:] for case in READY], ids=[case[0] for case in READY])
def test_ready(now: Snapshot, ready: bool, serves: bool) -> None:
    assert (readiness.is_ready(now), readiness.is_serving_disk(now)) == (ready, serves)


# -- health -----------------------------------------------------------------------------------------------------------


def test_healths_from_best_to_worst() -> None:
    assert list(Health) == ["Healthy", "Suspended", "Progressing", "Missing", "Degraded", "Unknown"]


@given(st.lists(st.sampled_from(Health)))
def test_the_worst_counts(healths: list[Health]) -> None:
    order = list(Health)
    worst = readiness.worst(healths)
    assert order.index(worst) == max((order.index(health) for health in healths), default=0)


@pytest.mark.parametrize("health", Health)
@pytest.mark.parametrize("layer", ["remote", "mount", "model", "app"])
def test_every_layer_counts(layer: str, health: Health) -> None:
    ill = {
        "remote": snapshot(replace(MOUNT, backend=RemoteStatus(health))),
        "mount": snapshot(replace(MOUNT, health=health)),
        "model": snapshot(model=replace(MODEL, health=health)),
        "app": snapshot(app=replace(APP, health=health)),
    }[layer]
    unasked = layer == "remote" and health is Health.UNKNOWN
    assert readiness.health(ill) is (Health.HEALTHY if unasked else health)
    assert readiness.health(GOOD) is Health.HEALTHY


def test_a_remote_of_several_mounts_is_as_ill_as_the_worst_sees_it() -> None:
    mounts = {
        "a": replace(MOUNT, backend=RemoteStatus(Health.HEALTHY)),
        "b": replace(MOUNT, remote="store:other", backend=OUTAGE),
        "c": replace(MOUNT, remote="elsewhere:bucket"),
    }
    remotes = readiness.remotes(Snapshot(mounts))
    assert remotes == {"store": OUTAGE, "elsewhere": RemoteStatus(Health.HEALTHY)}


@pytest.mark.parametrize("first", ["asked", "not-asked"])
def test_a_mount_that_has_not_asked_yet_says_nothing_of_the_remote(first: str) -> None:
    views = [OUTAGE, RemoteStatus()] if first == "asked" else [RemoteStatus(), OUTAGE]
    mounts = {str(number): replace(MOUNT, backend=view) for number, view in enumerate(views)}
    assert readiness.remotes(Snapshot(mounts)) == {"store": OUTAGE}


# -- reasons ----------------------------------------------------------------------------------------------------------


def reason(layer: str) -> Reason:
    return Reason(f"{layer}-broken", f"the {layer} is broken", layer)


def test_reasons_go_from_the_bucket_up_to_the_app() -> None:
    now = Snapshot(
        mounts={
            "disk": replace(MOUNT, reason=reason("mount"), backend=RemoteStatus(Health.DEGRADED, reason("bucket"))),
            "second": replace(MOUNT, reason=reason("rclone"), backend=RemoteStatus(Health.DEGRADED, reason("bucket"))),
        },
        models={"hub": replace(MODEL, reason=reason("link"))},
        apps={"webui": replace(APP, reason=reason("app"))},
    )
    assert [one.layer for one in readiness.reasons(now)] == ["bucket", "mount", "rclone", "link", "app"]
    assert readiness.reasons(GOOD) == ()


WAITING: list[tuple[State, list[str]]] = [
    (State.STOPPED, ["mount-starting", "waiting-for-mount"]),
    (State.BACKOFF, ["mount-starting", "waiting-for-mount"]),
    (State.STARTING, ["mount-starting", "app-starting"]),
    (State.RUNNING, ["mount-starting"]),
    (State.FAILED, ["mount-starting"]),
]


@pytest.mark.parametrize(("state", "codes"), WAITING)
def test_what_an_app_waits_for_is_a_reason_unless_it_has_its_own(state: State, codes: list[str]) -> None:
    waiting = snapshot(DOWN, app=replace(APP, state=state))
    assert [one.code for one in readiness.reasons(waiting)] == codes
    own = snapshot(DOWN, app=replace(APP, state=state, reason=reason("app")))
    assert [one.code for one in readiness.reasons(own)] == ["mount-starting", "app-broken"]


STARTING_UP = [
    ("a mount", snapshot(replace(DOWN, state=State.STARTING), UNLINKED, None), ("mount-starting", "disk", "ready")),
    (
        "a mount with its own",
        snapshot(replace(DOWN, reason=reason("mount")), UNLINKED, None),
        ("mount-broken", "", "the mount is broken"),
    ),
    ("a model", snapshot(model=UNLINKED, app=None), ("model-loading", "hub", "waiting")),
    (
        "a model that loads",
        snapshot(model=replace(MODEL, stage=ModelStage.LISTED, warmed_percent=40), app=None),
        ("model-loading", "hub", "listed, 40 %"),
    ),
]


@pytest.mark.parametrize(("now", "found"), [case[1:] for case in STARTING_UP], ids=[case[0] for case in STARTING_UP])
def test_what_still_starts_says_so(now: Snapshot, found: tuple[str, str, str]) -> None:
    (one,) = readiness.reasons(now)
    code, of, quoted = found
    assert (one.code, one.object) == (code, of)
    assert quoted in one.text


# -- one line ---------------------------------------------------------------------------------------------------------

SWITCH = Operation(7, "switch", "hub", "v23", "v22", "tina", "cli", "verify", "2026-01-01T00:00:00Z")
HEADLINES: Mapping[str, Snapshot] = {
    "Ready: hub v23 is live.": GOOD,
    "Ready: hub v23 and voices v2 are live.": replace(
        GOOD, models={**GOOD.models, "voices": replace(GOOD.models["hub"], current="v2")}
    ),
    "Ready: every mount is there.": snapshot(model=None, app=None),
    "Not ready: webui has started and is not ready yet.": snapshot(app=LOADING),
    "Not ready: the bucket is away.": snapshot(replace(DOWN, backend=OUTAGE), app=LOADING),
    "Switching hub to v22, step verify.": snapshot(operation=SWITCH),
    "Rolling back hub to v22, step verify.": snapshot(operation=replace(SWITCH, kind="rollback")),
    "Loading hub v22, step verify.": snapshot(operation=replace(SWITCH, kind="warm")),
    "Stopping.": snapshot(operation=SWITCH, stopping=True),
    "Stopping: disk uploads, 3 of 7 files left, 12 MiB.": snapshot(
        replace(MOUNT, drain=DrainStatus(7, 3, 12 << 20)), stopping=True
    ),
}


@pytest.mark.parametrize(("text", "now"), HEADLINES.items())
def test_headline(text: str, now: Snapshot) -> None:
    assert readiness.headline(now) == text


# -- always -----------------------------------------------------------------------------------------------------------

mounts = st.builds(
    MountStatus,
    path=st.just("/mnt/x"),
    remote=st.sampled_from(["store:a", "other:b"]),
    state=st.sampled_from(State),
    stage=st.sampled_from(MountStage),
    health=st.sampled_from(Health),
    restarts=st.integers(0, 2),
    backend=st.sampled_from([RemoteStatus(), RemoteStatus(Health.HEALTHY), OUTAGE]),
    reason=st.sampled_from([None, reason("mount")]),
)
models = st.builds(
    ModelStatus,
    mount=st.just("disk"),
    link=st.just("/srv/hub"),
    stage=st.sampled_from(ModelStage),
    mount_restarts=st.integers(-1, 2),
    reason=st.sampled_from([None, reason("link")]),
)
apps = st.builds(
    AppStatus,
    needs=st.sampled_from([(), ("hub",), ("disk",), ("disk", "hub")]),
    state=st.sampled_from(State),
    reason=st.sampled_from([None, reason("app")]),
)
snapshots = st.builds(
    Snapshot,
    mounts=st.fixed_dictionaries({"disk": mounts}, optional={"more": mounts}),
    models=st.fixed_dictionaries({"hub": models}),
    apps=st.dictionaries(st.sampled_from(["a", "b"]), apps, max_size=2),
    operation=st.sampled_from([None, SWITCH]),
    stopping=st.booleans(),
)


@given(snapshots)
def test_the_answers_agree_with_each_other(now: Snapshot) -> None:
    layers = [one.layer for one in readiness.reasons(now)]
    assert layers == sorted(layers, key=["bucket", "mount", "link", "app"].index)
    assert readiness.headline(now)
    if readiness.is_ready(now):
        assert not now.stopping
    if now.apps:
        assert readiness.is_serving_disk(now) == (not any(readiness.blockers(now, app) for app in now.apps))
    for name, app in now.apps.items():
        if not app.needs:
            assert readiness.blockers(now, name) == ()
        if "hub" in app.needs and not now.models["hub"].linked:
            assert readiness.blockers(now, name)


# -- a mount that was replaced under an app ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "ready", "health"),
    [
        ({"mounts": {"disk": 2}}, True, Health.HEALTHY),
        ({"mounts": {"disk": 1}}, False, Health.PROGRESSING),
        ({"mounts": {"gone": 1}}, True, Health.HEALTHY),
        ({"mounts": {"disk": 1}, "follows_remounts": False}, True, Health.HEALTHY),
        ({"mounts": {"disk": 1}, "state": State.STARTING}, False, Health.PROGRESSING),
        ({"mounts": {"disk": 1}, "health": Health.DEGRADED}, False, Health.DEGRADED),
    ],
)
def test_an_app_on_dead_files_is_not_ready(changes: dict[str, Any], ready: bool, health: Health) -> None:
    seen = snapshot(app=replace(APP, **changes))
    assert (readiness.is_ready(seen), readiness.health(seen)) == (ready, health)
    assert ("app" in [reason.layer for reason in readiness.reasons(seen)]) is not ready


# -- a link that was elsewhere while an app started -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "model", "behind"),
    [
        ({}, {}, False),
        ({"versions": {"hub": "v23"}}, {}, False),
        ({"versions": {"hub": "v22"}}, {}, True),
        ({"versions": {"hub": "v22"}, "state": State.STARTING}, {}, True),
        ({"versions": {"hub": "v22"}, "state": State.STOPPED}, {}, False),
        ({"versions": {"hub": "v22"}, "state": State.BACKOFF}, {}, False),
        ({"versions": {"hub": "v22"}}, {"stage": ModelStage.WARMED}, False),  # not there: nothing to be started behind
        ({"versions": {"hub": "v22"}}, {"drift": DRIFTED}, False),  # still elsewhere: it would be the same again
        ({"versions": {"gone": "v22"}}, {}, False),  # a model that a reload took away
        ({"versions": {"gone": "v22", "hub": "v22"}}, {}, True),
    ],
)
def test_an_app_that_was_started_behind_another_version(
    app: dict[str, Any], model: dict[str, Any], behind: bool
) -> None:
    running = replace(APP, **app)
    seen = snapshot(model=replace(MODEL, **model), app=running)
    assert readiness.is_behind_the_link(seen, running) is behind
