"""A drill, decided: its limits, its words, whether it can be done, and who has passed, in tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.api.documents.operations import drill_plan
from mountd.operation import drill_plan as plans
from mountd.operation.drill_plan import BucketRoute, DrillKind, DrillLimits, DrillPlan, Measured
from mountd.settings.remotes import RemoteSettings
from mountd.settings.schema import AppSettings, MountSettings
from mountd.status.snapshot import (
    AppStatus,
    Health,
    ModelStage,
    ModelStatus,
    MountStage,
    MountStatus,
    Reason,
    RemoteStatus,
    Snapshot,
    State,
)

MOUNT = MountSettings.model_validate({"remote": "store:bucket", "path": "/mnt/x", "cache": {"dir": "/var/cache/x"}})
APP = AppSettings.model_validate(
    {"command": ["x"], "ready": {"command": ["true"], "timeout": "60s"}, "stop": {"grace": "5s"}}
)
KEPT = AppSettings.model_validate({"command": ["x"], "restart": {"after": ["crash"]}})
PLAIN = AppSettings.model_validate({"command": ["x"], "stop": {"grace": "200s"}})
KINDS = list(DrillKind)
PROXIED = {"HTTP_PROXY": "http://p:1"}
BUCKET = [DrillKind.SLOW, DrillKind.OFFLINE]
RCLONE = [DrillKind.KILL, DrillKind.HANG]


def plan(kind: DrillKind, apps: dict[str, AppSettings] | None = None, for_s: float | None = None) -> DrillPlan:
    return plans.make(kind, "disk", MOUNT, for_s, {"webui": APP} if apps is None else apps)


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "detected_s"), [("kill", 1), ("hang", 7), ("slow", 26), ("offline", 26)])
def test_what_is_detected_in_which_time_with_the_defaults(kind: str, detected_s: float) -> None:
    assert plan(DrillKind(kind)).limits.detected_s == detected_s


@pytest.mark.parametrize(
    ("kind", "apps", "limits"),
    [
        ("kill", {}, (1, 6, 66)),
        ("kill", {"webui": KEPT}, (1, 6, 66)),
        ("kill", {"webui": APP}, (1, 6, 66 + 5 + 10 + 60)),
        ("hang", {"webui": APP}, (7, 12, 72 + 5 + 10 + 60)),
        ("kill", {"webui": APP, "plain": PLAIN}, (1, 6, 66 + 200 + 10)),  # the slowest of them
        ("slow", {"webui": APP}, (26, 20, 20)),  # asked as seldom as before, and nothing restarts
        ("offline", {"webui": APP}, (26, 5, 5)),
    ],
)
def test_within_which_time_all_is_well_again(
    kind: str, apps: dict[str, AppSettings], limits: tuple[float, float, float]
) -> None:
    assert plan(DrillKind(kind), apps).limits == DrillLimits(*limits)


@pytest.mark.parametrize("kind", KINDS)
def test_limits_are_in_order(kind: DrillKind) -> None:
    limits = plan(kind).limits
    assert 0 < limits.serving_again_s <= limits.ready_again_s
    if kind in RCLONE:
        assert limits.detected_s < limits.serving_again_s


@pytest.mark.parametrize("kind", BUCKET)
def test_by_default_a_fault_lasts_until_it_must_have_been_seen(kind: DrillKind) -> None:
    health = MOUNT.health.model_copy(update={"backend": 100.0})
    lazy = plans.make(kind, "disk", MOUNT.model_copy(update={"health": health}), None, {})
    assert plan(kind).for_s == 30
    assert lazy.for_s >= lazy.limits.detected_s > 100
    assert plan(kind, for_s=3.0).for_s == 3


@pytest.mark.parametrize("kind", BUCKET)
@given(backend_s=st.floats(2, 600))
def test_what_must_be_noticed_is_long_enough_and_what_need_not_be_is_not(kind: DrillKind, backend_s: float) -> None:
    mount = MOUNT.model_copy(update={"health": MOUNT.health.model_copy(update={"backend": backend_s})})
    found = plans.make(kind, "disk", mount, None, {})
    assert plans.too_short(kind, mount, found.for_s) == ""
    assert plans.too_short(kind, mount, found.limits.detected_s) == ""
    assert plans.too_short(kind, mount, backend_s + 9.9) != ""


@pytest.mark.parametrize("kind", RCLONE)
def test_what_breaks_rclone_has_no_length(kind: DrillKind) -> None:
    assert plans.too_short(kind, MOUNT, 0.0) == ""


def test_an_app_that_is_not_restarted_is_not_waited_for() -> None:
    assert plan(DrillKind.KILL, {"webui": KEPT}).limits.ready_again_s < plan(DrillKind.KILL).limits.ready_again_s


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_happens_to_whom(kind: DrillKind) -> None:
    text = " ".join(plans.described(plan(kind)))
    assert "disk" in text
    assert "webui" in text
    assert ("proxy" in text) == (kind in BUCKET)
    assert ("30s" in text) == (kind in BUCKET)


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_that_nobody_is_restarted(kind: DrillKind) -> None:
    found = plan(kind, {"webui": KEPT})
    assert found.restarted == ()
    assert "webui" not in " ".join(plans.described(found))


def test_several_apps_are_named() -> None:
    assert plans.described(plan(DrillKind.KILL, {"a": APP, "b": APP}))[-1].startswith("a and b ")


# -- whether it would prove anything ----------------------------------------------------------------------------------

GOOD_MOUNT = MountStatus(
    "/mnt/x",
    "store:bucket",
    State.RUNNING,
    MountStage.READY,
    Health.HEALTHY,
    7,
    2,
    backend=RemoteStatus(Health.HEALTHY),
)
GOOD_MODEL = ModelStatus("disk", "/srv/hub", ModelStage.LINKED, Health.HEALTHY, current="v23", mount_restarts=2)
GOOD_APP = AppStatus(needs=("hub",), state=State.RUNNING, health=Health.HEALTHY, pid=8)
GOOD = Snapshot({"disk": GOOD_MOUNT}, {"hub": GOOD_MODEL}, {"webui": GOOD_APP})
AWAY = RemoteStatus(Health.DEGRADED, Reason("bucket-unreachable", "the bucket is away"))


def with_mount(**changes: Any) -> Snapshot:
    return replace(GOOD, mounts={"disk": replace(GOOD_MOUNT, **changes)})


def with_app(**changes: Any) -> Snapshot:
    return replace(GOOD, apps={"webui": replace(GOOD_APP, **changes)})


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (GOOD, ""),
        (with_mount(state=State.BACKOFF), State.BACKOFF),
        (with_mount(stage=MountStage.ANSWERING), MountStage.ANSWERING),
        (with_mount(health=Health.DEGRADED, reason=Reason("mount-silent", "no answer")), "no answer"),
        (with_mount(backend=AWAY), "the bucket is away"),
        (with_mount(backend=RemoteStatus()), "not known"),
        (replace(GOOD, models={"hub": replace(GOOD_MODEL, stage=ModelStage.LISTED)}), ModelStage.LISTED),
        (with_app(state=State.STARTING), "webui"),
    ],
)
def test_only_a_healthy_system_is_drilled(now: Snapshot, why: str) -> None:
    found = plans.unfit(now, plan(DrillKind.KILL))
    assert (why in found) if why else not found


def remote(**options: str) -> RemoteSettings:
    return RemoteSettings.model_validate({"type": "s3", **options})


S3 = remote(endpoint="https://s3.example.com")
CRYPT = RemoteSettings.model_validate({"type": "crypt", "remote": "a:b"})
WEBDAV = RemoteSettings.model_validate({"type": "webdav", "url": "http://127.0.0.1:80/dav"})


@pytest.mark.parametrize(
    ("way", "why"),
    [
        (BucketRoute([S3]), ""),
        (BucketRoute([remote()]), ""),
        (BucketRoute([remote(endpoint="s3.example.com:9000")]), ""),
        (BucketRoute([CRYPT, S3]), ""),
        (BucketRoute([RemoteSettings.model_validate({"type": "sftp", "host": "x"})]), "sftp"),
        (BucketRoute([CRYPT, RemoteSettings.model_validate({"type": "local"})]), "local"),
        (BucketRoute([S3], {"http-proxy": "http://p:1"}), "option http-proxy"),
        (BucketRoute([S3], environment={"https_proxy": "http://p:1"}), "HTTPS_PROXY"),
        (BucketRoute([S3], environment={"HTTPS_PROXY": ""}), ""),
        (BucketRoute([remote(endpoint="http://127.0.0.1:9000")]), "127.0.0.1"),
        (BucketRoute([CRYPT, remote(endpoint="http://127.0.0.1:9000")]), "127.0.0.1"),  # the last one has the address
        (BucketRoute([WEBDAV]), "127.0.0.1"),
        (BucketRoute([remote(endpoint="localhost:9000")]), "localhost"),
        (BucketRoute([remote(endpoint="http://[::1]:9000")]), "::1"),
        (BucketRoute([remote(endpoint="http://127.0.0.1:9000")], has_proxy_flag=True), ""),
        # Go asks no proxy of the environment for these, so one that is set there is not in the way.
        (BucketRoute([remote(endpoint="http://127.0.0.1:9000")], {}, PROXIED, has_proxy_flag=True), ""),
        (BucketRoute([remote(endpoint="http://[bad")]), ""),
    ],
)  # fmt: skip
def test_whether_rclone_can_be_led_through_a_proxy(way: BucketRoute, why: str) -> None:
    found = plans.no_way(way)
    assert (why in found) if why else not found


def test_whatever_rclone_knows_leads_it_to_the_proxy_and_nothing_past_it() -> None:
    url = "http://mountd:secret@127.0.0.1:9"
    given = plans.proxy_variables(url)
    assert {name for name, value in given.items() if value == url} == {
        *("HTTP_PROXY", "HTTPS_PROXY", "RCLONE_HTTP_PROXY"),
    }
    assert {name for name, value in given.items() if not value} == {"NO_PROXY", "no_proxy"}


def test_the_environment_is_not_printed() -> None:
    assert "secret" not in repr(BucketRoute([S3], environment={"X": "secret"}))


# -- what is seen -----------------------------------------------------------------------------------------------------

AGAIN = replace(
    GOOD,
    mounts={"disk": replace(GOOD_MOUNT, restarts=3, pid=17)},
    models={"hub": replace(GOOD_MODEL, mount_restarts=3)},
    apps={"webui": replace(GOOD_APP, restarts=1, pid=18)},
)
KILL = plan(DrillKind.KILL)


def test_a_fault_of_rclone_is_detected_when_its_mount_is_being_replaced() -> None:
    assert not plans.is_down(GOOD, GOOD, KILL)
    assert plans.is_down(with_mount(state=State.STOPPING), GOOD, KILL)
    assert plans.is_down(AGAIN, GOOD, KILL)  # also when that went by unseen


@pytest.mark.parametrize(
    ("now", "ready"),
    [
        (AGAIN, True),
        (GOOD, False),
        (replace(AGAIN, mounts={"disk": replace(AGAIN.mounts["disk"], state=State.STARTING)}), False),
        (replace(AGAIN, mounts={"disk": replace(AGAIN.mounts["disk"], backend=AWAY)}), False),
        (replace(AGAIN, models=GOOD.models), False),  # linked on the former mount
        (replace(AGAIN, apps=GOOD.apps), False),  # runs, with files of the former mount
        (replace(AGAIN, apps={"webui": replace(AGAIN.apps["webui"], state=State.STARTING)}), False),
    ],
)
def test_ready_again_is_when_all_that_stands_on_the_mount_has_followed(now: Snapshot, ready: bool) -> None:
    assert plans.is_ready_after_remount(now, GOOD, KILL) is ready


def test_what_stands_on_another_mount_is_of_no_concern() -> None:
    other = {"voices": replace(GOOD_MODEL, mount="second", stage=ModelStage.WAITING, mount_restarts=-1)}
    waits = {"batch": AppStatus(needs=("voices",), state=State.BACKOFF)}
    second = {"second": replace(GOOD_MOUNT, state=State.BACKOFF)}

    def beside(now: Snapshot) -> Snapshot:
        return replace(now, mounts={**now.mounts, **second}, models={**now.models, **other}, apps={**now.apps, **waits})

    assert plans.unfit(beside(GOOD), KILL) == ""
    assert plans.is_ready_after_outage(beside(GOOD), KILL)
    assert plans.is_ready_after_remount(beside(AGAIN), beside(GOOD), KILL)
    assert not plans.disturbed(beside(GOOD), GOOD, KILL)
    assert plans.disturbed(beside(AGAIN), beside(GOOD), KILL)


def test_an_app_that_is_left_alone_is_not_awaited() -> None:
    assert plans.is_ready_after_remount(replace(AGAIN, apps=GOOD.apps), GOOD, plan(DrillKind.KILL, {"webui": KEPT}))


def test_an_outage_is_suspected_by_the_buckets_answer_alone() -> None:
    assert plans.is_suspect(with_mount(backend=AWAY), KILL)
    assert not plans.is_suspect(with_mount(backend=RemoteStatus()), KILL)
    assert not plans.is_suspect(with_mount(health=Health.DEGRADED), KILL)


# -- who has passed ---------------------------------------------------------------------------------------------------

LIMITS = DrillLimits(1.0, 5.0, 60.0)
WELL = Measured(0.1, 1.0, 20.0)
SECONDS = st.none() | st.floats(0, 100)


@pytest.mark.parametrize(
    ("kind", "measured", "said"),
    [
        (DrillKind.KILL, WELL, ()),
        (DrillKind.KILL, replace(WELL, app_restarted=True, rclone_restarted=True), ()),
        (DrillKind.KILL, Measured(), ("detected",)),
        (DrillKind.KILL, Measured(0.1), ("serving",)),
        (DrillKind.KILL, Measured(0.1, 1.0), ("ready",)),
        (DrillKind.KILL, Measured(2.0, 9.0, 61.0), ("2.0 s", "9.0 s", "61.0 s")),
        (DrillKind.SLOW, replace(WELL, cached_reads=True), ()),
        (DrillKind.SLOW, replace(WELL, cached_reads=False), ("cached",)),
        (DrillKind.SLOW, replace(WELL, app_restarted=True), ("app",)),
        (DrillKind.OFFLINE, replace(WELL, rclone_restarted=True), ("rclone",)),
    ],
)
def test_shortfalls(kind: DrillKind, measured: Measured, said: tuple[str, ...]) -> None:
    found = plans.shortfalls(replace(plan(kind), limits=LIMITS), measured)
    assert len(found) == len(said)
    for text, part in zip(found, said, strict=True):
        assert part in text


@pytest.mark.parametrize("for_s", [5.0, 25.0, 26.0, None])
def test_a_fault_that_was_too_short_to_be_noticed_for_sure(for_s: float | None) -> None:
    (text,) = plans.shortfalls(plan(DrillKind.OFFLINE, for_s=for_s), Measured())
    assert "detected" in text
    assert ("--for 26s" in text) == (for_s in (5.0, 25.0))


@given(st.sampled_from(KINDS), SECONDS, SECONDS, SECONDS)
def test_who_passes_was_in_time_with_everything(
    kind: DrillKind, detected_s: float | None, serving_s: float | None, ready_s: float | None
) -> None:
    passed = not plans.shortfalls(replace(plan(kind), limits=LIMITS), Measured(detected_s, serving_s, ready_s))
    limits = (LIMITS.detected_s, LIMITS.serving_again_s, LIMITS.ready_again_s)
    in_time = all(
        took is not None and took <= limit for took, limit in zip((detected_s, serving_s, ready_s), limits, strict=True)
    )
    assert passed == in_time


def test_the_plan_as_json_has_what_a_client_needs() -> None:
    document = drill_plan(plan(DrillKind.OFFLINE))
    assert document["apps_restarted"] == ["webui"]
    assert document["for_s"] == 30
    assert document["text"] == list(plans.described(plan(DrillKind.OFFLINE)))
    assert drill_plan(plan(DrillKind.KILL))["for_s"] is None


def test_the_path_is_the_mounts() -> None:
    assert Path(plan(DrillKind.KILL).path) == MOUNT.path
