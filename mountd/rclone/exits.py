"""How rclone ended → a code, a sentence, what to do, and whether trying again is of any use."""

from __future__ import annotations

from dataclasses import dataclass

USAGE = 2
CANNOT_EXECUTE, NOT_FOUND = 126, 127
"""So does the loader of a program end that lacks a library."""
TERMINATED = {130: "SIGINT", 143: "SIGTERM"}
KILL = -9


@dataclass(frozen=True, slots=True)
class Explained:
    code: str
    text: str
    hint: str
    permanent: bool = False
    """a usage error: the same command line fails again"""


def explain(code: int, outcome: str, said: str, mount: str, *, not_started: str = "") -> Explained:
    """`code` is minus the signal that killed it; `outcome` is that in words, `said` its last words, if any.

    `not_started`: why it never ran.
    """
    why = f": {said}" if said else ""
    logs = f"see `mountd logs {mount}`"
    if not_started or code in (CANNOT_EXECUTE, NOT_FOUND):
        text = f"cannot start rclone{f': {not_started}' if not_started else why}"
        hint = (
            "the program, the interpreter or a library it needs is missing, or it may not be executed: install it anew"
        )
        return Explained("rclone-cannot-start", text, hint)
    # Before 1.69 a wrong flag ended it with 1 as well.
    if code == USAGE or (code == 1 and "unknown flag" in said):
        text = f"rclone refuses its command line ({outcome}){why}"
        hint = (
            f"correct the options of mount {mount} (`mountd config render` shows the command line), then run"
            f" `mountd reload`, or `mountd restart {mount}`"
        )
        return Explained("rclone-usage", text, hint, permanent=True)
    if code == 0:
        hint = f"it does so when somebody else unmounts it; {logs}"
        return Explained("rclone-exited", f"rclone ended by itself, without an error ({outcome})", hint)
    if code == KILL:
        hint = f"somebody killed it, or the kernel because memory ran out (`dmesg` tells); {logs}"
        return Explained("rclone-killed", f"rclone was killed ({outcome})", hint)
    if code < 0:
        return Explained("rclone-killed", f"rclone crashed or was killed ({outcome})", logs)
    if code in TERMINATED:
        text = f"rclone was told to end by somebody else ({TERMINATED[code]}, {outcome})"
        return Explained("rclone-exited", text, logs)
    hint = f"{logs}; `mountd config render` shows the command line"
    return Explained("rclone-exited", f"rclone ended with {outcome}{why}", hint)
