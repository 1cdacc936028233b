"""How the app ended, or why it never ran → a code, a sentence and what to do; and its health."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from mountd.process import launch
from mountd.process.child import Exit, NotStarted
from mountd.process.lifecycle import Life
from mountd.status.snapshot import Health, Reason, State

DETACHED = "app-detached"
KILLED_BY = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that come from elsewhere: a person, or the kernel that is out of memory; others are of its own doing."""
BY_CUSTOM = {
    125: "; a container tool ends with 125 when it cannot start the container",
    126: "; a shell ends with 126 when a command in it cannot be executed",
    127: "; a shell ends with 127 when a command in it is not found, a program when a library is",
}
"""What the app's own exit codes may mean."""


def standing(name: str, life: Life, failure: Reason | None) -> tuple[Health, Reason | None]:
    """Its health and the reason for it; `failure`: what is known of its last end."""
    if life.state is State.RUNNING:
        return Health.HEALTHY, None
    if life.state is State.BACKOFF and not (life.crashed or life.failures):
        return Health.PROGRESSING, None  # it waits for what it needs, and `readiness.blockers` says for what
    if life.state is State.FAILED:
        remedy = failure.hint if failure is not None and failure.code == DETACHED else "correct the cause"
        return Health.DEGRADED, Reason("app-failed", life.cause, "app", name, f"{remedy}, then: mountd restart {name}")
    if life.state is State.BACKOFF or life.failures:
        return Health.DEGRADED, failure or Reason("app-down", life.cause or f"{name} is down", "app", name)
    return Health.PROGRESSING, None


def last_crash(life: Life, failure: Reason | None, known: Reason | None) -> Reason | None:
    """Why it has to come back, until it runs again; `known`: the answer so far."""
    if life.state in (State.RUNNING, State.STOPPED):
        return None
    return failure if life.crashed else known


def is_from_outside(exit_: Exit) -> bool:
    """Whether somebody else has ended it."""
    return -exit_.code in KILLED_BY


def explain(name: str, exit_: Exit, said: str, out_of_memory: bool = False) -> Reason:
    """`said`: its last line, if any. `out_of_memory`: the kernel has ended something of it."""
    if exit_.not_started is not None:
        return _not_started(name, exit_.not_started)
    if out_of_memory and exit_.code == -signal.SIGKILL:
        text = f"{name} was ended by the kernel: its memory, or the machine's, is used up"
        return Reason("app-out-of-memory", text, "app", name, f"see apps.{name}.limits.memory, and what else runs here")
    code = "app-killed" if is_from_outside(exit_) else "app-exited"
    hint = f"see `mountd logs {name}`" + BY_CUSTOM.get(exit_.code, "")
    return Reason(code, f"{name} ended with {exit_}{f': {said}' if said else ''}", "app", name, hint)


def cannot_stop(name: str, pid: int | None) -> str:
    """Of a stop that takes too long; `pid`: of its process, None when that has ended."""
    if pid is None:
        return f"cannot stop {name}: its process has ended, but what it has left is still being looked for"
    return f"cannot stop {name}: it is stuck in the kernel (pid {pid})"


def ignored(name: str, signal_name: str, grace_s: float) -> str:
    """What a stop has to say of an app that went on."""
    return f"{name} was killed: it ignored {signal_name} for {grace_s:g} s (apps.{name}.stop)"


def detached(name: str, left: Sequence[str]) -> Reason:
    """It has ended without an error, and what it had started, `PID COMMAND` of each, went on until mountd ended it."""
    pid, _, command = left[0].partition(" ")
    text = f"{name} has detached from mountd: it ended with exit code 0 and left {command} (pid {pid}) running"
    hint = "run it in the foreground: no &, nohup, setsid or --daemon; a script should `exec` the program at its end"
    return Reason(DETACHED, text, "app", name, hint)


def behind_a_remount(name: str) -> Reason:
    text = f"{name} still has files open of a mount that was replaced: they are dead"
    return Reason("app-behind-remount", text, "app", name, f"mountd restart {name}")


def _not_started(name: str, failure: NotStarted) -> Reason:
    code, hint = "app-cannot-execute", "see that it is a program and that the app's user may execute it"
    match failure.step:
        case launch.MISSING:
            code = "app-command-not-found"
            hint = f"set apps.{name}.command to a program on PATH, or to an absolute path"
        case launch.INTERPRETER:
            hint = "correct its first line (#!…); one that ends in CR LF, as on Windows, names no interpreter"
        case launch.DIRECTORY:
            hint = f"see that apps.{name}.directory exists and that the app's user may enter it"
        case launch.USER:
            hint = f"see apps.{name}.user, and that mountd may change users (CAP_SETUID and CAP_SETGID)"
    return Reason(code, f"cannot start {name}: {failure}", "app", name, hint)
