"""What a request for the status can wait for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mountd.api.waits import VersionWait, condition
from mountd.errors import UsageError
from mountd.status import readiness
from mountd.status.snapshot import DriftStatus, ModelStage, ModelStatus, Operation, Reason, Snapshot

LIVE = ModelStatus("storage", "/srv/hub", ModelStage.LINKED, current="v23", desired="v23")
OLD = replace(LIVE, current="v22")
SWITCH = Operation(7, "switch", "hub", "v22", "v23", "tina", "cli", "warm", "")
WARM = replace(SWITCH, id=8, kind="warm")
OTHER = replace(SWITCH, id=9, model="voices")
DRIFTED = replace(LIVE, drift=DriftStatus(reason=Reason("link-drifted", "")))


def snapshot(model: ModelStatus, *operations: Operation) -> Snapshot:
    return Snapshot(models={"hub": model}, operations=operations)


@pytest.mark.parametrize(
    ("seen", "holds"),
    [
        ([snapshot(LIVE)], True),
        ([snapshot(LIVE, WARM, OTHER)], True),
        ([snapshot(LIVE, SWITCH)], False),
        ([snapshot(OLD)], False),
        ([snapshot(DRIFTED)], False),
        ([snapshot(replace(LIVE, stage=ModelStage.WARMED))], False),
        ([snapshot(OLD, SWITCH), snapshot(OLD)], True),
        ([snapshot(OLD, SWITCH), snapshot(OLD, replace(SWITCH, id=10))], True),
        ([snapshot(OLD, SWITCH), snapshot(OLD, replace(SWITCH, step="gates"))], False),
        ([snapshot(OLD, WARM, OTHER), snapshot(OLD)], False),
        ([snapshot(replace(OLD, pending="v23")), snapshot(OLD)], True),
        ([snapshot(replace(OLD, pending="v24")), snapshot(OLD)], False),
        ([snapshot(OLD), snapshot(replace(OLD, pending="v23"))], False),
    ],
    ids=[
        *("live", "others run", "runs", "old", "drifted", "not linked", "ended", "another began", "goes on"),
        *("others ended", "given up", "another was pending", "becomes pending"),
    ],
)
def test_a_version_that_is_live_or_whose_chance_is_over(seen: list[Snapshot], holds: bool) -> None:
    wait = VersionWait("hub", "v23")
    assert [wait(each) for each in seen] == [False] * (len(seen) - 1) + [holds]


def test_a_model_that_is_removed_meanwhile_ends_the_wait() -> None:
    assert VersionWait("hub", "v23")(Snapshot())


def test_what_can_be_waited_for() -> None:
    assert condition("ready", lambda: "hub") is readiness.is_ready
    assert condition("version=v23", lambda: "hub")(snapshot(LIVE))
    for wrong in ("", "later", "version", "version=", "operation=7"):
        with pytest.raises(UsageError):
            condition(wrong, lambda: "hub")
