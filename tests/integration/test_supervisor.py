"""The supervisor around real children: they come up, crash, hang and are tried again; there are never two."""

from __future__ import annotations

import asyncio
import errno
import itertools
import random
import signal
from collections.abc import AsyncIterator

import pytest

from mountd.errors import CannotStart, MountdError
from mountd.process import lifecycle
from mountd.process.child import Exit
from mountd.process.lifecycle import Backoff, Condemned, Life, Notice, Policy, RestartAsked
from mountd.process.supervisor import MustReplace, ShouldRestart
from mountd.status.snapshot import State
from tests.support.supervised import LOADING, POLICY, READY, SOON_S, STUBBORN, Make, kill, making
from tests.support.wait import until_async


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    async with making() as made:
        yield made


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
    run.post(Notice.WANTED)
    await run.until_children(4)
    run.post(Notice.UNWANTED)
    await run.until_state(State.STOPPED)
    begun = run.program.began[:4]
    waits = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert waits[0] >= 0.05
    assert waits[1] >= 0.10
    assert waits[2] >= 0.20


async def test_what_retrying_cannot_change_fails_until_a_restart_is_asked(make: Make) -> None:
    run = make(script="exit 2")
    run.post(Notice.WANTED)
    await run.until_state(State.FAILED)
    assert run.life.cause == "it ended with exit code 2"
    run.program.script = READY
    run.post(RestartAsked("repaired"))
    await run.until_state(State.RUNNING)


async def test_too_many_crashes_fail(make: Make) -> None:
    run = make(Policy(grace_s=0.4, crash_limit=(2, 60.0)))
    run.post(Notice.WANTED)
    for count in (1, 2, 3):
        await run.until_children(count)
        await run.until_state(State.RUNNING)
        kill(run.program.children[-1])
        await run.until_crashes(count)
    await run.until_state(State.FAILED)
    assert len(run.program.children) == 3
    assert not run.life.hopeless, "each of them would have been tried again"


async def test_a_start_that_hangs_is_abandoned(make: Make) -> None:
    run = make(script=LOADING)
    run.post(Notice.WANTED)
    await run.until_children(1)
    run.post(Notice.UNWANTED)
    await run.until_state(State.STOPPED)
    assert run.program.children[0].exit == Exit(-signal.SIGTERM)


async def test_a_start_abandoned_before_its_first_step(make: Make) -> None:
    run = make()
    run.post(Notice.WANTED, Notice.UNWANTED)
    await run.until(lambda: len(run.program.states) > 1 and run.life.state is State.STOPPED, "the end of it")
    assert all(child.exit for child in run.program.children)
    assert not run.life.attempting


async def test_a_start_that_is_not_ready_in_time_is_killed_and_tried_again(make: Make) -> None:
    run = make(script=STUBBORN.replace("echo ready; ", ""), ready_s=0.2)
    run.post(Notice.WANTED)
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
    run.post(Notice.WANTED)
    await run.until_state(State.BACKOFF)
    assert run.life.cause == "its port is taken"
    run.program.before_spawn = lambda: None
    await run.until_state(State.RUNNING)


def test_no_decision_is_an_expected_failure() -> None:
    """Who passes over failures (`suppress(MountdError)`) must not hold back a verdict on what runs."""
    assert not issubclass(MustReplace, MountdError)
    assert not issubclass(ShouldRestart, MountdError)


async def test_restart_and_what_must_be_replaced(make: Make) -> None:
    run = make(script=STUBBORN, policy=Policy(grace_s=30.0))
    await run.start()
    run.program.watched.set_exception(MustReplace("it is hung"))
    await run.until_children(2)  # at once: what is hung gets no graceful stop
    assert run.program.children[0].exit == Exit(-signal.SIGKILL)
    await run.until_state(State.RUNNING)
    run.program.script = READY
    run.program.policy = POLICY
    run.post(RestartAsked("tina asked"))
    await run.until_children(3)
    await run.until_state(State.RUNNING)


