"""Wanted against live: what `mountd diff` compares, and when it differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mountd.api.documents import diff as documents
from mountd.operation.diff import Compared, FlagDifference, compare, flag_differences
from mountd.status.snapshot import (
    AppStatus,
    DriftStatus,
    ModelStage,
    ModelStatus,
    MountStage,
    MountStatus,
    Reason,
    Snapshot,
    State,
    Sync,
)
from mountd.status.source import SourceStatus

MOUNT = MountStatus("/mnt", "store:bucket", State.RUNNING, MountStage.READY)
MODEL = ModelStatus(
    *("storage", "/srv/hub", ModelStage.LINKED), current="v23", desired="v23", sync=Sync.SYNCED, target="/mnt/hub_v23"
)
APP = AppStatus(needs=("hub",), state=State.RUNNING, versions={"hub": "v23"})
SOURCE = SourceStatus("git", "https://git.example.com/deploy.git", "v24")


def differing(
    model: ModelStatus = MODEL, mount: MountStatus = MOUNT, app: AppStatus = APP, flags: Any = ()
) -> list[Any]:
    snapshot = Snapshot({"storage": mount}, {"hub": model}, {"webui": app, "other": AppStatus(needs=("voices",))})
    found = compare(snapshot, "hub", {"storage": flags})
    assert {each.kind for each in found} >= {"version", "link", "flags"}
    return [(each.kind, each.object, each.wanted, each.live) for each in found if each.differs]


def test_nothing_differs() -> None:
    assert differing() == []


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"model": replace(MODEL, desired="v24")}, ("version", "hub", "v24", "v23")),
        ({"model": replace(MODEL, source=SOURCE)}, ("version", "hub", "v24", "v23")),
        ({"model": replace(MODEL, source=replace(SOURCE, version=None))}, ("version", "hub", "unknown", "v23")),
        (
            {"model": replace(MODEL, drift=DriftStatus(Reason("link-drifted", "x"), target="/tmp/x"))},
            ("link", "hub", "/srv/hub → /mnt/hub_v23", "/srv/hub → /tmp/x"),
        ),
        (
            {"model": replace(MODEL, drift=DriftStatus(Reason("link-blocked", "x")))},
            ("link", "hub", "/srv/hub → /mnt/hub_v23", "/srv/hub → link-blocked"),
        ),
        ({"flags": (FlagDifference("--transfers", "4", None),)}, ("flags", "storage", "--transfers=4", "not set")),
        ({"flags": (FlagDifference("--rc", None, ""),)}, ("flags", "storage", "not set", "--rc")),
        ({"mount": replace(MOUNT, state=State.BACKOFF)}, ("process", "storage", "running", "backoff")),
        ({"app": replace(APP, state=State.FAILED)}, ("process", "webui", "running with v23", "failed")),
        ({"app": replace(APP, versions={"hub": "v22"})}, ("process", "webui", "running with v23", "running with v22")),
    ],
)
def test_what_differs(changed: dict[str, Any], found: tuple[str, ...]) -> None:
    assert differing(**changed) == [found]


def test_a_pinned_version_needs_no_rclone() -> None:
    assert differing(replace(MODEL, pinned=True), replace(MOUNT, state=State.FAILED)) == []


@pytest.mark.parametrize(
    ("wanted", "live", "found"),
    [
        ([], [], ()),
        (["rclone", "mount", "a:b", "/mnt", "--rc"], ["rclone", "mount", "a:b", "/mnt", "--rc"], ()),
        (["--a=1", "--b"], ["--b", "--a=1"], ()),
        (["--a=1"], ["--a=2"], (FlagDifference("--a", "1", "2"),)),
        (["--a=1=2"], [], (FlagDifference("--a", "1=2", None),)),
        ([], ["--a"], (FlagDifference("--a", None, ""),)),
        (["--x=1", "--x=2"], ["--x=1"], (FlagDifference("--x", "1 2", "1"),)),
        (
            ["rclone", "mount", "a:b"],
            ["rclone", "mount", "a:c"],
            (FlagDifference("arguments", "rclone mount a:b", "rclone mount a:c"),),
        ),
    ],
)
def test_flags(wanted: list[str], live: list[str], found: tuple[FlagDifference, ...]) -> None:
    assert flag_differences(wanted, live) == found


@pytest.mark.parametrize(
    ("sync", "live", "differs"),
    [
        (Sync.SYNCED, "v23", False),
        (Sync.SYNCED, "v22", True),
        (Sync.OUT_OF_SYNC, "v23", True),
        (Sync.UNKNOWN, "v23", True),
    ],
)
def test_when_a_model_differs(sync: Sync, live: str, differs: bool) -> None:
    found = documents.diff({"hub": (sync, [Compared("version", "hub", "v23", live)])})
    assert (found["differs"], found["models"][0]["differs"]) == (differs, differs)
