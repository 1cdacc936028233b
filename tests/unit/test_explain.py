"""From what is seen to the root cause: the chain, its order, its words; and no reason is without an explanation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from mountd.errors import Problem
from mountd.status import readiness
from mountd.status.causes import SEEN, cause_of_code
from mountd.status.explain import explain
from mountd.status.grounds import Background, FailedChange
from mountd.status.snapshot import (
    AppStatus,
    ConfigStatus,
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
    Sync,
)
from mountd.status.source import Unmet

T0, T1 = "2026-01-02T03:04:05.000Z", "2026-01-02T03:04:07.000Z"

MOUNT = MountStatus(
    "/mnt/x", "store:bucket", State.RUNNING, MountStage.READY, Health.HEALTHY, backend=RemoteStatus(Health.HEALTHY)
)
MODEL = ModelStatus(
    "disk", "/srv/hub", ModelStage.LINKED, Health.HEALTHY, current="v23", desired="v23", sync=Sync.SYNCED,
    mount_restarts=0,
)  # fmt: skip
APP = AppStatus(needs=("hub",), state=State.RUNNING, health=Health.HEALTHY, mounts={"disk": 0}, since=T1)
GOOD = Snapshot({"disk": MOUNT}, {"hub": MODEL}, {"webui": APP})
SWITCH = Operation(7, "switch", "hub", "v22", "v23", "tina", "cli", "ready", T0, percent=40)


def reason(code: str, object_: str = "disk", hint: str = "do this") -> Reason:
    return Reason(code, f"text of {code}", cause_of_code(code).layer, object_, hint)


def mount(**changes: Any) -> MountStatus:
    return replace(MOUNT, **changes)


def now(
    mount: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    app: Mapping[str, Any] | None = None,
    **more: Any,
) -> Snapshot:
    return replace(
        GOOD,
        mounts={"disk": replace(MOUNT, **(mount or {}))},
        models={"hub": replace(MODEL, **(model or {}))},
        apps={"webui": replace(APP, **(app or {}))},
        **more,
    )


DOWN = {"state": State.BACKOFF, "stage": MountStage.PREFLIGHT, "health": Health.DEGRADED, "backend": RemoteStatus()}
WAITING = {"stage": ModelStage.WAITING, "health": Health.PROGRESSING, "current": None, "sync": Sync.UNKNOWN}
STOPPED = {"state": State.STOPPED, "health": Health.PROGRESSING, "mounts": {}, "since": T1}
AWAY = RemoteStatus(Health.DEGRADED, reason("bucket-unreachable", "store"))
ASKED = {"state": State.STARTING, "stage": MountStage.ANSWERING, "health": Health.PROGRESSING, "backend": AWAY}
STARTING = {"state": State.STARTING, "health": Health.PROGRESSING, "since": T1}

CASES: dict[str, tuple[Snapshot, Background, list[str], list[str]]] = {
    # name: snapshot, background, the codes of the chain, those of the other roots
    "well": (GOOD, Background(), [], []),
    "nothing configured": (Snapshot(), Background(), [], []),
    "a warning is no fault": (now(config=ConfigStatus(warnings=(Problem("a", 1, "b"),))), Background(), [], []),
    "an outage": (now({"backend": AWAY}), Background(), ["Degraded", "bucket-unreachable"], []),
    "an outage at the start": (
        now(ASKED, WAITING, STOPPED),
        Background(),
        ["not-ready", "waiting-for-mount", "mount-starting", "bucket-unreachable"],
        [],
    ),
    "a start that fails for its bucket": (
        now({**DOWN, "reason": reason("bucket-missing")}, WAITING, STOPPED),
        Background(),
        ["not-ready", "waiting-for-mount", "mount-starting", "bucket-missing"],
        [],
    ),
    "a mount that is not answered": (
        now({"reason": reason("mount-silent"), "health": Health.DEGRADED}),
        Background(),
        ["Degraded", "mount-silent"],
        [],
    ),
    "a mount whose bucket is the reason": (
        now({"reason": reason("reads-failing"), "health": Health.DEGRADED, "backend": AWAY}),
        Background(),
        ["Degraded", "bucket-unreachable"],
        [],
    ),
    "an app that ended, beside a slow bucket": (
        now(
            {"backend": RemoteStatus(Health.DEGRADED, reason("bucket-slow", "store"))},
            app={"state": State.BACKOFF, "health": Health.DEGRADED, "reason": reason("app-exited", "webui")},
        ),
        Background(),
        ["not-ready", "app-exited"],
        ["bucket-slow"],
    ),
    "an app that ended with its mount": (
        now(
            {**DOWN, "reason": reason("rclone-killed")},
            app={"state": State.BACKOFF, "health": Health.DEGRADED, "reason": reason("app-exited", "webui")},
        ),
        Background(),
        ["not-ready", "app-exited", "rclone-killed"],
        [],
    ),
    "an app that starts for its mount": (
        now({"restarts": 1, "unasked": 1, "since": T0, "fault": reason("rclone-killed")}, app=STARTING),
        Background(),
        ["not-ready", "app-starting", "rclone-killed"],
        [],
    ),
    "an app that starts long after its mount": (
        now({"since": "2026-01-01T00:00:00Z", "fault": reason("rclone-killed")}, app=STARTING),
        Background(),
        ["not-ready", "app-starting"],
        [],
    ),
    "an app that comes back from a crash": (
        now(app={**STARTING, "fault": reason("app-killed", "webui")}),
        Background(),
        ["not-ready", "app-starting", "app-killed"],
        [],
    ),
    "an app of a mount that was replaced": (
        now({"restarts": 1, "fault": reason("mount-hung"), "since": T0}, {"mount_restarts": 1}),
        Background(),
        ["not-ready", "app-behind-remount", "mount-hung"],
        [],
    ),
    "an app without its mount": (
        now({**DOWN, "gone": True, "reason": reason("rclone-exited")}),
        Background(),
        ["not-ready", "app-without-mount", "rclone-exited"],
        [],
    ),
    "after a crash of mountd": (
        now(app=STARTING),
        Background(crash="the previous run did not stop"),
        ["not-ready", "app-starting", "mountd-restarted-after-crash"],
        [],
    ),
    "a later start after a crash of mountd": (
        now(app=STARTING),
        Background(crash="the previous run did not stop", restarted={"webui"}),
        ["not-ready", "app-starting"],
        [],
    ),
    "after a crash of mountd, beside another app": (
        now(app=STARTING),
        Background(crash="the previous run did not stop", restarted={"other"}),
        ["not-ready", "app-starting", "mountd-restarted-after-crash"],
        [],
    ),
    "a switch under way": (
        now(app={**STOPPED, "needs": ("hub",)}, operation=SWITCH, operations=(SWITCH,)),
        Background(),
        ["not-ready", "app-starting", "operation-running"],
        [],
    ),
    "a drill": (
        now(
            {**DOWN, "reason": reason("mount-hung")},
            operations=(replace(SWITCH, kind="drill", model="disk", to_version="hang"),),
        ),
        Background(),
        ["Degraded", "mount-hung", "drill-running"],
        [],
    ),
    "content that is not there": (
        now(model={**WAITING, "health": Health.MISSING, "reason": reason("waiting-for-content", "hub")}, app=STOPPED),
        Background(),
        ["not-ready", "waiting-for-model", "waiting-for-content"],
        [],
    ),
    "content that cannot be seen": (
        now(
            {"backend": AWAY},
            {**WAITING, "health": Health.DEGRADED, "reason": reason("model-unavailable", "hub")},
            STOPPED,
        ),
        Background(),
        ["not-ready", "waiting-for-model", "model-unavailable", "bucket-unreachable"],
        [],
    ),
    "an app that waits for a cache": (
        now(
            {"health": Health.DEGRADED, "reason": reason("cache-full"), "cache_broken": True, "cache_stops_apps": True},
            app=STOPPED,
        ),
        Background(),
        ["not-ready", "waiting-for-cache", "cache-full"],
        [],
    ),
    "an app that a person has stopped": (
        now(app={"state": State.STOPPED, "stopped": "tina: a test"}),
        Background(),
        ["not-ready", "app-stopped"],
        [],
    ),
    "one of two apps that a person has stopped": (
        replace(GOOD, apps={"webui": APP, "api": replace(APP, state=State.STOPPED, stopped="tina: a test")}),
        Background(),
        ["Suspended", "app-stopped"],
        [],
    ),
    "paused": (now(model={"suspended": "tina: a test"}), Background(), ["Suspended", "suspended"], []),
    "a pause that keeps a version back": (
        now(model={"suspended": "tina: a test", "desired": "v24", "sync": Sync.OUT_OF_SYNC}),
        Background(),
        ["Suspended", "switch-waits", "suspended"],
        [],
    ),
    "a version that was not reached": (
        now(model={"desired": "v24", "sync": Sync.OUT_OF_SYNC, "unmet": Unmet("v24", "webui is not ready")}),
        Background(),
        ["Degraded", "switch-failed"],
        [],
    ),
    "a link that is left alone": (
        now(model={"drift": DriftStatus(reason("link-drifted", "hub")), "sync": Sync.OUT_OF_SYNC}),
        Background(),
        ["OutOfSync", "link-drifted"],
        [],
    ),
    "rolled back": (
        GOOD,
        Background(failed=(FailedChange(3, "hub", "v24", "rolled-back", "webui crashed", "see its log", "tina", T0),)),
        ["rolled-back", "rolled-back"],
        [],
    ),
    "rolled back, and reached by now": (
        GOOD,
        Background(failed=(FailedChange(3, "hub", "v23", "rolled-back", "webui crashed", "", "tina", T0),)),
        [],
        [],
    ),
    "the machine lacks something, in several parts": (
        now(
            {"health": Health.DEGRADED, "reason": reason("no-descriptors")},
            lacks={"api": reason("no-descriptors", "mountd"), "audit": reason("no-descriptors", "mountd")},
        ),
        Background(),
        ["Degraded", "no-descriptors"],
        [],
    ),
    "the journal and the configuration": (
        now(
            journal=reason("journal-unusable", "mountd"),
            config=ConfigStatus(source="/etc/m.yaml", problems=(Problem("a", 1, "b"),)),
        ),
        Background(),
        ["Degraded", "journal-unusable"],
        ["config-broken"],
    ),
    "stopping": (now(stopping=True), Background(), ["not-ready", "stopping"], []),
    "a mount alone": (
        Snapshot({"disk": mount(state=State.STARTING, stage=MountStage.SPAWNED, health=Health.PROGRESSING)}),
        Background(),
        ["not-ready", "mount-starting"],
        [],
    ),
    "a model alone": (
        Snapshot({"disk": MOUNT}, {"hub": replace(MODEL, stage=ModelStage.LISTED, health=Health.PROGRESSING)}),
        Background(),
        ["not-ready", "model-loading"],
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_chain_leads_from_what_is_seen_to_the_root(name: str) -> None:
    snapshot, background, chain, others = CASES[name]
    found = explain(snapshot, background)
    assert [each.code for each in found.chain] == chain
    assert [each.code for each in found.others] == others
    assert (found.root.code if found.root else None) == (chain[-1] if chain else None)
    assert (found.ready, found.health) == (readiness.is_ready(snapshot), readiness.health(snapshot))


def test_a_root_has_facts_a_command_and_what_to_do() -> None:
    snapshot = now(
        {"restarts": 3, "unasked": 2, **DOWN, "reason": reason("rclone-exited", hint="read its log"), "since": T0},
        WAITING,
        STOPPED,
    )
    background = Background(
        said={"disk": ["one", "two", "three", "four \x1b[31m"]}, since={("rclone-exited", "disk"): T1}
    )
    root = explain(snapshot, background).root
    assert root is not None
    assert (root.layer, root.object, root.command, root.hint) == ("rclone", "disk", "mountd logs disk", "read its log")
    assert root.evidence == (
        "text of rclone-exited",
        f"since {T1}",
        f"disk: backoff, preflight, restarts=2, {T0}",
        *("disk: two", "disk: three", "disk: four \x1b[31m"),
    )
    assert root.docs == "docs/faults.md#rclone-cannot-start"


def test_in_another_language_the_specific_hint_is_kept_among_the_facts() -> None:
    marked = explain(now({"backend": AWAY}), None, lambda text: f"<{text}>")
    assert marked.root is not None
    assert marked.root.text == "<The store behind store cannot be reached.>"
    assert "do this" in marked.root.evidence
    assert marked.root.hint.startswith("<")
    assert marked.chain[0].text == f"<{SEEN['Degraded']}>"
