"""Two snapshots → what happened between them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mountd.status.events import between
from mountd.status.load import LoadHistory
from mountd.status.snapshot import (
    AppStatus,
    DriftStatus,
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

MOUNT = MountStatus(
    "/mnt/x", "store:bucket", State.RUNNING, MountStage.READY, Health.HEALTHY, backend=RemoteStatus(Health.HEALTHY)
)
MODEL = ModelStatus("disk", "/srv/hub", ModelStage.LINKED, Health.HEALTHY, current="v23", mount_restarts=0)
APP = AppStatus(needs=("hub",), state=State.RUNNING, health=Health.HEALTHY)
GOOD = Snapshot({"disk": MOUNT}, {"hub": MODEL}, {"webui": APP})
AWAY = RemoteStatus(Health.DEGRADED, Reason("bucket-unreachable", "the bucket is away", "bucket", "store"))
OUT = replace(GOOD, mounts={"disk": replace(MOUNT, backend=AWAY)})


def with_backend(code: str, text: str) -> Snapshot:
    found = RemoteStatus(Health.DEGRADED, Reason(code, text, "bucket", "store"))
    return replace(GOOD, mounts={"disk": replace(MOUNT, backend=found)})


DENIED = with_backend("access-denied", "the keys are wrong")
CRASHED = replace(APP, state=State.BACKOFF, reason=Reason("app-exited", "it ended with 1", "app", "webui"))

CASES = [
    ("nothing", GOOD, GOOD, []),
    ("an outage", GOOD, OUT, [("bucket-unreachable", "store", "the bucket is away")]),
    ("an outage that lasts", OUT, replace(OUT, mounts={"disk": replace(OUT.mounts["disk"], pid=7)}), []),
    ("its end", OUT, GOOD, [("bucket-answers", "store", "store")]),
    ("another cause of it", OUT, DENIED, [("access-denied", "store", "the keys are wrong")]),
    ("the same in other words", DENIED, with_backend("access-denied", "still wrong"), []),
    (
        "a crash",
        GOOD,
        replace(GOOD, apps={"webui": CRASHED}),
        [
            ("app-backoff", "webui", "it ended with 1"),
            ("not-ready", "mountd", "it ended with 1"),
        ],
    ),
    (
        "a mount that is replaced",
        GOOD,
        replace(GOOD, mounts={"disk": replace(MOUNT, state=State.STOPPING)}),
        [("mount-stopping", "disk", "disk")],
    ),
    (
        "another version",
        GOOD,
        replace(GOOD, models={"hub": replace(MODEL, current="v22")}),
        [("model-linked", "hub", "v22")],
    ),
    (
        "data that come and wait between two snapshots",
        GOOD,
        replace(GOOD, models={"hub": replace(MODEL, loads=LoadHistory(1, 1, 0, "v23 (pin)", "v23 (pin) waits: away"))}),
        [("data-loading", "hub", "v23 (pin)"), ("data-waits", "hub", "away")],
    ),
    (
        "data that are here",
        replace(GOOD, models={"hub": replace(MODEL, loads=LoadHistory(1, 1, 0))}),
        replace(GOOD, models={"hub": replace(MODEL, loads=LoadHistory(1, 1, 1, result="v23 (pin): 9 GiB in 75 s"))}),
        [("data-loaded", "hub", "v23 (pin): 9 GiB in 75 s")],
    ),
    (
        "a model that was removed and added again",
        replace(GOOD, models={"hub": replace(MODEL, loads=LoadHistory(1, 1, 1))}),
        GOOD,
        [],
    ),
    (
        "a link that was healed twice while the journal was slow",
        GOOD,
        replace(GOOD, models={"hub": replace(MODEL, drift=DriftStatus(times=2, heals=2, last="it was removed"))}),
        [("link-drifted", "hub", "it was removed")] * 2 + [("link-healed", "hub", "hub")] * 2,
    ),
]


@pytest.mark.parametrize(("before", "after", "reported"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_between(before: Snapshot, after: Snapshot, reported: list[tuple[str, str, str]]) -> None:
    """The code, the object, and what the text quotes."""
    found = between(before, after)
    assert [(one.code, one.object) for one in found] == [(code, of) for code, of, _ in reported]
    for one, (_, _, quoted) in zip(found, reported, strict=True):
        assert quoted in one.text