async def test_the_gate_keeps_from_starting_and_leaves_alone_what_runs(make: Make) -> None:
    run = make(life=Life(allowed=False))
    run.post(Notice.WANTED)
    await asyncio.sleep(0.1)
    assert run.program.children == []
    run.post(Notice.ALLOWED)
    await run.until_state(State.RUNNING)
    run.post(Notice.FORBIDDEN)
    await asyncio.sleep(0.1)
    assert run.life.state is State.RUNNING
    kill(run.program.children[0])
    await run.until_state(State.BACKOFF)
    await asyncio.sleep(0.1)
    assert len(run.program.children) == 1
    run.post(Notice.ALLOWED)
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
    run.post(Notice.UNWANTED)
    await run.until_state(State.STOPPED)


@pytest.mark.parametrize(("script", "outside"), [(READY, True), ("echo ready; sleep 0.1; exit 1", False)])
async def test_only_an_end_from_outside_is_forgotten_by_the_limit_of_starts(
    make: Make, monkeypatch: pytest.MonkeyPatch, script: str, outside: bool
) -> None:
    monkeypatch.setattr(lifecycle, "STEADY_S", 0.0)
    run = make(script=script)
    run.post(Notice.WANTED)
    await run.until_state(State.RUNNING)
    if outside:
        kill(run.program.children[0])
    await run.until_children(2)
    assert (run.life.steady is not None) is outside


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
async def test_a_bug_in_the_service_is_reported_and_ends_no_supervision(
    make: Make, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make()

    def bug() -> None:
        raise ZeroDivisionError

    if where == "start":
        run.program.before_spawn = bug
        run.post(Notice.WANTED)
    else:
        await run.start()
    if where == "watch":
        run.program.watched.set_exception(ZeroDivisionError())
    if where == "clean":
        monkeypatch.setattr(run.program, "clean", bug)
        run.post(Notice.UNWANTED)
    async with asyncio.timeout(SOON_S):
        while not run.bugs:
            await asyncio.sleep(0.005)
    assert isinstance(run.bugs[0], ZeroDivisionError)
    assert not run.task.done()
    monkeypatch.undo()


async def test_a_cancelled_run_leaves_no_task_behind(make: Make) -> None:
    before = asyncio.all_tasks()
    run, loading = make(), make(script=LOADING)
    await run.start()
    loading.post(Notice.WANTED)
    await loading.until_children(1)
    for one in (run, loading):
        await one.close()
    await until_async(lambda: asyncio.all_tasks() == before, SOON_S, "their tasks to end")


@pytest.mark.parametrize("seed", range(4))
async def test_never_two_children_whatever_happens(make: Make, seed: int) -> None:
    """`Program.start` and `clean` assert it; here they get the chance."""
    chance = random.Random(seed)
    run = make(Policy(grace_s=0.05, backoff=Backoff(0.01, 2.0, 0.02)))
    run.post(Notice.WANTED)
    scripts = [READY, READY, STUBBORN, LOADING, "exit 1", "echo ready; sleep 0.02"]
    for _ in range(60):
        run.program.script = chance.choice(scripts)
        match chance.randrange(6):
            case 0:
                run.post(Notice.UNWANTED, Notice.WANTED)
            case 1:
                run.post(RestartAsked("again"))
            case 2:
                run.post(Condemned("hung"))
            case 3:
                run.post(Notice.FORBIDDEN, Notice.ALLOWED)
            case 4 if run.program.children:
                run.program.children[-1].signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
            case _:
                run.post(Notice.UNWANTED)
                run.post(Notice.WANTED)
        await asyncio.sleep(chance.choice([0, 0, 0.001, 0.01, 0.03]))
        assert not run.bugs
        assert not run.task.done()
    assert len(run.program.children) > 2
    run.post(Notice.UNWANTED)
    await run.until_state(State.STOPPED)
    assert all(child.exit for child in run.program.children)
