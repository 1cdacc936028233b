"""What follows from the result of an operation: recovery after a crash, whose fault it was, whether to try again."""

from __future__ import annotations

from enum import StrEnum

from mountd.errors import GateFailed, MountdError, Refused
from mountd.operation.plan import Step, Undo


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
