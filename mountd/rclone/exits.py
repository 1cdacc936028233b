"""How rclone ended → a code, a sentence, what to do, and whether trying again is of any use."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from mountd.rclone.failures import classify
from mountd.rclone.log import LogEvent

SAID_CHARACTERS = 500
SAID_S = 5.0
"""What it said longer before its end is not why it ended."""
ERRORS_KEPT = 3
HELPER = "mount helper error: "
"""So begins what fusermount says, which rclone logs as a notice."""

USAGE = 2
TERMINATED = {130: "SIGINT", 143: "SIGTERM"}
KILL = -9
LACKS = ("no-processes", "no-descriptors", "no-memory")


@dataclass(frozen=True, slots=True)
class ExitCause:
    code: str
    text: str
    hint: str
    permanent: bool = False
    """a usage error: the same command line fails again"""


class LastOutput:
    """What rclone said before its end, as far as it may tell why: its last errors, for the last one alone often says
    no more than that it failed; else its last line that is not of its log. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._errors: deque[tuple[float, str]] = deque(maxlen=ERRORS_KEPT)
        self._plain = ""

    def hear(self, event: LogEvent, now: float, *, logged: bool) -> None:
        """`logged`: it is of rclone's log."""
        text = event.text[:SAID_CHARACTERS]
        if event.level == "error" or text.startswith(HELPER):
            for known in [each for each in self._errors if each[1] == text]:  # the last time counts
                self._errors.remove(known)
            self._errors.append((now, text))
        elif not logged and text:
            self._plain = text

    def text(self, now: float) -> str:
        """The last first: `Fatal error: …; before that: …`."""
        if not self._errors:
            return self._plain
        recent = [text for at, text in self._errors if now - at <= SAID_S]
        return "; before that: ".join(reversed(recent))[: 2 * SAID_CHARACTERS]


def refusal(said: str) -> str:
    """What fusermount said when it would not mount, "" when that is not why rclone ended."""
    before, found, words = said.partition(HELPER)
    return words.partition("; before that: ")[0].strip() if found and "failed to mount" in before else ""


def explain_crash(cause: str, outcome: str, mount: str) -> ExitCause:
    """Go ends a program that lacks what a process or thread takes in the way in which it ends one with a bug."""
    lack = classify(cause)
    if lack.code in LACKS:
        return ExitCause(lack.code, f"rclone ended with {outcome}: {lack.text}", lack.hint)
    text = f"rclone ended with {outcome}" + (f": {cause}" if cause else "")
    return ExitCause("rclone-crashed", text, f"see `mountd logs {mount}`")


def explain(code: int, outcome: str, said: str, mount: str, *, obstacle: str | None = None) -> ExitCause:
    """`code` is minus the signal that killed it; `outcome` is that in words, `said` its last words, if any.

    `obstacle`: why it never ran, "" when nobody knows; None: it ran.
    """
    why = f": {said}" if said else ""
    logs = f"see `mountd logs {mount}`"
    if obstacle is not None:
        text = f"cannot start rclone{f': {obstacle}' if obstacle else why}"
        hint = (
            "the program, the interpreter or a library it needs is missing, or it may not be executed: install it anew"
        )
        return ExitCause("rclone-cannot-start", text, hint)
    # Before 1.69 a wrong flag ended it with 1 as well.
    if code == USAGE or (code == 1 and "unknown flag" in said):
        text = f"rclone refuses its command line ({outcome}){why}"
        hint = (
            f"correct the options of mount {mount} (`mountd config render` shows the command line), then run"
            f" `mountd reload`, or `mountd restart {mount}`"
        )
        return ExitCause("rclone-usage", text, hint, permanent=True)
    if code == 0:
        hint = f"it does so when somebody else unmounts it; {logs}"
        return ExitCause("rclone-exited", f"rclone ended by itself, without an error ({outcome})", hint)
    if code == KILL:
        hint = f"somebody killed it, or the kernel because memory ran out (`dmesg` tells); {logs}"
        return ExitCause("rclone-killed", f"rclone was killed ({outcome})", hint)
    if code < 0:
        return ExitCause("rclone-killed", f"rclone crashed or was killed ({outcome})", logs)
    if code in TERMINATED:
        text = f"rclone was told to end by somebody else ({TERMINATED[code]}, {outcome})"
        return ExitCause("rclone-exited", text, logs)
    hint = f"{logs}; `mountd config render` shows the command line"
    return ExitCause("rclone-exited", f"rclone ended with {outcome}{why}", hint)
