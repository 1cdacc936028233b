"""How an app ended, in words: what mountd's launcher has to say, and what are the app's own words."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from mountd.app.app import App
from mountd.app.exits import cannot_stop, detached, explain, standing
from mountd.daemon.secret_files import SecretFiles
from mountd.process import launch
from mountd.process.child import Exit, NotStarted
from mountd.process.instance import Instance
from mountd.process.lifecycle import Life
from mountd.settings.load import Places, parse
from mountd.status.board import Board
from mountd.status.snapshot import Health, State

TEXT = """
remotes: {s: {type: s3, endpoint: "http://x"}}
mounts: {m: {remote: "s:b", path: /m}}
apps: {webui: {command: [sleep]}}
"""


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


@pytest.mark.parametrize("number", [each for each in signal.Signals if each.name not in ("SIGCHLD", "SIGCONT")])
def test_a_crash_is_its_own_doing(number: signal.Signals, tmp_path: Path) -> None:
    """So that each start of an app that keeps crashing counts for the limit of starts."""
    settings = parse(TEXT, "test.yaml", Places(tmp_path, tmp_path, tmp_path)).settings
    instance = Instance.of(tmp_path, tmp_path)
    app = App("webui", settings, instance=instance, board=Board(), read_secrets=SecretFiles(list).read)
    assert app.explain_exit(Exit(-number)).outside is (number.name in {"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"})


def test_what_fails_in_an_operation_stays_down_until_the_last_one_ends(tmp_path: Path) -> None:
    settings = parse(TEXT, "test.yaml", Places(tmp_path, tmp_path, tmp_path)).settings
    instance = Instance.of(tmp_path, tmp_path)
    app = App("webui", settings, instance=instance, board=Board(), read_secrets=SecretFiles(list).read)
    seen = [app.policy.retry]
    with app.held():
        with app.held():
            seen.append(app.policy.retry)
        seen.append(app.policy.retry)
    seen.append(app.policy.retry)
    assert seen == [True, False, False, True]


@pytest.mark.parametrize(("pid", "says"), [(7, "it is stuck in the kernel (pid 7)"), (None, "its process has ended")])
def test_a_stop_that_takes_too_long(pid: int | None, says: str) -> None:
    assert cannot_stop("webui", pid).startswith(f"cannot stop webui: {says}")


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
    reason = explain("webui", Exit(127, NotStarted(step, "why")), "of a previous run")
    assert (reason.code, reason.text) == (code, "cannot start webui: why")
    assert hint in reason.hint


def test_one_that_detached_until_it_was_given_up() -> None:
    failure = detached("webui", ["12 python", "13 sh"])
    assert failure.code == "app-detached"
    assert "python (pid 12)" in failure.text
    life = Life(State.FAILED, cause="it ended with exit code 0; it has failed 6 times in 10 minutes")
    health, reason = standing("webui", life, failure)
    assert reason is not None
    assert (health, reason.code, reason.text) == (Health.DEGRADED, "app-failed", life.cause)
    assert "in the foreground" in reason.hint
    assert reason.hint.endswith("then: mountd restart webui")


@pytest.mark.parametrize(
    ("life", "health", "code"),
    [
        (Life(State.RUNNING), Health.HEALTHY, None),
        (Life(State.STARTING), Health.PROGRESSING, None),
        (Life(State.BACKOFF), Health.PROGRESSING, None),  # it waits for what it needs
        (Life(State.BACKOFF, crashed=True), Health.DEGRADED, "app-exited"),
        (Life(State.BACKOFF, failures=1), Health.DEGRADED, "app-exited"),
        (Life(State.STARTING, failures=1), Health.DEGRADED, "app-exited"),
        (Life(State.FAILED, cause="x"), Health.DEGRADED, "app-failed"),
    ],
)
def test_its_health(life: Life, health: Health, code: str | None) -> None:
    found, reason = standing("webui", life, explain("webui", Exit(1), ""))
    assert (found, reason and reason.code) == (health, code)
