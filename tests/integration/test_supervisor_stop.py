"""How the supervisor ends a real child: prepared first, then a graceful stop, then killed."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from mountd.process.child import Exit
from mountd.process.lifecycle import Notice, RestartAsked
from mountd.process.supervisor import MustReplace
from mountd.status.snapshot import State
from tests.support.spawner import ignores
from tests.support.supervised import POLICY, SOON_S, STUBBORN, Make, kill, making


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    async with making() as made:
        yield made


async def test_start_and_a_graceful_stop(make: Make) -> None:
    run = make()
    pid = await run.start()
    assert pid == run.program.children[0].pid
    run.post(Notice.UNWANTED)
    await run.until_state(State.STOPPED)
    assert run.program.children[0].exit == Exit(-signal.SIGTERM)
    assert run.program.pid is None
    states = [State.STOPPED, State.STARTING, State.RUNNING, State.STOPPING, State.CLEANING, State.STOPPED]
    assert run.program.states == states
    assert run.program.cleaned == 1


async def test_the_stop_signal_waits_for_what_comes_before_the_end(make: Make) -> None:
    run = make(policy=replace(POLICY, prepare_s=SOON_S))
    await run.start()
    run.program.preparing = asyncio.get_running_loop().create_future()
    run.post(Notice.UNWANTED)
    await run.until_state(State.STOPPING)
    await asyncio.sleep(POLICY.grace_s * 1.5)  # the patience with the signal has not even begun
    assert run.program.children[0].exit is None
    run.program.preparing.set_result(None)
    await run.until_state(State.STOPPED)
    assert run.program.children[0].exit == Exit(-signal.SIGTERM)


@pytest.mark.parametrize("prepare_s", [0.2, 0.0])
async def test_a_preparation_that_takes_too_long_is_cut_short(make: Make, prepare_s: float) -> None:
    run = make(policy=replace(POLICY, prepare_s=prepare_s))
    await run.start()
    run.program.preparing = asyncio.get_running_loop().create_future()
    run.post(Notice.UNWANTED)
    await run.until_state(State.STOPPED)
    assert run.program.children[0].exit == Exit(-signal.SIGTERM)
    assert run.program.preparing.cancelled()


async def test_what_a_signal_would_not_reach_is_killed(make: Make) -> None:
    run = make(policy=replace(POLICY, prepare_s=SOON_S), script=STUBBORN)
    await run.start()
    run.program.preparing = asyncio.get_running_loop().create_future()
    run.program.preparing.set_exception(MustReplace("it hangs"))
    run.post(Notice.UNWANTED)
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
    run.post(Notice.UNWANTED)
    await run.until_state(State.STOPPED)
    assert run.program.children[0].exit == Exit(7)


@pytest.mark.parametrize("script", [STUBBORN, STUBBORN.replace("echo ready; ", "")], ids=["running", "starting"])
async def test_one_that_ignores_the_stop_signal_is_killed_after_the_grace(make: Make, script: str) -> None:
    run = make(script=script)
    run.post(Notice.WANTED)
    await run.until_state(State.RUNNING if script == STUBBORN else State.STARTING)
    await run.until_children(1)
    await run.until(lambda: ignores(run.program.children[0].pid, signal.SIGTERM), "the shell to ignore it")
    began = time.monotonic()
    run.post(Notice.UNWANTED)
    await run.until_state(State.STOPPED)
    assert POLICY.grace_s <= time.monotonic() - began < SOON_S
    assert run.program.children[0].exit == Exit(-signal.SIGKILL)
