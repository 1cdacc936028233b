"""A switch as a list of steps, and a failed one as the list that undoes it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


class Step(StrEnum):
    VERIFY = "verify"
    STOP = "stop"
    FLIP = "flip"
    START = "start"
    COMMIT = "commit"


class Undo(StrEnum):
    STOP_NEW = "stop-new"
    FLIP_BACK = "flip-back"
    START_OLD = "start-old"


def plan(apps: Sequence[str]) -> tuple[Step, ...]:
    """The steps that make a version live; `apps` are those that have to be restarted for it.

    START ends when every app is ready.
    """
    around = (Step.STOP, Step.FLIP, Step.START) if apps else (Step.FLIP,)
    return (Step.VERIFY, *around, Step.COMMIT)


def undo(begun: Sequence[Step]) -> tuple[Undo, ...]:
    """What undoes the steps that were begun, finished or not, the last one having failed. Empty: nothing had changed.

    A step that was begun may have had its effect in part, so each undo must hold for both.
    """
    steps = []
    if Step.START in begun or Step.STOP in begun:
        steps.append(Undo.STOP_NEW)
    if Step.FLIP in begun:
        steps.append(Undo.FLIP_BACK)
    if Step.STOP in begun:
        steps.append(Undo.START_OLD)
    return tuple(steps)


def changes(step: Step) -> bool:
    """From this step on a failure has to be undone."""
    return step is not Step.VERIFY
