"""How an app ended: each way has its code, what its hint names, and the app's own last line."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from mountd.app.app import App
from mountd.app.exits import BY_CUSTOM, cannot_stop, detached, explain, standing
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


@pytest.mark.parametrize(("code", "found"), [(-9, "app-out-of-memory"), (1, "app-exited"), (-15, "app-killed")])
def test_one_that_the_kernel_ended_for_want_of_memory(code: int, found: str) -> None:
    """Only a SIGKILL is the kernel's: before, it may have ended a child that the app got over."""
    reason = explain("webui", Exit(code), "", True)
    assert reason.code == found
    assert reason.hint


@pytest.mark.parametrize(
    ("exit_", "code", "named", "customs"),
    [
        (Exit(0), "app-exited", "code 0", []),
        (Exit(125), "app-exited", "code 125", [125]),
        (Exit(126), "app-exited", "code 126", [126]),
        (Exit(127), "app-exited", "code 127", [127]),
        (Exit(-9), "app-killed", "SIGKILL", []),
        (Exit(-11), "app-exited", "SIGSEGV", []),
    ],
)
def test_one_that_ran(exit_: Exit, code: str, named: str, customs: list[int]) -> None:
    reason = explain("webui", exit_, "last words")
    assert (reason.code, reason.object) == (code, "webui")
    assert reason.text.endswith(f" {named}: last words")
    assert "`mountd logs webui`" in reason.hint
    assert [number for number, meaning in BY_CUSTOM.items() if meaning in reason.hint] == customs


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


def test_a_stop_that_takes_too_long() -> None:
    stuck, ended = cannot_stop("webui", 7), cannot_stop("webui", None)
    assert ("webui" in stuck, "webui" in ended) == (True, True)
    assert ("(pid 7)" in stuck, "pid" in ended) == (True, False)


@pytest.mark.parametrize(
    ("step", "code", "hint"),
    [
        (launch.MISSING, "app-command-not-found", "apps.webui.command"),
        (launch.PROGRAM, "app-cannot-execute", "program"),
        (launch.INTERPRETER, "app-cannot-execute", "#!"),
        (launch.DIRECTORY, "app-cannot-execute", "apps.webui.directory"),
        (launch.USER, "app-cannot-execute", "apps.webui.user"),
    ],
)
def test_one_that_never_ran(step: str, code: str, hint: str) -> None:
    reason = explain("webui", Exit(127, NotStarted(step, "why")), "of a previous run")
    assert (reason.code, reason.object) == (code, "webui")
    assert reason.text.endswith("webui: why")
    assert hint in reason.hint


def test_one_that_detached_until_it_was_given_up() -> None:
    failure = detached("webui", ["12 python", "13 sh"])
    assert failure.code == "app-detached"
    assert [word in failure.text for word in ("python", "pid 12", "sh ")] == [True, True, False]
    assert "nohup" in failure.hint
    life = Life(State.FAILED, cause="it ended with exit code 0; it has failed 6 times in 10 minutes")
    health, reason = standing("webui", life, failure)
    assert reason is not None
    assert (health, reason.code, reason.text) == (Health.DEGRADED, "app-failed", life.cause)
    assert reason.hint.startswith(failure.hint)
    assert reason.hint.endswith(": mountd restart webui")


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
