"""Alarms of a previous run: which are open, and which are over as their object is seen to be well now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from mountd.codes import CODES, HEALING
from mountd.status.alarms import Alarm, healed, open_after, without
from mountd.status.events import Happening
from mountd.status.snapshot import ConfigStatus, DriftStatus, ModelStage, RemoteStatus, Snapshot, State
from mountd.status.source import SourceStatus
from tests.unit.test_explain import AWAY, DOWN, GOOD, MOUNT, STARTING, STOPPED, WAITING, now, reason

FILE = "/etc/mountd.yaml"
READ = SourceStatus("file", "/srv/wanted", "v23", read="2026-01-01T00:00:00.000Z")
TWO_MOUNTS = {"disk": MOUNT, "out": replace(MOUNT, remote="store:out", backend=RemoteStatus())}


def happened(code: str, object_: str = "store", of: str | None = None) -> Happening:
    return Happening(code, object_, "…", {"of": of} if of else None)


# -- which are open ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "alarms"),
    [
        ([], set()),
        ([("mountd-started", "mountd")], set()),
        ([("bucket-unreachable", "store")], {("bucket-unreachable", "store")}),
        ([("bucket-unreachable", "store"), ("bucket-answers", "store")], set()),
        ([("bucket-answers", "store"), ("bucket-unreachable", "store")], {("bucket-unreachable", "store")}),
        ([("bucket-unreachable", "store"), ("bucket-answers", "other")], {("bucket-unreachable", "store")}),
        ([("bucket-unreachable", "store"), ("access-denied", "store"), ("bucket-answers", "store")], set()),
        ([("no-memory", "mountd"), ("recovered", "mountd", "disk-full")], {("no-memory", "mountd")}),
        ([("no-memory", "mountd"), ("recovered", "mountd", "no-memory")], set()),
        ([("no-memory", "mountd"), ("recovered", "mountd")], set()),
    ],
)
def test_what_a_journal_leaves_open(events: list[tuple[str, ...]], alarms: set[Alarm]) -> None:
    assert open_after(happened(*each) for each in events) == alarms


def test_what_this_run_has_seen_is_followed_in_it() -> None:
    alarms = frozenset({("bucket-unreachable", "store"), ("access-denied", "store"), ("mount-failed", "disk")})
    assert without(alarms, [happened("bucket-unreachable")]) == alarms - {("bucket-unreachable", "store")}
    assert without(alarms, [happened("bucket-answers")]) == {("mount-failed", "disk")}
    assert without(alarms, [happened("mount-running", "other")]) == alarms


# -- which are over ---------------------------------------------------------------------------------------------------

CASES: list[tuple[Alarm, Snapshot, str | None]] = [
    (("not-ready", "mountd"), GOOD, "ready"),
    (("not-ready", "mountd"), now(app=STARTING), None),
    (("config-broken", FILE), now(config=ConfigStatus(FILE, "2026")), "config-reloaded"),
    (("config-broken", FILE), now(config=ConfigStatus(FILE)), None),
    (("config-broken", FILE), now(config=ConfigStatus("/other", "2026")), None),
    (("bucket-unreachable", "store"), GOOD, "bucket-answers"),
    (("bucket-unreachable", "store"), now({"backend": AWAY}), None),
    (("bucket-unreachable", "store"), now({"backend": RemoteStatus()}), None),  # not asked yet
    (("bucket-unreachable", "store"), replace(GOOD, mounts=TWO_MOUNTS), None),  # nor that of the other mount
    (("bucket-unreachable", "gone"), GOOD, None),
    (("no-memory", "store"), GOOD, "bucket-answers"),
    (("mount-failed", "disk"), GOOD, "mount-running"),
    (("mount-backoff", "disk"), now(DOWN), None),
    (("mount-failed", "gone"), GOOD, None),
    (("app-failed", "webui"), GOOD, "app-running"),
    (("app-failed", "webui"), now(app=STOPPED), None),
    (("link-blocked", "hub"), GOOD, "link-healed"),
    (("link-drifted", "hub"), now(model={"drift": DriftStatus(reason("link-drifted", "hub"))}), None),
    (("link-blocked", "hub"), now(model=WAITING), None),
    (("content-changed", "hub"), GOOD, "content-restored"),
    (("content-changed", "hub"), now(model={"changed": reason("content-changed", "hub")}), None),
    (("content-changed", "hub"), now(model={"stage": ModelStage.WARMED}), None),
    (("content-changed", "hub"), now(model={"pinned": True}), None),
    (("desired-unreachable", "hub"), now(model={"source": READ}), "desired-read"),
    (("desired-unreachable", "hub"), now(model={"source": replace(READ, read=None)}), None),  # by a previous run
    (("desired-unreachable", "hub"), now(model={"source": replace(READ, code="desired-refused")}), None),
    (("desired-unreachable", "hub"), GOOD, None),
    (("secret-missing", "hub"), now(model={"source": READ}), "desired-read"),
    (("secret-missing", "mountd"), GOOD, "recovered"),
    (("disk-full", "mountd"), GOOD, "recovered"),
    (("disk-full", "mountd"), now(lacks={"audit": reason("no-memory", "mountd")}), None),
    (("disk-full", "mountd"), now({"state": State.STARTING}, app=STOPPED), None),
]


@pytest.mark.parametrize(("alarm", "snapshot", "end"), CASES, ids=str)
def test_what_is_over_once_its_object_is_well(alarm: Alarm, snapshot: Snapshot, end: str | None) -> None:
    found = healed(frozenset({alarm}), snapshot)
    assert [(each.code, each.object) for each in found] == ([(end, alarm[1])] if end else [])
    assert without(frozenset({alarm}), found) == (set() if end else {alarm})


def test_one_event_ends_all_alarms_of_a_bucket_and_what_the_machine_lacked_each_has_its_own() -> None:
    alarms = {
        ("bucket-unreachable", "store"),
        ("access-denied", "store"),
        ("no-memory", "mountd"),
        ("disk-full", "mountd"),
    }
    found = healed(frozenset(alarms), GOOD)
    assert sorted((each.code, _of(each.data)) for each in found) == [
        ("bucket-answers", ""),
        ("recovered", "disk-full"),
        ("recovered", "no-memory"),
    ]
    assert without(frozenset(alarms), found) == set()


def _of(data: Mapping[str, Any] | None) -> str:
    return str((data or {}).get("of", ""))


def test_each_kind_of_alarm_can_end() -> None:
    """Those of outboxes and of targets of notifications are recalled by these themselves."""
    shown = {end for _, _, end in CASES if end}
    assert shown == HEALING - {"outbox-recovered", "notify-working"}
    assert {code for (code, _), _, _ in CASES} <= CODES.keys()
