"""A drill carried out without processes: what it does in which order, what it measures, and what it leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import Busy, MountdError, NotFound, Refused, UsageError
from mountd.journal.journal import Drilled as DrillRow
from mountd.operation import drill_plan, drill_runner
from mountd.operation.drill import Drills
from mountd.operation.drill_plan import DrillKind, DrillPlan
from mountd.operation.drill_runner import DrillRunner
from mountd.operation.runner import OperationOutcome
from mountd.status.snapshot import Health
from tests.support.drilled import Drilled, stand_in
from tests.support.shelf import TINA, until

FULL = {"options": {"vfs-cache-mode": "full"}}
OFF = {"options": {"vfs-cache-mode": "off"}}


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill_runner, "PATIENCE_S", 0.05)
    monkeypatch.setattr(drill_runner, "TOUCH_AGAIN_S", 0.01)
    monkeypatch.setattr(drill_runner, "TOUCH_S", 60.0)  # a worker has to be started for it


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[Drilled]:
    found = Drilled(tmp_path)
    await found.journal.open()
    yield found
    await found.journal.close()


def planned(system: Drilled, kind: DrillKind, limit_s: float = 60.0) -> DrillPlan:
    settings = system.deps().settings()
    plan = drill_plan.make(kind, "disk", settings.mounts["disk"], 0.05, settings.apps)
    return replace(plan, limits=drill_plan.DrillLimits(limit_s, limit_s, limit_s))


async def drilled(
    system: Drilled, plan: DrillPlan, runner: DrillRunner | None = None
) -> tuple[OperationOutcome, DrillRow | None, str]:
    """Its outcome, what the journal knows of it, and the step that it was at."""
    record = await system.journal.begin(
        kind="drill", model="disk", from_version=None, to_version=str(plan.kind), operator="tina", source="cli",
        reason="", step="begun",
    )  # fmt: skip
    outcome = await (runner or DrillRunner(system.deps())).run(plan, record)
    ended = await system.journal.operation(record.id)
    assert ended is not None
    return outcome, await system.journal.drill(record.id), ended.step


# -- rclone breaks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "signal"), [(DrillKind.KILL, "SIGKILL"), (DrillKind.HANG, "SIGSTOP")])
async def test_a_broken_rclone_that_is_replaced_passes(system: Drilled, kind: DrillKind, signal: str) -> None:
    outcome, row, step = await drilled(system, planned(system, kind))
    assert (outcome, step) == (OperationOutcome("passed"), "recover")
    assert system.done == [signal, "SIGCONT"], "what is frozen goes on, whatever comes"
    assert row is not None
    assert (row.kind, row.mount, row.app_restarted, row.passed) == (str(kind), "disk", True, True)
    assert 0 <= (row.detected_s or 0) <= (row.serving_again_s or -1) <= (row.ready_again_s or -1)
    details = json.loads(row.details)
    assert (details["for_s"], details["rclone_restarted"], details["cached_reads"]) == (None, True, None)
    assert details["shortfalls"] == []


async def test_a_child_that_has_exited_gets_no_signal_more(system: Drilled) -> None:
    system.exit = "exited"
    await drilled(system, planned(system, DrillKind.KILL))
    assert system.done == ["SIGKILL"]


async def test_what_is_not_detected_has_failed(system: Drilled) -> None:
    system.heals = False
    outcome, row, step = await drilled(system, planned(system, DrillKind.HANG, 0.0))
    assert (outcome.result, step, system.done) == ("failed", "begun", ["SIGSTOP", "SIGCONT"])
    assert row is not None
    assert (row.detected_s, row.serving_again_s, row.ready_again_s, row.passed) == (None, None, None, False)


async def test_a_mount_that_is_there_but_cannot_be_read_does_not_serve(system: Drilled) -> None:
    (system.path / "a").unlink()
    system.path.rmdir()
    _, row, _ = await drilled(system, planned(system, DrillKind.KILL, 0.0))
    assert row is not None
    assert row.detected_s is not None
    assert (row.serving_again_s, row.ready_again_s, row.passed) == (None, None, False)


async def test_without_a_file_to_read_a_listing_is_enough(system: Drilled) -> None:
    (system.path / "a").unlink()
    assert (await drilled(system, planned(system, DrillKind.KILL)))[0].result == "passed"


async def test_what_is_too_late_has_failed_though_it_took_place(system: Drilled) -> None:
    _, row, _ = await drilled(system, planned(system, DrillKind.KILL, -0.001))
    assert row is not None
    assert (row.ready_again_s is not None, row.passed) == (True, False)


@pytest.mark.parametrize("kind", [DrillKind.KILL, DrillKind.HANG])
async def test_what_fell_ill_since_it_was_asked_is_left_alone(system: Drilled, kind: DrillKind) -> None:
    plan = planned(system, kind)
    system.show(health=Health.DEGRADED)
    outcome, row, _ = await drilled(system, plan)
    assert (outcome.result, row, system.done) == ("refused", None, [])


# -- the bucket breaks ------------------------------------------------------------------------------------------------

BEFORE, AFTER = ["proxy", "detour", "remount"], ["none 0", "no detour", "remount", "proxy closed"]


@pytest.mark.parametrize(("kind", "fault"), [(DrillKind.SLOW, "slow 5"), (DrillKind.OFFLINE, "offline 5")])
async def test_a_bucket_that_is_away_and_comes_back_passes(
    system: Drilled, kind: DrillKind, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill_runner, "Throttle", stand_in(system))
    outcome, row, step = await drilled(system, planned(system, kind))
    assert (outcome, step) == (OperationOutcome("passed"), "restore")
    assert system.done == [*BEFORE, fault, "none 0", *AFTER]
    assert row is not None
    assert (row.detected_s is not None, row.serving_again_s is not None, row.ready_again_s is not None) == (True,) * 3
    assert (row.app_restarted, row.passed) == (False, True)
    details = json.loads(row.details)
    assert (details["for_s"], details["rclone_restarted"]) == (0.05, False)


@pytest.mark.parametrize(("keys", "readable", "cached"), [(FULL, True, True), (FULL, False, None), (OFF, True, None)])
async def test_what_is_cached_is_read_during_the_fault(
    tmp_path: Path, keys: dict[str, Any], readable: bool, cached: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = Drilled(tmp_path, **keys)
    if not readable:
        system.path.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(drill_runner, "Throttle", stand_in(system))
    await system.journal.open()
    try:
        _, row, _ = await drilled(system, planned(system, DrillKind.OFFLINE))
    finally:
        await system.journal.close()
    assert row is not None
    assert json.loads(row.details)["cached_reads"] is cached


@pytest.mark.parametrize("fault", ["unnoticed", "replaced"])
async def test_an_outage_that_goes_unnoticed_or_costs_an_rclone_has_failed(
    system: Drilled, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill_runner, "Throttle", stand_in(system))
    system.notices = fault != "unnoticed"
    if fault == "replaced":
        system.during = system.replace
    outcome, row, _ = await drilled(system, planned(system, DrillKind.OFFLINE))
    assert outcome.result == "failed"
    assert row is not None
    assert (row.app_restarted, json.loads(row.details)["rclone_restarted"]) == ((fault == "replaced"),) * 2
    assert (row.detected_s is None) is (row.serving_again_s is None) is (fault == "unnoticed")
    assert system.done[-4:] == AFTER


async def test_an_rclone_that_does_not_go_through_the_proxy_is_put_back(
    system: Drilled, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = stand_in(system)
    monkeypatch.setattr(proxy, "asked", 0)
    monkeypatch.setattr(drill_runner, "Throttle", proxy)
    outcome, row, _ = await drilled(system, planned(system, DrillKind.SLOW))
    assert (outcome.result, row, system.done) == ("refused", None, [*BEFORE, *AFTER])


async def test_a_remount_that_never_gets_ready_fails_the_drill(
    system: Drilled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill_runner, "Throttle", stand_in(system))
    monkeypatch.setattr(DrillRunner, "_remount_limit_s", lambda *_: 0.02)
    system.remounts = False
    outcome, row, _ = await drilled(system, planned(system, DrillKind.SLOW))
    assert (outcome.result, row, system.done) == ("failed", None, [*BEFORE, *AFTER])


@pytest.mark.parametrize("stopping", [False, True])
async def test_cancelled_it_removes_the_fault_and_keeps_its_proxy_as_long_as_rclone_may_use_it(
    system: Drilled, stopping: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill_runner, "Throttle", stand_in(system))
    plan, runner = replace(planned(system, DrillKind.OFFLINE), for_s=60.0), DrillRunner(system.deps())
    drilling = asyncio.create_task(drilled(system, plan, runner))
    await until(lambda: "offline 5" in system.done, "the fault")
    system.board.snapshot = replace(system.board.snapshot, stopping=stopping)
    drilling.cancel()
    outcome, row, _ = await drilling
    assert (outcome.result, row) == ("interrupted", None)
    asked = [] if stopping else ["remount"]
    assert system.done == [*BEFORE, "offline 5", "none 0", "no detour", *asked]
    await runner.close()
    await runner.close()
    assert system.done.count("proxy closed") == 1


async def test_a_proxy_that_a_cancelled_drill_left_goes_with_the_next_one(
    system: Drilled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drill_runner, "Throttle", stand_in(system))
    plan, runner = planned(system, DrillKind.OFFLINE), DrillRunner(system.deps())
    drilling = asyncio.create_task(drilled(system, replace(plan, for_s=60.0), runner))
    await until(lambda: "offline 5" in system.done, "the fault")
    drilling.cancel()
    await drilling
    assert "proxy closed" not in system.done
    system.done.clear()
    assert (await drilled(system, plan, runner))[0].result == "passed"
    assert system.done == ["proxy closed", *BEFORE, "offline 5", "none 0", *AFTER]


# -- asking -----------------------------------------------------------------------------------------------------------


async def test_how_long_it_may_take(system: Drilled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill_runner, "PATIENCE_S", 30.0)
    system.config["mounts"]["disk"]["drain"] = "40s"
    runner, kill = DrillRunner(system.deps()), planned(system, DrillKind.KILL)
    limits = drill_plan.DrillLimits(1.0, 2.0, 4.0)
    assert runner.limit_s(replace(kill, limits=limits)) == 1 + 4 + 2 * 30
    settings = system.deps().settings()
    ready_s = drill_plan.make(DrillKind.KILL, "disk", settings.mounts["disk"], None, settings.apps).limits.ready_again_s
    slow = replace(planned(system, DrillKind.SLOW), limits=limits, for_s=100.0)
    assert runner.limit_s(slow) == 2 * (40 + drill_runner.REMOUNT_S + ready_s) + 100 + (1 + 4 + 2 * 30)


@pytest.mark.parametrize(
    ("kind", "mount", "for_", "refusal"),
    [
        ("flood", None, None, UsageError),
        ("kill", "other", None, NotFound),
        ("kill", None, "30s", UsageError),
        ("slow", None, "soon", UsageError),
        ("slow", None, "1s", UsageError),  # it might not be noticed
        ("slow", None, "0.9s", UsageError),
        ("slow", None, "3601s", UsageError),
    ],
)
async def test_what_cannot_be_drilled(
    system: Drilled, kind: str, mount: str | None, for_: str | None, refusal: type[MountdError]
) -> None:
    with pytest.raises(refusal):
        await Drills(system.deps()).ask(kind, mount, for_, replace(TINA, dry_run=True))


async def test_a_drill_that_is_only_shown_begins_nothing(system: Drilled) -> None:
    drills = Drills(system.deps())
    for kind, for_, for_s in (("slow", "1h", 3600.0), ("kill", None, 30.0)):
        shown = await drills.ask(kind, "disk", for_, replace(TINA, dry_run=True))
        assert (shown.record, str(shown.plan.kind), shown.plan.for_s) == (None, kind, for_s)
        assert shown.plan.apps == ("webui",)
    assert await system.journal.history(limit=5) == []


async def test_of_several_mounts_one_must_be_named(system: Drilled, tmp_path: Path) -> None:
    other = {**system.config["mounts"]["disk"], "path": str(tmp_path / "other")}
    system.config["mounts"]["other"] = other
    dry = replace(TINA, dry_run=True)
    with pytest.raises(UsageError):
        await Drills(system.deps()).ask("kill", None, None, dry)
    assert (await Drills(system.deps()).ask("kill", "disk", None, dry)).plan.mount == "disk"


async def test_only_a_healthy_system_whose_bucket_can_be_cut_off_is_drilled(system: Drilled) -> None:
    dry = replace(TINA, dry_run=True)
    system.config["remotes"]["store"] = {"type": "sftp", "host": "x"}
    with pytest.raises(Refused):
        await Drills(system.deps()).ask("offline", None, None, dry)
    await Drills(system.deps()).ask("kill", None, None, dry)
    system.show(health=Health.DEGRADED)
    with pytest.raises(Refused):
        await Drills(system.deps()).ask("kill", None, None, dry)


async def test_a_drill_is_an_operation_alone(system: Drilled) -> None:
    drills, running = Drills(system.deps()), asyncio.create_task(system.operations.run())
    try:
        begun = await drills.ask("kill", None, None, replace(TINA, reason="why"))
        assert begun.record is not None
        for request in (TINA, replace(TINA, dry_run=True)):
            with pytest.raises(Busy):
                await drills.ask("kill", None, None, request)
        outcome = await system.operations.outcome(begun.record)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert outcome is not None
    (ended,) = await system.journal.history(limit=5)
    assert (ended.kind, ended.model, ended.to_version, ended.result, ended.reason) == (
        *("drill", "disk", "kill", "passed", "why"),
    )
