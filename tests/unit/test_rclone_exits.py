"""How rclone exited: each way has its code, the commands that its hint names, and rclone's own text."""

from __future__ import annotations

import re

import pytest

from mountd.process.child import Exit, NotStarted
from mountd.process.launch import MISSING
from mountd.rclone.exits import ERRORS_KEPT, OUTPUT_CHARACTERS, RECENT_S, LastOutput, explain, explain_crash
from mountd.rclone.log import LogEvent

LOGS, RENDER = "mountd logs hub", "mountd config render"


@pytest.mark.parametrize(
    ("code", "said", "found", "quoted", "commands"),
    [
        (0, "no bucket", "rclone-exited", False, [LOGS]),
        (1, "no bucket", "rclone-exited", True, [LOGS, RENDER]),
        (1, "", "rclone-exited", False, [LOGS, RENDER]),
        (1, "Fatal error: unknown flag: --x", "rclone-usage", True, [RENDER, "mountd reload", "mountd restart hub"]),
        (2, "Fatal error: bad", "rclone-usage", True, [RENDER, "mountd reload", "mountd restart hub"]),
        (127, "rclone: error while loading shared libraries: libc", "rclone-cannot-start", True, []),
        (127, "", "rclone-cannot-start", False, []),
        (126, "", "rclone-cannot-start", False, []),
        (130, "no bucket", "rclone-exited", False, [LOGS]),
        (143, "no bucket", "rclone-exited", False, [LOGS]),
        (-9, "no bucket", "rclone-killed", False, ["dmesg", LOGS]),
        (-11, "no bucket", "rclone-killed", False, [LOGS]),
    ],
)
def test_exits(code: int, said: str, found: str, quoted: bool, commands: list[str]) -> None:
    explained = explain(code, "…", said, "hub", obstacle=Exit(code).obstacle)
    assert (explained.code, explained.permanent) == (found, found == "rclone-usage")
    assert (bool(said) and said in explained.text) is quoted
    assert ("…" in explained.text) is (found != "rclone-cannot-start"), "how it exited"
    assert ("SIGTERM" in explained.text) is (code == 143)
    assert ("SIGINT" in explained.text) is (code == 130)
    assert re.findall("`([^`]+)`", explained.hint) == commands
    assert explained.hint


def test_one_that_never_ran() -> None:
    explained = explain(127, "…", "of a previous run", "hub", obstacle="cannot execute /x/rclone: permission denied")
    assert explained.code == "rclone-cannot-start"
    assert explained.text.endswith(": cannot execute /x/rclone: permission denied")
    assert "of a previous run" not in explained.text
    assert explained.hint


@pytest.mark.parametrize(
    ("exit_", "obstacle"),
    [
        (Exit(0), None),
        (Exit(125), None),
        (Exit(126), ""),
        (Exit(127), ""),
        (Exit(-9), None),
        (Exit(127, NotStarted(MISSING, "command not found: rclone")), "command not found: rclone"),
    ],
)
def test_whether_it_ever_ran(exit_: Exit, obstacle: str | None) -> None:
    assert exit_.obstacle == obstacle


def words(*said: tuple[str, str, float]) -> LastOutput:
    """(level, text, at); the level "plain" is a line that is not of rclone's log."""
    last = LastOutput()
    for level, text, at in said:
        last.add(LogEvent("info" if level == "plain" else level, text), at, logged=level != "plain")
    return last


THEN = "; before that: "
"""Between what rclone printed last and what it printed before; `refusal` looks for it, too."""
FATAL = ("error", "Fatal error: failed to mount FUSE fs: fusermount: exit status 1", 1.0)


def test_the_error_just_before_the_last_one_is_shown_as_well() -> None:
    helper = ("info", "mount helper error: fusermount3: mount failed: Operation not permitted", 0.9)
    found = words(("info", "poll-interval is not supported", 0.5), helper, FATAL).text(1.1)
    assert found.split(THEN) == [FATAL[1], helper[1]]


def test_a_repeated_error_is_kept_once_with_the_time_of_its_last_repetition() -> None:
    text = "-o/--option not supported"
    first, last = ("error", text, FATAL[2] - RECENT_S - 1), ("error", text, 0.9)
    assert words(first, last, FATAL).text(1.1).split(THEN) == [FATAL[1], text]
    others = [("error", f"object {number}: 404", 0.5) for number in range(ERRORS_KEPT - 1)]
    assert words(first, *others, last, FATAL).text(1.1).split(THEN)[:2] == [FATAL[1], text]


def test_what_was_logged_long_before_the_exit_is_not_why() -> None:
    old = ("error", "object x: 404", 1.0 - RECENT_S)
    assert words(old, FATAL).text(1.1) == FATAL[1]
    assert words(FATAL).text(2 + RECENT_S) == ""


def test_a_line_that_is_not_of_its_log_counts_only_without_an_error() -> None:
    plain = ("plain", "env: '/x/rclone': Permission denied", 0.0)
    assert words(plain, ("info", "mounting", 0.5)).text(100.0) == plain[1]
    assert words(plain, FATAL).text(1.1) == FATAL[1]
    assert words().text(0.0) == ""


def test_the_last_output_is_bounded() -> None:
    said = words(*(("error", f"{number} " + "x" * 10_000, 1.0) for number in range(1000)))
    assert len(said.text(1.0)) <= 2 * OUTPUT_CHARACTERS


@pytest.mark.parametrize(
    ("cause", "code", "command"),
    [
        ("fatal error: newosproc", "no-processes", ""),
        ("fatal error: runtime: out of memory", "no-memory", ""),
        ("panic: open /x: too many open files", "no-descriptors", ""),
        ("panic: assignment to entry in nil map", "rclone-crashed", LOGS),
        ("", "rclone-crashed", LOGS),
    ],
)
def test_a_crash_for_want_of_something_is_no_bug_of_rclone(cause: str, code: str, command: str) -> None:
    explained = explain_crash(cause, "exit code 2", "hub")
    assert (explained.code, explained.permanent) == (code, False)
    assert "exit code 2" in explained.text
    assert cause in explained.text
    assert (command in explained.hint, bool(explained.hint)) == (True, True)
