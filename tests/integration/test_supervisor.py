"""The supervisor around real children: they come up, go down, crash, hang and refuse to die; there are never two."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import pytest

from mountd.errors import CannotStart, MountdError
from mountd.process.backoff import Backoff
from mountd.process.child import Child, Exit, spawn
from mountd.process.lifecycle import (
    Allowed,
    Condemned,
    Event,
    Forbidden,
    Life,
    Policy,
    RestartAsked,
    Unwanted,
    Wanted,
)
from mountd.process.supervisor import Ending, MustReplace, Supervisor
from mountd.status.snapshot import State

SOON_S = 10.0
POLICY = Policy(grace_s=0.4, backoff=Backoff(0.05, 2.0, 0.2))
READY = "echo ready; exec sleep 60"
STUBBORN = "trap '' TERM INT; echo ready; while :; do sleep 0.05; done"
LOADING = "exec sleep 60"


@dataclass
class Program:
    """A service around `/bin/sh -c script`: ready when it says so."""

    script: str = READY
    ready_s: float = SOON_S
    refusals: int = 0
    """how many cleanings fail"""
    preparing: asyncio.Future[None] | None = None
    """what its polite signal waits for"""
    before_spawn: Callable[[], None] = lambda: None
    before_explain: Callable[[], None] = lambda: None
    name: str = "program"
    kind: str = "app"
    stop_signal: signal.Signals = signal.SIGTERM
    children: list[Child] = field(default_factory=list)
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

    def explain_exit(self, exit_: Exit) -> Ending:
        self.before_explain()
        return Ending(f"it ended with {exit_}", permanent=exit_.code == 2)

    def changed(self, life: Life, since: str, pid: int | None) -> None:
        assert since.endswith("Z")
        if not self.states or life.state is not self.states[-1]:
            self.states.append(life.state)
        self.lives.append(life)
        self.pid = pid


class Run:
    """A supervisor that runs, and the end of it."""

    def __init__(self, program: Program, policy: Policy = POLICY, life: Life | None = None) -> None:
        self.program = program
        self.supervisor = Supervisor(program, policy, life)
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
            if self.task.done() and self.task.exception():
                raise self.task.exception() or AssertionError
            assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}; {self.program.states}"
            await asyncio.sleep(0.005)

    async def until_state(self, state: State) -> None:
        await self.until(lambda: self.life.state is state, str(state))

    async def until_children(self, count: int) -> None:
        await self.until(lambda: len(self.program.children) >= count, f"{count} children")

    async def start(self) -> int:
        self.post(Wanted())
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


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    runs: list[Run] = []

    def made(policy: Policy = POLICY, life: Life | None = None, **program: object) -> Run:
        runs.append(Run(Program(**program), policy, life))  # type: ignore[arg-type]
        return runs[-1]

    yield made
    for run in runs:
        await run.close()


def kill(child: Child) -> None:
    os.kill(child.pid, signal.SIGKILL)


async def test_start_and_a_polite_stop(make: Make) -> None:
    run = make()
    pid = await run.start()
    assert pid == run.program.children[0].pid
    run.post(Unwanted())
    await run.until_state(State.STOPPED)
    assert run.program.children[0].exit == Exit(-signal.SIGTERM)
    assert run.program.pid is None
    states = [State.STOPPED, State.STARTING, State.RUNNING, State.STOPPING, State.CLEANING, State.STOPPED]
    assert run.program.states == states
    assert run.program.cleaned == 1


async def test_the_polite_signal_waits_for_what_comes_before_the_end(make: Make) -> None:
    run = make(policy=replace(POLICY, prepare_s=SOON_S))
    await run.start()
    run.program.preparing = asyncio.get_running_loop().create_future()
    run.post(Unwanted())
    await run.until_state(State.STOPPING)
    await asyncio.sleep(POLICY.grace_s * 1.5)  # the patience with the signal has not even begun
    assert run.program.children[0].exit is None
    run.program.preparing.set_result(None)
    await run.until_state(State.STOPPED)
    assert run.program.children[0].exit == Exit(-signal.SIGTERM)


async def test_a_preparation_that_takes_too_long_is_cut_short(make: Make) -> None:
    run = make(policy=replace(POLICY, prepare_s=0.2))
    await run.start()
    run.program.preparing = asyncio.get_running_loop().create_future()
    run.post(Unwanted())
    await run.until_state(State.STOPPED)
    assert run.program.children[0].exit == Exit(-signal.SIGTERM)
    assert run.program.preparing.cancelled()


async def test_what_a_signal_would_not_reach_is_killed(make: Make) -> None:
    run = make(policy=replace(POLICY, prepare_s=SOON_S), script=STUBBORN)
    await run.start()
    run.program.preparing = asyncio.get_running_loop().create_future()
    run.program.preparing.set_exception(MustReplace("it hangs"))
    run.post(Unwanted())
    await run.until_state(State.STOPPED)
    assert run.program.children[0].exit == Exit(-signal.SIGKILL)


async def test_a_child_that_ends_by_itself_ends_its_preparation(make: Make) -> None:
    run = make(policy=replace(POLICY, prepare_s=SOON_S))
    await run.start()
    run.program.preparing = asyncio.get_running_loop().create_future()
    run.post(RestartAsked("x"))
    await run.until_state(State.STOPPING)
    kill(run.program.children[0])
    await run.until_state(State.RUNNING)
    assert run.program.preparing.cancelled()


async def test_its_own_stop_signal_is_used(make: Make) -> None:
    run = make(script="trap 'exit 7' INT; trap '' TERM; echo ready; while :; do sleep 0.02; done")
    run.program.stop_signal = signal.SIGINT
    await run.start()
    run.post(Unwanted())
    await run.until_state(State.STOPPED)
    assert run.program.children[0].exit == Exit(7)


async def test_a_crash_is_restarted_at_once(make: Make) -> None:
    run = make()
    before = await run.start()
    kill(run.program.children[0])
    await run.until_children(2)
    await run.until_state(State.RUNNING)
    assert run.program.pid != before
    assert State.BACKOFF not in run.program.states
    assert any(life.cause == "it ended with signal SIGKILL" for life in run.program.lives)


async def test_starts_that_crash_wait_longer_and_longer(make: Make) -> None:
    run = make(script="exit 1")
    run.post(Wanted())
    await run.until_children(4)
    run.post(Unwanted())
    await run.until_state(State.STOPPED)
    begun = [child.started for child in run.program.children[:4]]
    waits = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert waits[0] >= 0.05
    assert waits[1] >= 0.10
    assert waits[2] >= 0.20


async def test_what_retrying_cannot_change_fails_until_a_restart_is_asked(make: Make) -> None:
    run = make(script="exit 2")
    run.post(Wanted())
    await run.until_state(State.FAILED)
    assert run.life.cause == "it ended with exit code 2"
    run.program.script = READY
    run.post(RestartAsked("mended"))
    await run.until_state(State.RUNNING)


async def test_too_many_crashes_fail(make: Make) -> None:
    run = make(Policy(grace_s=0.4, crash_limit=(2, 60.0)))
    run.post(Wanted())
    for count in (1, 2, 3):
        await run.until_children(count)
        await run.until_state(State.RUNNING)
        kill(run.program.children[-1])
        await run.until(lambda count=count: len(run.life.crashes) == count, "the crash to be seen")  # type: ignore[misc]
    await run.until_state(State.FAILED)
    assert len(run.program.children) == 3
    assert "failed 3 times" in run.life.cause


@pytest.mark.parametrize("script", [STUBBORN, STUBBORN.replace("echo ready; ", "")], ids=["running", "starting"])
async def test_one_that_ignores_the_polite_signal_is_killed_after_the_grace(make: Make, script: str) -> None:
    run = make(script=script)
    run.post(Wanted())
    await run.until_state(State.RUNNING if script == STUBBORN else State.STARTING)
    await run.until_children(1)
    await asyncio.sleep(0.1)  # a shell needs a moment to ignore it
    began = time.monotonic()
    run.post(Unwanted())
    await run.until_state(State.STOPPED)
    assert POLICY.grace_s <= time.monotonic() - began < SOON_S
    assert run.program.children[0].exit == Exit(-signal.SIGKILL)


async def test_a_start_that_hangs_is_abandoned(make: Make) -> None:
    run = make(script=LOADING)
    run.post(Wanted())
    await run.until_children(1)
    run.post(Unwanted())
    await run.until_state(State.STOPPED)
    assert run.program.children[0].exit == Exit(-signal.SIGTERM)


async def test_a_start_abandoned_before_its_first_step(make: Make) -> None:
    run = make()
    run.post(Wanted(), Unwanted())
    await run.until(lambda: len(run.program.states) > 1 and run.life.state is State.STOPPED, "the end of it")
    assert all(child.exit for child in run.program.children)
    assert not run.life.attempting


async def test_a_start_that_is_not_ready_in_time_is_killed_and_tried_again(make: Make) -> None:
    run = make(script=STUBBORN.replace("echo ready; ", ""), ready_s=0.2)
    run.post(Wanted())
    await run.until_state(State.BACKOFF)
    assert run.life.cause == "it is not ready"
    assert run.program.children[0].exit == Exit(-signal.SIGKILL)
    run.program.script, run.program.ready_s = READY, SOON_S
    await run.until_state(State.RUNNING)
    assert run.life.failures == 0


async def test_a_start_that_cannot_even_spawn(make: Make) -> None:
    def refuse() -> None:
        raise CannotStart("its port is taken", retry_s=0.01)

    run = make(before_spawn=refuse)
    run.post(Wanted())
    await run.until_state(State.BACKOFF)
    assert run.life.cause == "its port is taken"
    run.program.before_spawn = lambda: None
    await run.until_state(State.RUNNING)


async def test_restart_and_what_must_be_replaced(make: Make) -> None:
    run = make(script=STUBBORN, policy=Policy(grace_s=30.0))
    await run.start()
    run.program.watched.set_exception(MustReplace("it is hung"))
    await run.until_children(2)  # at once: nobody asks politely what is hung
    assert run.program.children[0].exit == Exit(-signal.SIGKILL)
    await run.until_state(State.RUNNING)
    run.program.script = READY
    run.supervisor.policy = POLICY
    run.post(RestartAsked("tina asked"))
    await run.until_children(3)
    await run.until_state(State.RUNNING)


async def test_the_gate_keeps_from_starting_and_leaves_alone_what_runs(make: Make) -> None:
    run = make(life=Life(allowed=False))
    run.post(Wanted())
    await asyncio.sleep(0.1)
    assert run.program.children == []
    run.post(Allowed())
    await run.until_state(State.RUNNING)
    run.post(Forbidden())
    await asyncio.sleep(0.1)
    assert run.life.state is State.RUNNING
    kill(run.program.children[0])
    await run.until_state(State.BACKOFF)
    await asyncio.sleep(0.1)
    assert len(run.program.children) == 1
    run.post(Allowed())
    await run.until_state(State.RUNNING)


async def test_an_exit_that_nobody_can_explain_is_one_all_the_same(make: Make) -> None:
    def fail() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    run = make(before_explain=fail)
    await run.start()
    kill(run.program.children[0])
    await run.until_children(2)
    await run.until_state(State.RUNNING)
    assert any(life.cause == "signal SIGKILL" for life in run.program.lives)
    run.post(Unwanted())
    await run.until_state(State.STOPPED)


async def test_a_cleaning_that_fails_is_tried_again_before_the_next_start(make: Make) -> None:
    run = make(refusals=1)
    await run.start()
    kill(run.program.children[0])
    await run.until_state(State.CLEANING)
    await run.until(lambda: run.program.cleaned == 1, "the first cleaning")
    await asyncio.sleep(0.05)
    assert run.life.state is State.CLEANING
    assert len(run.program.children) == 1
    await run.until_state(State.RUNNING)
    assert run.program.cleaned == 2


@pytest.mark.parametrize("where", ["start", "watch", "clean"])
async def test_a_bug_in_the_service_ends_the_run(make: Make, where: str) -> None:
    run = make()

    def bug() -> None:
        raise ZeroDivisionError

    if where == "start":
        run.program.before_spawn = bug
        run.post(Wanted())
    else:
        await run.start()
    if where == "watch":
        run.program.watched.set_exception(ZeroDivisionError())
    if where == "clean":
        run.program.children[0].release = bug  # type: ignore[method-assign]
        run.post(Unwanted())
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(SOON_S):
            await run.task
    if where == "clean":
        del run.program.children[0].release


async def test_a_cancelled_run_leaves_no_task_behind(make: Make) -> None:
    before = asyncio.all_tasks()
    run, loading = make(), make(script=LOADING)
    await run.start()
    loading.post(Wanted())
    await loading.until_children(1)
    for one in (run, loading):
        await one.close()
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("seed", range(4))
async def test_never_two_children_whatever_happens(make: Make, seed: int) -> None:
    """`Program.start` and `clean` assert it; here they get the chance."""
    chance = random.Random(seed)
    run = make(Policy(grace_s=0.05, backoff=Backoff(0.01, 2.0, 0.02)))
    run.post(Wanted())
    scripts = [READY, READY, STUBBORN, LOADING, "exit 1", "echo ready; sleep 0.02"]
    for _ in range(60):
        run.program.script = chance.choice(scripts)
        match chance.randrange(6):
            case 0:
                run.post(Unwanted(), Wanted())
            case 1:
                run.post(RestartAsked("again"))
            case 2:
                run.post(Condemned("hung"))
            case 3:
                run.post(Forbidden(), Allowed())
            case 4 if run.program.children:
                run.program.children[-1].signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
            case _:
                run.post(Unwanted())
                run.post(Wanted())
        await asyncio.sleep(chance.choice([0, 0, 0.001, 0.01, 0.03]))
        assert not run.task.done(), run.task.exception()
    assert len(run.program.children) > 2
    run.post(Unwanted())
    await run.until_state(State.STOPPED)
    assert all(child.exit for child in run.program.children)
