"""What follows from the results of operations: recovery after a crash, whose fault it was, whether to try again."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from mountd.errors import GateFailed, MountdError, Refused
from mountd.journal.records import REPORTED_KINDS, OperationRecord
from mountd.operation.plan import Step, Undo

FROM_FILE = "config"
"""The source of what stands in the configuration."""
DECLARED = (FROM_FILE, "file", "git")
"""Sources of what nobody asked for by hand."""


class Recovery(StrEnum):
    """What a start of mountd does with an operation that the previous run left unfinished."""

    NOTHING = "nothing"
    """nothing had changed"""
    UNDO = "undo"
    """the link goes back to what is committed, and the apps start with that"""
    FINISH = "finish"
    """it took place, only its result was not written"""


def after_crash(step: str, *, committed: bool) -> Recovery:
    """By the step that was begun last; `committed`: the journal says that the new version is the live one.

    | step                          | rule                                          |
    |-------------------------------|-----------------------------------------------|
    | preflight, warm, verify       | nothing                                       |
    | stop … watch                  | undo                                          |
    | commit                        | finish when it is committed, else undo        |
    | stop-new, flip-back, start-old| finish when it is committed, else undo        |
    | steps of a drill              | nothing: the fault stopped with its processes |
    """
    if step == Step.COMMIT or step in list(Undo):  # a commit that was reported as failed may have reached the disk
        return Recovery.FINISH if committed else Recovery.UNDO
    if step in (Step.STOP, Step.FLIP, Step.START, Step.READY, Step.GATES, Step.WATCH):
        return Recovery.UNDO
    return Recovery.NOTHING


def killed(newest_first: Iterable[OperationRecord], version: str, since: str) -> int:
    """In how many of the model's last switches to `version` mountd died; `since`: when it was declared, or "".

    A switch by hand that mountd has ended itself begins afresh, however it ended. One in which mountd died counts, so
    that a person who tries the version once does not start the loop again. An automatic one that failed, or that an
    orderly stop interrupted, says nothing about it.
    """
    count = 0
    for each in newest_first:
        if each.kind not in REPORTED_KINDS:
            continue
        # Only a run that goes on to its end measures how long an operation took.
        has_died = each.result in ("interrupted", "rolled-back") and each.duration_s is None
        is_afresh = each.result == "committed" or (each.source not in DECLARED and not has_died)
        if each.to_version != version or each.started < since or is_afresh:
            break
        count += has_died
    return count


def is_too_deadly(deaths: int, retries: int) -> bool:
    """Whether mountd begins no automatic switch any more to a version in whose switches it has died so often.

    `retries` is `sync.retry.limit`. One death is no reason, also with 0: mountd may have been killed for another one.
    """
    return deaths > max(retries, 1)


_OF_THE_VERSION = ("app-exited", "app-not-ready", "preflight-failed")
"""How an app fails that cannot use the version. All else is about the machine: ports, users, commands, GPUs, a kill by
a person or for want of memory."""


def own_fault(step: Step, error: MountdError, *, mount_well: bool) -> bool:
    """Whether the version itself is at fault, so that the same content would fail again.

    Never for a failure while the mount or its bucket was not healthy: then the cause is unknown.
    """
    if not mount_well:
        return False
    match step:
        case Step.VERIFY:
            return isinstance(error, Refused)
        case Step.START | Step.READY | Step.GATES | Step.WATCH:
            if isinstance(error, GateFailed):
                return error.code == "gate-failed"
            return is_of_the_app(error)
        case _:
            return False


def is_of_the_app(error: MountdError) -> bool:
    """An app exited by itself, was never ready, or its preflight command failed: it cannot use the version."""
    return error.code in _OF_THE_VERSION


def is_retryable(error: MountdError, *, quarantined: bool, cancelled: bool) -> bool:
    """Whether the same switch may succeed later without anybody changing anything."""
    return error.retryable and not quarantined and not cancelled


def is_refusal(error: MountdError) -> bool:
    """Refused, or a wrong request: the error itself says that nothing was changed."""
    return error.exit_code in (2, 3, 7)
