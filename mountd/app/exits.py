"""How the app ended, or why it never ran → a code, a sentence and what to do."""

from __future__ import annotations

import signal

from mountd.process import launch
from mountd.process.child import Exit, NotStarted
from mountd.status.snapshot import Reason

KILLED_BY = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that come from elsewhere: a person, or the kernel that is out of memory; others are of its own doing."""
BY_CUSTOM = {
    125: "; a container tool ends with 125 when it cannot start the container",
    126: "; a shell ends with 126 when a command in it cannot be executed",
    127: "; a shell ends with 127 when a command in it is not found, a program when a library is",
}
"""What the app's own exit codes may mean."""


def explain(name: str, exit_: Exit, said: str) -> Reason:
    """`said`: its last line, if any."""
    if exit_.not_started is not None:
        return _not_started(name, exit_.not_started)
    code = "app-killed" if -exit_.code in KILLED_BY else "app-exited"
    hint = f"see `mountd logs {name}`" + BY_CUSTOM.get(exit_.code, "")
    return Reason(code, f"{name} ended with {exit_}{f': {said}' if said else ''}", "app", name, hint)


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
