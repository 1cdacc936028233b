"""A shell script under a supervisor: its signals, what became of it, and a stop that leaves no child."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mountd.errors import CannotStart, MountdError
from mountd.process.child import Child, Exit, spawn
from mountd.process.lifecycle import Backoff, Event, Exited, Life, Notice, Policy
from mountd.process.supervisor import Supervisor
from mountd.status.snapshot import State

SOON_S = 30.0
POLICY = Policy(grace_s=0.4, backoff=Backoff(0.05, 2.0, 0.2))
READY = "echo ready; exec sleep 60"
STUBBORN = "trap '' TERM INT; echo ready; while :; do sleep 0.05; done"
LOADING = "exec sleep 60"


@dataclass
class Program:
    """A service around `/bin/sh -c script`: ready when it says so."""

    script: str = READY
    policy: Policy = POLICY
    ready_s: float = SOON_S
    refusals: int = 0
    """how many cleanings fail"""
    preparing: asyncio.Future[None] | None = None
    """what its stop signal waits for"""
    before_spawn: Callable[[], None] = lambda: None
    before_explain: Callable[[], None] = lambda: None
    name: str = "program"
    kind: str = "app"
    stop_signal: signal.Signals = signal.SIGTERM
    children: list[Child] = field(default_factory=list)
    began: list[float] = field(default_factory=list)
    """when each of them was there, monotonic"""
    states: list[State] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    pid: int | None = None
    cleaned: int = 0
    watched: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def start(self, spawned: Callable[[Child], None]) -> None:
        self.before_spawn()
        assert all(child.exit for child in self.children), "two children"
        ready = asyncio.Event()
        argv = ["/bin/sh", "-c", self.script]
        child = spawn(argv, {"PATH": os.environ["PATH"]}, lambda line: ready.set() if line == "ready" else None)
        self.children.append(child)
        self.began.append(time.monotonic())
        spawned(child)
        try:
            async with asyncio.timeout(self.ready_s):
                await ready.wait()
        except TimeoutError:
            raise CannotStart("it is not ready") from None

    async def watch(self) -> None:
        try:
            await asyncio.shield(self.watched)
        finally:
            if self.watched.done():  # it is about this life only
                self.watched = asyncio.get_running_loop().create_future()

    async def prepare_end(self) -> None:
        if self.preparing is not None:
            await self.preparing

    async def clean(self) -> None:
        assert all(child.exit for child in self.children), "cleaned under a child that runs"
        self.cleaned += 1
        if self.refusals:
            self.refusals -= 1
            raise MountdError("cannot clean: busy", hint="wait")
        for child in self.children:
            child.signal(signal.SIGKILL)
            child.release()

    def explain_exit(self, exit_: Exit) -> Exited:
        self.before_explain()
        return Exited(f"it ended with {exit_}", permanent=exit_.code == 2, outside=exit_.code < 0)

    def changed(self, life: Life, since: str, pid: int | None) -> None:
        assert since.endswith("Z")
        if not self.states or life.state is not self.states[-1]:
            self.states.append(life.state)
        self.lives.append(life)
        self.pid = pid


class Run:
    """A supervisor that runs, and the end of it."""

    def __init__(self, program: Program, life: Life | None = None) -> None:
        self.program = program
        self.supervisor = Supervisor(program, life)
        self.bugs: list[BaseException] = []
        self.supervisor.on_bug = lambda _, error: self.bugs.append(error)
        self.task = asyncio.create_task(self.supervisor.run())

    @property
    def life(self) -> Life:
        return self.supervisor.life

    def post(self, *events: Event) -> None:
        for event in events:
            self.supervisor.post(event)

    async def until(self, condition: Callable[[], object], what: str, timeout_s: float = SOON_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.bugs:
                raise self.bugs[0]
            assert not self.task.done()
            assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}; {self.program.states}"
            await asyncio.sleep(0.005)

    async def until_state(self, state: State) -> None:
        await self.until(lambda: self.life.state is state, str(state))

    async def until_children(self, count: int) -> None:
        await self.until(lambda: len(self.program.children) >= count, f"{count} children")

    async def until_crashes(self, count: int) -> None:
        await self.until(lambda: len(self.life.crashes) == count, f"crash {count} to be seen")

    async def start(self) -> int:
        self.post(Notice.WANTED)
        await self.until_state(State.RUNNING)
        assert self.program.pid is not None
        return self.program.pid

    async def close(self) -> None:
        self.task.cancel()
        with contextlib.suppress(BaseException):
            await self.task
        for child in self.program.children:
            child.signal(signal.SIGKILL)
            await child.wait()
            child.release()


Make = Callable[..., Run]


@asynccontextmanager
async def making() -> AsyncIterator[Make]:
    """Makes runs of a program; all of them end with the block."""
    runs: list[Run] = []

    def made(policy: Policy = POLICY, life: Life | None = None, **program: Any) -> Run:
        runs.append(Run(Program(policy=policy, **program), life))
        return runs[-1]

    yield made
    for run in runs:
        await run.close()


def kill(child: Child) -> None:
    os.kill(child.pid, signal.SIGKILL)
