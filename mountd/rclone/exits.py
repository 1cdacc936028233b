"""How rclone exited → a code, a sentence, what to do, and whether a restart can help."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from mountd.rclone.failures import classify
from mountd.rclone.log import LogEvent

OUTPUT_CHARACTERS = 500
RECENT_S = 5.0
"""What it logged longer before its exit is not the cause."""
ERRORS_KEPT = 3
HELPER = "mount helper error: "
"""The prefix of what fusermount prints, which rclone logs as a notice."""

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
    """What rclone printed before its exit and may be the cause: its last errors, as the last one alone often has no
    cause in it; else its last line that is not of its log. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._errors: deque[tuple[float, str]] = deque(maxlen=ERRORS_KEPT)
        self._plain = ""

    def add(self, event: LogEvent, now: float, *, logged: bool) -> None:
        """`logged`: the line is of rclone's log."""
        text = event.text[:OUTPUT_CHARACTERS]
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
        recent = [text for at, text in self._errors if now - at <= RECENT_S]
        return "; before that: ".join(reversed(recent))[: 2 * OUTPUT_CHARACTERS]


def refusal(output: str) -> str:
    """What fusermount printed when it would not mount, "" when that is not why rclone exited."""
    before, found, words = output.partition(HELPER)
    return words.partition("; before that: ")[0].strip() if found and "failed to mount" in before else ""


def explain_crash(cause: str, outcome: str, mount: str) -> ExitCause:
    """A Go program without the memory or threads it needs exits like one with a bug."""
    lack = classify(cause)
    if lack.code in LACKS:
        return ExitCause(lack.code, f"rclone exited ({outcome}): {lack.text}", lack.hint)
    text = f"rclone exited ({outcome})" + (f": {cause}" if cause else "")
    return ExitCause("rclone-crashed", text, f"see `mountd logs {mount}`")


def explain(code: int, outcome: str, output: str, mount: str, *, obstacle: str | None = None) -> ExitCause:
    """`code` is minus the signal that killed it; `outcome` is that in words, `output` its LastOutput.

    `obstacle`: why it never ran, "" when that is unknown; None: it ran.
    """
    why = f": {output}" if output else ""
    logs = f"see `mountd logs {mount}`"
    if obstacle is not None:
        text = f"cannot start rclone{f': {obstacle}' if obstacle else why}"
        hint = (
            "the program, the interpreter or a library it needs is missing, or it may not be executed: install it again"
        )
        return ExitCause("rclone-cannot-start", text, hint)
    # 1.68 exits with 1 after a wrong flag, too.
    if code == USAGE or (code == 1 and "unknown flag" in output):
        text = f"rclone refuses its command line ({outcome}){why}"
        hint = (
            f"correct the options of mount {mount} (`mountd config render` shows the command line), then run"
            f" `mountd reload`, or `mountd restart {mount}`"
        )
        return ExitCause("rclone-usage", text, hint, permanent=True)
    if code == 0:
        hint = f"it does so when another program unmounts it; {logs}"
        return ExitCause("rclone-exited", f"rclone exited by itself, without an error ({outcome})", hint)
    if code == KILL:
        hint = f"another process killed it, or the kernel as memory ran out (see `dmesg`); {logs}"
        return ExitCause("rclone-killed", f"rclone was killed ({outcome})", hint)
    if code < 0:
        return ExitCause("rclone-killed", f"rclone crashed or was killed ({outcome})", logs)
    if code in TERMINATED:
        text = f"another process stopped rclone ({TERMINATED[code]}, {outcome})"
        return ExitCause("rclone-exited", text, logs)
    hint = f"{logs}; `mountd config render` shows the command line"
    return ExitCause("rclone-exited", f"rclone exited ({outcome}){why}", hint)
