"""Stops an app until it is started again, starts it, or sends it a signal, on request; each with who and why."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Protocol

import structlog

from mountd.errors import Busy, MountdError, NotFound, Refused, UsageError, cause_of
from mountd.journal.journal import Journal
from mountd.operation.results import report_event
from mountd.operation.switch import Operations
from mountd.process.lifecycle import Notice, RestartAsked
from mountd.process.supervisor import Supervisor
from mountd.settings.schema import AppSettings
from mountd.status.board import Board
from mountd.status.snapshot import State
from mountd.text import did_you_mean

log = structlog.get_logger()

SIGNALS = ("HUP", "INT", "QUIT", "ABRT", "USR1", "USR2", "TERM", "KILL", "WINCH")
"""Those that programs expect. None that stops a process for a while: mountd could not tell that from a hang."""
RUNS = (State.STARTING, State.RUNNING)


class ControlledApp(Protocol):
    @property
    def settings(self) -> AppSettings: ...
    @property
    def state(self) -> State: ...
    @property
    def supervisor(self) -> Supervisor: ...
    def set_stopped(self, who: str | None) -> None: ...
    def want(self) -> None: ...


class AppControl:
    """Each method returns at once, and raises NotFound for a name that is no app."""

    def __init__(
        self, apps: Mapping[str, ControlledApp], operations: Operations, board: Board, journal: Journal
    ) -> None:
        self._apps = apps
        self._operations = operations
        self._board = board
        self._journal = journal

    def is_stopped(self, name: str) -> bool:
        """Whether a person has stopped this app; False for a mount."""
        return name in self._apps and self._board.snapshot.apps[name].stopped is not None

    async def stop(self, name: str, *, operator: str, reason: str = "") -> bool:
        """Until `start`, or until mountd itself is restarted, nothing starts it. False: it was stopped already.

        Raises Busy while an operation that may start or stop it runs.
        """
        app = self._app(name, "stop")
        self._operations.check_app_free(f"stop {name}", name, app.settings.needs)
        if self.is_stopped(name):
            return False
        app.set_stopped(who(operator, reason))
        app.supervisor.post(Notice.UNWANTED)
        await self._report("app-stop-asked", name, f"{name} is stopped by {who(operator, reason)}", operator)
        return True

    async def start(self, name: str, *, operator: str, reason: str = "") -> bool:
        """Also one that has failed or waits for its next try. False: it runs, and goes on.

        Raises Busy while an operation that may start or stop it runs, while a reload changes things, and while mountd
        stops.
        """
        app = self._app(name, "start")
        if self._board.snapshot.stopping:  # it would come back while its mount goes
            raise Busy(f"cannot start {name}: mountd is stopping", hint="start mountd", holder="a stop")
        self._operations.check_no_reload(f"start {name}")
        self._operations.check_app_free(f"start {name}", name, app.settings.needs)
        if app.state in RUNS and not self.is_stopped(name):
            return False
        app.set_stopped(None)
        app.want()
        if app.state is State.BACKOFF:  # else it would wait for its next try
            app.supervisor.post(RestartAsked(f"{operator} started it"))
        await self._report("app-start-asked", name, f"{name} is started by {who(operator, reason)}", operator)
        return True

    async def signal(self, name: str, signal_name: str, *, operator: str, reason: str = "") -> tuple[str, int]:
        """To the app's main process → the signal's name and that process.

        Raises UsageError for a signal that is not one of SIGNALS, Refused when no process of it runs, MountdError when
        the system does not let mountd send it.
        """
        app = self._app(name, "signal")
        short = signal_name.upper().removeprefix("SIG")
        if short not in SIGNALS:
            raise UsageError(f"cannot send {signal_name!r} to {name}", hint=f"signals: {', '.join(SIGNALS)}")
        number = signal.Signals[f"SIG{short}"]
        child = app.supervisor.child
        try:
            sent = child is not None and app.state in RUNS and child.signal_alone(number)
        except OSError as error:
            raise MountdError(f"cannot send {number.name} to {name}: {cause_of(error)}") from None
        if child is None or not sent:
            raise Refused(f"cannot send {number.name} to {name}: it is {app.state}", hint=f"mountd start {name}")
        text = f"{number.name} was sent to {name} (pid {child.pid}) by {who(operator, reason)}"
        await self._report("app-signalled", name, text, operator)
        return number.name, child.pid

    def _app(self, name: str, wanted: str) -> ControlledApp:
        if name not in self._apps:
            hint = f"{did_you_mean(name, self._apps)}apps: {', '.join(self._apps) or 'none'}"
            raise NotFound(f"cannot {wanted} {name!r}: no such app", hint=hint)
        return self._apps[name]

    async def _report(self, code: str, name: str, text: str, operator: str) -> None:
        log.info("app control requested", app=name, cause=text, operator=operator)
        await report_event(self._journal, code, name, text)


def who(operator: str, reason: str) -> str:
    words = " ".join(reason.split())
    return f"{operator}: {words}" if words else operator
