"""Several things are wrong at once: the root cause is the one that brings the others about, the others are named beside
it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from mountd.status.explain import explain
from mountd.status.grounds import Background
from mountd.status.results import OutboxStatus
from mountd.status.snapshot import DriftStatus, Health, ModelStage, RemoteStatus, Snapshot, State, Sync
from tests.unit.test_explain import ASKED, AWAY, DOWN, MOUNT, STARTING, STOPPED, SWITCH, T0, T1, WAITING, now, reason

ENDED = {"state": State.BACKOFF, "health": Health.DEGRADED, "since": T1}
BAD = {"health": Health.DEGRADED}
SLOW = RemoteStatus(Health.DEGRADED, reason("bucket-slow", "store"))
GONE = RemoteStatus(Health.MISSING, reason("bucket-missing", "store"))


def beside(mount: Mapping[str, Any], other: Mapping[str, Any], app: Mapping[str, Any] | None = None) -> Snapshot:
    """A second mount, of another bucket of the same store; by default an app runs that uses both."""
    found = now(mount, app=app or {"mounts": {"disk": 0, "out": 0}})
    return replace(found, mounts={**found.mounts, "out": replace(MOUNT, remote="store:out", **other)})


def unsent(remote: str) -> OutboxStatus:
    return OutboxStatus("/o", remote, Health.DEGRADED, pending=2, reason=reason("outbox-waiting", "results"))


CASES: dict[str, tuple[Snapshot, Background, list[str], list[str]]] = {
    # name: snapshot, background, the codes of the chain, those of the other roots
    "an app that ended, with its bucket away": (
        now({"backend": AWAY}, app={**ENDED, "reason": reason("app-exited", "webui")}),
        Background(),
        ["not-ready", "app-exited", "bucket-unreachable"],
        [],
    ),
    "an app that ended, with its bucket away and its data on this machine": (
        now({"backend": AWAY}, {"level": "data"}, {**ENDED, "reason": reason("app-exited", "webui")}),
        Background(),
        ["not-ready", "app-exited"],
        ["bucket-unreachable"],
    ),
    "an app that ended while reads fail": (
        now({**BAD, "reason": reason("reads-failing")}, app={**ENDED, "reason": reason("app-not-ready", "webui")}),
        Background(),
        ["not-ready", "app-not-ready", "reads-failing"],
        [],
    ),
    "an app that starts while its bucket is away": (
        now({"backend": AWAY}, app=STARTING),
        Background(crash="it did not stop"),
        ["not-ready", "app-starting", "bucket-unreachable"],
        [],
    ),
    "an app that is not ready, without its link and its bucket": (
        now(
            {"backend": AWAY},
            {**WAITING, "health": Health.DEGRADED, "reason": reason("model-unavailable", "hub")},
            {**ENDED, "reason": reason("app-not-ready", "webui")},
        ),
        Background(),
        ["not-ready", "app-not-ready", "bucket-unreachable"],
        [],
    ),
    "the bucket of another mount on the same remote": (
        beside({**BAD, "reason": reason("reads-failing")}, {**ASKED, "backend": GONE}),
        Background(),
        ["Degraded", "bucket-missing"],
        ["reads-failing"],
    ),
    "a mount that starts beside one whose bucket is not there": (
        beside({**DOWN, "state": State.STARTING, "health": Health.PROGRESSING}, {**ASKED, "backend": GONE}, STOPPED),
        Background(),
        ["not-ready", "waiting-for-mount", "mount-starting"],
        ["bucket-missing"],
    ),
    "a mount that starts beside one that cannot reach the store": (
        beside({**DOWN, "state": State.STARTING, "health": Health.PROGRESSING}, {**ASKED, "backend": AWAY}, STOPPED),
        Background(),
        ["not-ready", "waiting-for-mount", "mount-starting", "bucket-unreachable"],
        [],
    ),
    "uploads that are refused, beside a slow bucket": (
        now({**BAD, "reason": reason("uploads-failing"), "backend": SLOW}),
        Background(),
        ["Degraded", "bucket-slow"],
        ["uploads-failing"],
    ),
    "content that is not there, beside a slow bucket": (
        now(
            {"backend": SLOW},
            {**WAITING, "health": Health.MISSING, "reason": reason("waiting-for-content", "hub")},
            STOPPED,
        ),
        Background(),
        ["not-ready", "waiting-for-model", "waiting-for-content"],
        ["bucket-slow"],
    ),
    "content that was there, in a bucket that is empty now": (
        now(
            {"backend": RemoteStatus(Health.DEGRADED, reason("bucket-empty", "store"))},
            {**WAITING, "health": Health.MISSING, "reason": reason("waiting-for-content", "hub")},
            STOPPED,
        ),
        Background(),
        ["not-ready", "waiting-for-model", "waiting-for-content", "bucket-empty"],
        [],
    ),
    "a model that cannot be read, where uploads fail": (
        now(
            {**BAD, "reason": reason("uploads-failing")},
            {**WAITING, "health": Health.DEGRADED, "reason": reason("model-unavailable", "hub")},
            STOPPED,
        ),
        Background(),
        ["not-ready", "waiting-for-model", "model-unavailable"],
        ["uploads-failing"],
    ),
    "a link that was removed, beside a slow bucket": (
        now(
            {"backend": SLOW},
            {"stage": ModelStage.WARMED, "drift": DriftStatus(reason("link-drifted", "hub"), absent=True)},
            STOPPED,
        ),
        Background(),
        ["not-ready", "waiting-for-model", "link-drifted"],
        ["bucket-slow"],
    ),
    "an app of a mount that was replaced, beside a slow bucket": (
        now({"restarts": 1, "fault": reason("mount-hung"), "backend": SLOW}, {"mount_restarts": 1}),
        Background(),
        ["not-ready", "app-behind-remount", "mount-hung"],
        ["bucket-slow"],
    ),
    "a mount that was replaced, and another one that once crashed": (
        beside({"fault": reason("rclone-killed"), "since": "2026-01-01T00:00:00Z"}, {"restarts": 1, "since": T0}),
        Background(),
        ["not-ready", "app-behind-remount"],
        [],
    ),
    "results that wait for the store that is away": (
        now({"backend": AWAY}, outbox={"results": unsent("store:results")}),
        Background(),
        ["Degraded", "bucket-unreachable"],
        [],
    ),
    "results that wait for another store": (
        now({"backend": AWAY}, outbox={"results": unsent("other:results")}),
        Background(),
        ["Degraded", "bucket-unreachable"],
        ["outbox-waiting"],
    ),
    "a journal that a model needs as well": (
        now(
            model={**WAITING, "health": Health.DEGRADED, "reason": reason("journal-unusable", "hub")},
            app=STOPPED,
            journal=reason("journal-unusable", "mountd"),
        ),
        Background(),
        ["not-ready", "waiting-for-model", "journal-unusable"],
        [],
    ),
    "a version that waits for its turn, while another model is loaded": (
        now(
            model={"desired": "v24", "sync": Sync.OUT_OF_SYNC, "pending": "v24"},
            operations=(replace(SWITCH, kind="warm", model="voice"),),
        ),
        Background(),
        ["OutOfSync", "switch-waits"],
        [],
    ),
    "a start after a crash of mountd": (
        now({**ASKED, "backend": RemoteStatus()}, WAITING, STOPPED),
        Background(crash="it did not stop"),
        ["not-ready", "waiting-for-mount", "mount-starting", "mountd-restarted-after-crash"],
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_cause_is_named_and_not_what_is_wrong_beside_it(name: str) -> None:
    snapshot, background, chain, others = CASES[name]
    found = explain(snapshot, background)
    assert [each.code for each in found.chain] == chain
    assert [each.code for each in found.others] == others
