"""The limit of starts: no hot loop, and no wait for what is killed from outside or has been repaired."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mountd.process.lifecycle import (
    START_WINDOW_S,
    STARTS_PER_WINDOW,
    STEADY_S,
    Backoff,
    Condemned,
    Exited,
    Life,
    RestartAsked,
    StartFailed,
)
from mountd.status.snapshot import State
from tests.unit.test_lifecycle import (
    BEGIN,
    CLEANED,
    KILL,
    NOW,
    POLICY,
    READY,
    RUNNING,
    SIGNALLED,
    SPAWNED,
    TICKED,
    UNWANTED,
    WANTED,
    run,
)


def test_no_hot_loop() -> None:
    policy = replace(POLICY, crash_limit=None)
    life, now, starts = RUNNING, NOW, 0
    while now < NOW + 300.0:
        life, actions = run(life, Exited("x"), CLEANED, TICKED, now=now, policy=policy)
        starts += actions.count(BEGIN)
        if life.state is State.STARTING:
            life, _ = run(life, SPAWNED, READY, now=now, policy=policy)
        now += 0.5
        life, actions = run(life, TICKED, now=now, policy=policy)
        starts += actions.count(BEGIN)
        if life.state is State.STARTING:
            life, _ = run(life, SPAWNED, READY, now=now, policy=policy)
    assert STARTS_PER_WINDOW < starts <= STARTS_PER_WINDOW * (300.0 / START_WINDOW_S + 1)


def test_the_start_before_a_loop_counts_as_well() -> None:
    """At most ten in any minute, whatever came before."""
    policy = replace(POLICY, crash_limit=None, backoff=Backoff(initial_s=0.1, max_s=0.1))
    life, began, now = replace(RUNNING, starts=(NOW,), ran_since=NOW), [NOW], NOW + STEADY_S
    life, actions = run(life, Exited("SIGKILL", outside=True), CLEANED, now=now, policy=policy)
    while now < NOW + START_WINDOW_S - 1:
        began += [now] * actions.count(BEGIN)
        if life.state is State.STARTING:
            life, _ = run(life, StartFailed("x"), CLEANED, now=now, policy=policy)
        now += 0.5
        life, actions = run(life, TICKED, now=now, policy=policy)
    assert len(began) == STARTS_PER_WINDOW
    assert life.limited
    assert life.due == NOW + START_WINDOW_S
    assert BEGIN in run(life, TICKED, now=NOW + START_WINDOW_S, policy=policy)[1]


def test_what_is_killed_from_outside_comes_back_at_once_however_often() -> None:
    policy = replace(POLICY, crash_limit=None)
    life, now = RUNNING, NOW
    life = replace(life, ran_since=NOW - STEADY_S)
    for _ in range(40):
        life, actions = run(life, Exited("SIGKILL", outside=True), CLEANED, now=now, policy=policy)
        assert BEGIN in actions
        life, _ = run(life, SPAWNED, READY, now=now + 0.2, policy=policy)
        now += 0.2 + STEADY_S


def test_what_ends_by_itself_is_a_loop_however_long_it_ran() -> None:
    """The only difference to what is killed from outside."""
    policy = replace(POLICY, crash_limit=None)
    life, now, begun = replace(RUNNING, ran_since=NOW - STEADY_S), NOW, 0
    while not life.limited:
        life, actions = run(life, Exited("exit code 1"), CLEANED, now=now, policy=policy)
        begun += actions.count(BEGIN)
        assert begun <= STARTS_PER_WINDOW
        if life.state is State.STARTING:
            life, _ = run(life, SPAWNED, READY, now=now + 0.2, policy=policy)
        now += 0.2 + STEADY_S
    assert now - NOW < START_WINDOW_S


LIMITED = Life(
    State.BACKOFF, wanted=True, starts=tuple(NOW - number for number in range(STARTS_PER_WINDOW, 0, -1)), due=NOW + 50
)


@pytest.mark.parametrize("life", [LIMITED, replace(LIMITED, starts=LIMITED.starts[1:], steady=LIMITED.starts[0])])
def test_at_the_limit_of_starts_a_restart_begins_at_once(life: Life) -> None:
    """Who asks has repaired it."""
    assert life.limited
    assert run(life, WANTED, TICKED)[1] == []
    begun, actions = run(life, RestartAsked("tina asked"))
    assert (begun.state, actions) == (State.STARTING, [BEGIN])
    assert not run(begun, SPAWNED, Exited("again"), CLEANED)[0].limited, "and has a new account"
    stopped, _ = run(life, UNWANTED)
    assert run(stopped, WANTED)[1] == [BEGIN], "so does a stop"


def test_a_stop_that_took_too_long_is_remembered_until_the_next() -> None:
    stopping, _ = run(RUNNING, RestartAsked("x"))
    assert not stopping.overdue
    killed, actions = run(stopping, TICKED, now=NOW + POLICY.grace_s)
    assert (killed.overdue, actions) == (True, [KILL])
    again, _ = run(killed, Exited("x"), CLEANED, SPAWNED, READY)
    assert again.state is State.RUNNING
    assert not run(again, RestartAsked("x"))[0].overdue
    assert not run(RUNNING, Condemned("hung"))[0].overdue, "it was not asked"


def test_a_start_has_nothing_of_how_the_last_life_ended() -> None:
    failed, _ = run(Life(State.STARTING, wanted=True, attempting=True), StartFailed("x", retry_s=10.0), CLEANED)
    assert failed.due == NOW + 10.0
    begun, actions = run(failed, TICKED, SPAWNED, READY, now=NOW + 10.0)
    assert actions == [BEGIN]
    assert BEGIN in run(begun, Exited("x"), CLEANED, now=NOW + 20.0)[1], "the wait that it asked for is over"
    crashed, _ = run(RUNNING, Exited("x"), CLEANED, SPAWNED, READY)
    asked, _ = run(crashed, RestartAsked("x"), Exited("x"), CLEANED, policy=replace(POLICY, retry=False))
    assert asked.state is State.STARTING, "that end was no crash"
    hopeless, _ = run(RUNNING, Exited("x", permanent=True), CLEANED)
    assert hopeless.state is State.FAILED
    again, _ = run(hopeless, RestartAsked("repaired"), SPAWNED, READY)
    assert run(again, RestartAsked("x"), Exited("x"), CLEANED)[0].state is State.STARTING


def test_a_stop_has_its_preparation_and_then_its_grace() -> None:
    policy = replace(POLICY, prepare_s=100.0, grace_s=30.0)
    stopping, _ = run(RUNNING, UNWANTED, policy=policy)
    assert stopping.due == NOW + 130.0
    early, _ = run(stopping, SIGNALLED, now=NOW + 5.0, policy=policy)
    assert early.due == NOW + 35.0, "the grace begins with the signal"
    late, _ = run(stopping, SIGNALLED, now=NOW + 120.0, policy=policy)
    assert late.due == NOW + 130.0
    killed, actions = run(stopping, TICKED, now=NOW + 130.0, policy=policy)
    assert (actions, run(killed, SIGNALLED, now=NOW + 131.0, policy=policy)[0].due) == ([KILL], None)


def test_a_start_that_was_given_up_while_its_child_came_kills_it_though_it_is_wanted_again() -> None:
    life, _ = run(Life(State.STARTING, wanted=True, attempting=True), UNWANTED, WANTED)
    life, actions = run(life, SPAWNED)
    assert (life.state, life.due, actions) == (State.STOPPING, None, [KILL])
