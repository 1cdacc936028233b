"""Rules: what a crash in each step leads to, when the version itself is at fault, and what is tried again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mountd.errors import (
    BadVersionName,
    CannotStart,
    DiskTimeout,
    GateFailed,
    MountdError,
    NotFound,
    Refused,
    RemoteError,
    Unavailable,
)
from mountd.journal.records import OperationRecord
from mountd.operation.plan import Step, Undo, changes
from mountd.operation.rules import (
    Recovery,
    after_crash,
    is_refusal,
    is_retryable,
    is_too_deadly,
    killed,
    own_fault,
)

NOTHING, UNDO, FINISH = Recovery


@pytest.mark.parametrize(
    ("step", "committed", "rule"),
    [
        *((step, committed, NOTHING) for step in ("preflight", "warm", "verify") for committed in (False, True)),
        *((step, False, UNDO) for step in ("stop", "flip", "start", "ready", "gates", "watch")),
        ("commit", True, FINISH),
        ("commit", False, UNDO),
        *((step, False, UNDO) for step in ("stop-new", "flip-back", "start-old")),
        *((step, True, FINISH) for step in ("stop-new", "flip-back", "start-old")),
        *((step, False, NOTHING) for step in ("fault", "detour", "recover", "restore", "of a later mountd")),
    ],
)
def test_after_crash(step: str, committed: bool, rule: Recovery) -> None:
    assert after_crash(step, committed=committed) is rule


def test_every_step_has_a_rule_that_fits_what_it_changes() -> None:
    for step in Step:
        assert (after_crash(step, committed=False) is UNDO) == changes(step), step
    assert {after_crash(step, committed=False) for step in Undo} == {UNDO}


EXITED = CannotStart("webui ended with exit code 1", code="app-exited")
NOT_READY = CannotStart("webui is not ready after 2 s", code="app-not-ready")
WRONG = Refused("models/gpt.pth has other bytes")
UNKNOWN = GateFailed("no answer", code="gate-unanswered", retryable=True)
OUTAGE = RemoteError("cannot list: 503", code="bucket-unreachable")


@pytest.mark.parametrize(
    ("step", "error", "guilty"),
    [
        (Step.VERIFY, WRONG, True),
        (Step.READY, EXITED, True),
        (Step.START, EXITED, True),
        (Step.READY, NOT_READY, True),
        (Step.WATCH, EXITED, True),
        (Step.START, CannotStart("its preflight command ended with 1", code="preflight-failed"), True),
        (Step.GATES, GateFailed("it answers 500"), True),
        (Step.WATCH, GateFailed("it is 7, more than 3"), True),
        # Each time refused, never quarantined: who uploads it completes it.
        (Step.PREFLIGHT, WRONG, False),
        (Step.PREFLIGHT, NotFound("no v99"), False),
        # Outages, disks, other people's ports, this machine.
        (Step.VERIFY, DiskTimeout("no answer"), False),
        (Step.WATCH, CannotStart("webui ended with signal SIGKILL", code="app-killed"), False),
        (Step.WARM, OUTAGE, False),
        (Step.GATES, UNKNOWN, False),
        (Step.START, CannotStart("port 7860 is taken", code="port-taken"), False),
        (Step.READY, CannotStart("port 7860 is answered by a stranger", code="port-taken"), False),
        (Step.START, CannotStart("there is no user tts", code="no-user"), False),
        (Step.START, CannotStart("GPU 0 has 1 GiB free", code="gpu-memory"), False),
        (Step.START, CannotStart("its preflight command ended with SIGKILL", code="preflight-killed"), False),
        (Step.READY, CannotStart("command not found", code="app-command-not-found"), False),
        (Step.READY, CannotStart("cannot execute", code="app-cannot-execute"), False),
        (Step.START, CannotStart("waits for the mount", code="waiting-for-mount"), False),
        (Step.FLIP, Unavailable("the link is blocked"), False),
        (Step.STOP, CannotStart("stuck in the kernel", code="app-stuck"), False),
        (Step.COMMIT, MountdError("cannot use the journal"), False),
        (Step.READY, MountdError("cannot use the journal"), False),
    ],
)
def test_own_fault(step: Step, error: MountdError, guilty: bool) -> None:
    assert own_fault(step, error, mount_well=True) is guilty
    assert own_fault(step, error, mount_well=False) is False, "then nobody knows"


@pytest.mark.parametrize(
    ("error", "quarantined", "cancelled", "again"),
    [
        (OUTAGE, False, False, True),
        (EXITED, False, False, True),  # while the mount was not well
        (EXITED, True, False, False),
        (UNKNOWN, False, False, True),
        (GateFailed("it answers 500"), True, False, False),
        (WRONG, False, False, False),
        (NotFound("no v99"), False, False, False),
        (OUTAGE, False, True, False),
        (MountdError("cancelled"), False, True, False),
    ],
)
def test_is_retryable(error: MountdError, quarantined: bool, cancelled: bool, again: bool) -> None:
    assert is_retryable(error, quarantined=quarantined, cancelled=cancelled) is again


def test_is_refusal() -> None:
    assert [is_refusal(each) for each in (WRONG, NotFound("x"), BadVersionName("x"))] == [True] * 3
    assert [is_refusal(each) for each in (OUTAGE, EXITED, UNKNOWN)] == [False] * 3


def _ended(
    result: str | None, duration_s: float | None = None, *, to: str = "v23", source: str = "git", kind: str = "switch"
) -> OperationRecord:
    """At 12:00."""
    operation = OperationRecord(1, kind, "hub", "v22", to, "ada", source, "", "start", "2026-01-31T12:00:00.000Z")
    return replace(operation, result=result, duration_s=duration_s)


DIED, DIED_EARLY = _ended("rolled-back"), _ended("interrupted")
STOPPED, FAILED = _ended("rolled-back", 2.0), _ended("failed", 2.0)


@pytest.mark.parametrize(
    ("newest_first", "deaths"),
    [
        ([], 0),
        ([DIED], 1),
        ([DIED, DIED_EARLY, DIED], 3),
        ([_ended(None), DIED], 1),  # one whose result could not be written yet
        ([STOPPED, DIED, FAILED, DIED], 2),
        ([DIED, _ended("interrupted", kind="warm", source="cli"), DIED], 2),
        ([DIED, _ended("interrupted", kind="drill", source="cli", to="kill"), DIED], 2),
        ([DIED, _ended("rolled-back", source="cli"), DIED], 3),  # a person tried it, and mountd died in it as well
        ([DIED, _ended("rolled-back", 9.0, source="cli"), DIED], 1),
        ([_ended("refused", 9.0, source="schedule"), DIED], 0),
        ([DIED, _ended("committed", 9.0, to="v22", source="cli"), DIED], 1),
        ([DIED, _ended("rolled-back", to="v24"), DIED], 1),
        ([DIED, _ended("committed"), DIED], 1),
    ],
)
def test_how_often_mountd_died_in_switches_to_a_version(newest_first: list[OperationRecord], deaths: int) -> None:
    assert killed(newest_first, "v23", "") == killed(newest_first, "v23", "2026-01-31T12:00:00.000Z") == deaths
    assert killed(newest_first, "v23", "2026-01-31T12:00:00.001Z") == 0, "declared again since"


@pytest.mark.parametrize(
    ("deaths", "retries", "too_often"),
    [(0, 0, False), (1, 0, False), (2, 0, True), (1, 1, False), (2, 1, True), (3, 3, False), (4, 3, True)],
)
def test_one_death_is_no_reason_to_give_a_version_up(deaths: int, retries: int, too_often: bool) -> None:
    assert is_too_deadly(deaths, retries) is too_often
