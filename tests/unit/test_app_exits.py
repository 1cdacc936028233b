"""How an app ended, in words: what mountd's launcher has to say, and what are the app's own words."""

from __future__ import annotations

import pytest

from mountd.app.exits import explain
from mountd.process import launch
from mountd.process.child import Exit, NotStarted


@pytest.mark.parametrize(
    ("exit_", "code", "text", "hint"),
    [
        (Exit(0), "app-exited", "webui ended with exit code 0: last words", "mountd logs webui"),
        (Exit(125), "app-exited", "webui ended with exit code 125: last words", "container"),
        (Exit(126), "app-exited", "webui ended with exit code 126: last words", "cannot be executed"),
        (Exit(127), "app-exited", "webui ended with exit code 127: last words", "not found"),
        (Exit(-9), "app-killed", "webui ended with signal SIGKILL: last words", "mountd logs webui"),
        (Exit(-11), "app-exited", "webui ended with signal SIGSEGV: last words", "mountd logs webui"),
    ],
)
def test_one_that_ran(exit_: Exit, code: str, text: str, hint: str) -> None:
    reason = explain("webui", exit_, "last words")
    assert (reason.code, reason.text, reason.object) == (code, text, "webui")
    assert hint in reason.hint


@pytest.mark.parametrize(
    ("step", "code", "hint"),
    [
        (launch.MISSING, "app-command-not-found", "apps.webui.command"),
        (launch.PROGRAM, "app-cannot-execute", "may execute it"),
        (launch.INTERPRETER, "app-cannot-execute", "first line"),
        (launch.DIRECTORY, "app-cannot-execute", "apps.webui.directory"),
        (launch.USER, "app-cannot-execute", "apps.webui.user"),
    ],
)
def test_one_that_never_ran(step: str, code: str, hint: str) -> None:
    reason = explain("webui", Exit(127, NotStarted(step, "why")), "of a former life")
    assert (reason.code, reason.text) == (code, "cannot start webui: why")
    assert hint in reason.hint
