"""One task that keeps one service alive: a queue of events → `step` → actions."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Protocol

import structlog

from mountd.clock import now_text
from mountd.errors import CannotStart, Exhausted, MountdError, UsageError
from mountd.process.child import Child, Exit
from mountd.process.lifecycle import (
    Action,
    Condemned,
    Event,
    Exited,
    Life,
    Notice,
    Policy,
    RestartAsked,
    StartFailed,
    step,
)
from mountd.process.resources import of_the_machine
from mountd.process.steady import AGAIN, keep
from mountd.status.snapshot import State

log = structlog.get_logger()

QUEUE_EVENTS = 1000
"""Far more than ever wait; a full queue is a bug and ends the daemon."""
TICK_S = 10.0
"""A slow tick heals what a lost event would leave undone."""
BUG = "a bug in mountd"


# Decisions about what runs, not failures: outside the error tree, so that who expects failures lets them pass.
class MustReplace(Exception):
    """Raised by `Service.watch` and `Service.prepare_end`: what runs has to be killed. Its text is the cause."""


class ShouldRestart(Exception):
    """Raised by `Service.watch`: what runs is healthy, but must restart; it gets a graceful stop."""


class Service(Protocol):
    """What the supervisor needs to know of the thing that it keeps alive."""

    name: str
    kind: str
    stop_signal: signal.Signals

    @property
    def policy(self) -> Policy:
        """How patient its supervisor is now."""

    async def start(self, spawned: Callable[[Child], None]) -> None:
        """One attempt: returns when ready; calls `spawned` as soon as a child exists; raises MountdError."""

    async def watch(self) -> None:
        """Runs while it runs; raises MustReplace when it has to be replaced."""

    async def prepare_end(self) -> None:
        """What must be done before the stop signal; raises MustReplace when that would reach nobody.

        Cancelled when the child ends or the policy's `prepare_s` are over.
        """

    async def clean(self) -> None:
        """Removes what an ended child left; raises MountdError when that cannot be done now."""

    def explain_exit(self, exit_: Exit) -> Exited:
        """What this exit means."""

    def changed(self, life: Life, since: str, pid: int | None) -> None:
        """Publish the new life."""


class Supervisor:
    def __init__(self, service: Service, life: Life | None = None) -> None:
        self._service = service
        self.life = life or Life()
        self.since = now_text("seconds")
        self.child: Child | None = None
        self.on_bug: Callable[[str, BaseException], None]
        """set before `run`: is given each bug, so that mountd ends in order; until then the supervisor goes on"""
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_EVENTS)
        self._attempt: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Task[None]] = set()
        self._log = log.bind(**{service.kind: service.name})

    def post(self, event: Event) -> None:
        self._queue.put_nowait(event)

    async def run(self) -> None:
        """Until cancelled."""
        self._service.changed(self.life, self.since, None)
        try:
            while True:
                self._handle(await self._next())
        finally:
            for task in (self._attempt, self._watching, self._ending, *self._waiting):
                if task is not None:
                    task.cancel()

    async def _next(self) -> Event:
        wait_s = TICK_S
        if self.life.due is not None:
            wait_s = min(TICK_S, max(0.0, self.life.due - time.monotonic()))
        try:
            async with asyncio.timeout(wait_s):
                return await self._queue.get()
        except TimeoutError:
            return Notice.TICKED

    def _handle(self, event: Event) -> None:
        before = self.life
        self.life, actions = step(before, event, time.monotonic(), self._service.policy)
        if self.life.overdue and not before.overdue:
            name, grace_s = self._service.stop_signal.name, self._service.policy.grace_s
            self._log.warning("no exit after the stop signal: killing it", signal=name, grace_s=grace_s)
        if isinstance(event, Exited):
            self.child = None
            self._end_preparing()
        if self.life.state is not before.state:
            self.since = now_text("seconds")
            self._report(before)
        for action in actions:
            self._perform(action)
        if self.life.state is State.RUNNING and self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name=f"watch {self._service.name}")
        elif self.life.state is not State.RUNNING and self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if self.life != before:
            self._service.changed(self.life, self.since, self.child.pid if self.child else None)

    def _report(self, before: Life) -> None:
        keys: dict[str, object] = {"state": str(self.life.state), "prev_state": str(before.state)}
        if self.child is not None:
            keys["pid"] = self.child.pid
        if self.life.cause:
            keys["cause"] = self.life.cause
        if self.life.state is State.BACKOFF and self.life.due is not None:
            keys["delay_s"] = round(max(0.0, self.life.due - time.monotonic()), 1)
            keys["attempt"] = self.life.failures
        bad = self.life.state in (State.BACKOFF, State.FAILED)
        (self._log.warning if bad else self._log.info)("state changed", **keys)

    def _perform(self, action: Action) -> None:
        match action:
            case Action.BEGIN:
                start = self._service.start(self._adopt)
                self._attempt = asyncio.create_task(start, name=f"start {self._service.name}")
                self._attempt.add_done_callback(self._attempt_ended)
            case Action.ABANDON:
                if self._attempt is not None:
                    self._attempt.cancel()
            case Action.TERMINATE:
                if self.child is not None:
                    self._ending = asyncio.create_task(self._end(self.child), name=f"end {self._service.name}")
            case Action.KILL:
                self._end_preparing()
                if self.child is not None:
                    self.child.signal(signal.SIGKILL)
            case Action.CLEAN:
                self._spawn_waiting(self._clean())

    def _spawn_waiting(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def _attempt_ended(self, attempt: asyncio.Task[None]) -> None:
        # A callback, not a wrapper: a task cancelled before its first step never runs a line of its own.
        if attempt.cancelled():
            self.post(Notice.ABANDONED)
            return
        match attempt.exception():
            case None:
                self.post(Notice.READY)
            case CannotStart() as error:
                self.post(StartFailed(error.text, retry_s=error.retry_s))
            case MountdError() as error:
                self.post(StartFailed(error.text, permanent=isinstance(error, UsageError)))
            case error:
                if (found := of_the_machine(error)) is None:
                    self.on_bug(self._service.name, error)
                self.post(StartFailed(found.text if found else f"{BUG}: {type(error).__name__}: {error}"))

    def _adopt(self, child: Child) -> None:
        self.child = child
        self.post(Notice.SPAWNED)
        self._spawn_waiting(self._await_exit(child))

    async def _await_exit(self, child: Child) -> None:
        ended = await child.wait()
        # An end that was brought about here is no cause: asked about it, the service would forget the one that it has.
        ending = Exited(str(ended), outside=True)
        if self.life.state in (State.STARTING, State.RUNNING):
            try:
                ending = self._service.explain_exit(ended)
            except Exception as error:  # a life that goes on without its child matters more than why that has ended
                self._log.error("cannot explain its exit", cause=f"{type(error).__name__}: {error}", exit=str(ended))
        self.post(ending)

    async def _watch(self) -> None:
        try:
            await keep(self._service.watch, self._cannot_watch)
        except MustReplace as error:
            self.post(Condemned(str(error)))
        except ShouldRestart as error:
            self.post(RestartAsked(str(error), by_itself=True))
        except Exception as error:
            self.on_bug(self._service.name, error)

    def _cannot_watch(self, lack: Exhausted | None) -> None:
        if lack is not None:
            self._log.warning("cannot watch it now", cause=lack.text, hint=lack.hint)

    async def _end(self, child: Child) -> None:
        try:
            async with asyncio.timeout(self._service.policy.prepare_s):
                await self._service.prepare_end()
            child.signal(self._service.stop_signal)
        except TimeoutError:
            child.signal(self._service.stop_signal)
        except MustReplace as error:
            self._log.warning("ended by force", cause=str(error))
            child.signal(signal.SIGKILL)
        except Exception as error:
            self._log.error("cannot prepare its end", cause=f"{type(error).__name__}: {error}")
            if not isinstance(error, MountdError) and of_the_machine(error) is None:
                self.on_bug(self._service.name, error)
            child.signal(self._service.stop_signal)
        self.post(Notice.SIGNALLED)

    def _end_preparing(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    async def _clean(self) -> None:
        failures = 0
        while True:
            try:
                await self._service.clean()
            except Exception as error:
                found = error if isinstance(error, MountdError) else of_the_machine(error)
                if found is None:
                    self.on_bug(self._service.name, error)
                    found = Exhausted(f"{BUG}: {type(error).__name__}: {error}", code="bug")
                self._log.warning("cannot clean yet", cause=found.text, hint=found.hint)
                failures += 1
                await asyncio.sleep(AGAIN.delay_s(failures))
            else:
                self.post(Notice.CLEANED)
                return
