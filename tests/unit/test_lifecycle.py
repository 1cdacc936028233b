"""The state machine: tables of single steps, and random event sequences against what must always hold."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mountd.process.lifecycle import (
    START_WINDOW_S,
    STARTS_PER_WINDOW,
    STEADY_S,
    Action,
    Backoff,
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
from mountd.status.snapshot import State

BEGIN, ABANDON, TERMINATE, KILL, CLEAN = Action
WANTED, UNWANTED, ALLOWED, FORBIDDEN, SPAWNED, READY, ABANDONED, SIGNALLED, CLEANED, TICKED = Notice
POLICY = Policy(grace_s=30.0, backoff=Backoff(1.0, 2.0, 60.0), crash_limit=(5, 600.0))
STARTING = Life(State.STARTING, wanted=True, attempting=True, starts=(0.0,))
RUNNING = Life(State.RUNNING, wanted=True, child=True, starts=(0.0,))
NOW = 1000.0


def run(life: Life, *events: Event, now: float = NOW, policy: Policy = POLICY) -> tuple[Life, list[Action]]:
    actions: list[Action] = []
    for event in events:
        life, new = step(life, event, now, policy)
        actions += new
    return life, actions


CASES = [
    ("starts when wanted", Life(), [WANTED], State.STARTING, [BEGIN]),
    ("waits behind a closed gate", Life(allowed=False), [WANTED], State.STOPPED, []),
    ("starts when the gate opens", Life(allowed=False), [WANTED, ALLOWED], State.STARTING, [BEGIN]),
    ("runs when ready", STARTING, [SPAWNED, READY], State.RUNNING, []),
    ("a closing gate leaves what runs alone", RUNNING, [FORBIDDEN], State.RUNNING, []),
    ("the first restart is immediate", RUNNING, [Exited("x"), CLEANED], State.STARTING, [CLEAN, BEGIN]),
    ("a failed start waits", STARTING, [StartFailed("x"), CLEANED], State.BACKOFF, [CLEAN]),
    ("a failed start ends its child", STARTING, [SPAWNED, StartFailed("x")], State.STOPPING, [KILL]),
    ("hopeless fails", STARTING, [StartFailed("x", permanent=True), CLEANED], State.FAILED, [CLEAN]),
    (
        "a bad flag fails",
        STARTING,
        [SPAWNED, Exited("x", True), ABANDONED, CLEANED],
        State.FAILED,
        [ABANDON, CLEAN],
    ),
    ("hung is killed, not asked", RUNNING, [Condemned("x")], State.STOPPING, [KILL]),
    ("hung comes back", RUNNING, [Condemned("x"), Exited("x"), CLEANED], State.STARTING, [KILL, CLEAN, BEGIN]),
    ("a graceful stop", RUNNING, [UNWANTED], State.STOPPING, [TERMINATE]),
    ("stopped", RUNNING, [UNWANTED, Exited("x"), CLEANED], State.STOPPED, [TERMINATE, CLEAN]),
    ("stop in an attempt", STARTING, [UNWANTED, ABANDONED, CLEANED], State.STOPPED, [ABANDON, CLEAN]),
    (
        "a child that appears while stopping is ended",
        STARTING,
        [UNWANTED, SPAWNED, ABANDONED, Exited("x"), CLEANED],
        State.STOPPED,
        [ABANDON, KILL, CLEAN],
    ),
    (
        "wanted again while stopping",
        RUNNING,
        [UNWANTED, WANTED, Exited("x"), CLEANED],
        State.STARTING,
        [TERMINATE, CLEAN, BEGIN],
    ),
    ("restart", RUNNING, [RestartAsked("x"), Exited("x"), CLEANED], State.STARTING, [TERMINATE, CLEAN, BEGIN]),
    ("restart of a failed one", Life(State.FAILED, wanted=True), [RestartAsked("x")], State.STARTING, [BEGIN]),
    ("stop of a failed one", Life(State.FAILED, wanted=True), [UNWANTED], State.STOPPED, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("life", "events", "state", "actions"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_step(life: Life, events: list[Event], state: State, actions: list[Action]) -> None:
    after, done = run(life, *events)
    assert (after.state, done) == (state, actions)


def test_patience_with_a_graceful_stop_ends() -> None:
    stopping, _ = run(RUNNING, UNWANTED)
    assert stopping.due == NOW + POLICY.grace_s
    assert run(stopping, TICKED, now=NOW + 29.9)[1] == []
    killed, actions = run(stopping, TICKED, now=NOW + 30.0)
    assert actions == [KILL]
    assert run(killed, TICKED, now=NOW + 99.0)[1] == []


@pytest.mark.parametrize("end", [StartFailed("x"), Exited("x"), Condemned("x")])
@pytest.mark.parametrize("ready", [True, False])
def test_a_stop_that_took_too_long_is_none_of_the_next_life(end: Event, ready: bool) -> None:
    stopping, _ = run(RUNNING, RestartAsked("x"))
    assert stopping.due is not None
    overdue, _ = run(stopping, TICKED, now=stopping.due)
    assert overdue.overdue
    again, _ = run(overdue, Exited("x"), CLEANED, SPAWNED, *[READY] * ready, now=stopping.due)
    assert again.state is (State.RUNNING if ready else State.STARTING)
    assert not again.overdue
    assert not run(again, end, now=stopping.due)[0].overdue


def test_only_starts_that_do_not_reach_running_grow_the_backoff() -> None:
    life, waits = STARTING, []
    now = NOW
    for _ in range(5):
        life, _ = run(life, StartFailed("x"), CLEANED, now=now)
        assert life.due is not None
        waits.append(life.due - now)
        now = life.due + 20.0
        life, _ = run(life, TICKED, now=now)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]
    life, _ = run(life, SPAWNED, READY, Exited("x"), CLEANED, now=now)
    assert life.state is State.STARTING


def test_a_failure_may_ask_for_its_own_wait() -> None:
    life, _ = run(STARTING, StartFailed("x", retry_s=10.0), CLEANED)
    assert life.due == NOW + 10.0


def test_more_crashes_than_the_limit_fail_and_say_so() -> None:
    life, now = RUNNING, NOW
    for _ in range(5):
        life, _ = run(life, Exited("it crashed"), CLEANED, SPAWNED, READY, now=now)
        assert life.state is State.RUNNING
        now += 30.0
    life, _ = run(life, Exited("it crashed"), CLEANED, now=now)
    assert life.state is State.FAILED
    assert life.cause.startswith("it crashed; ")
    assert re.findall(r"\d+", life.cause) == ["6", "10"], "failures, in so many minutes"


def test_restarts_that_were_asked_for_are_no_crashes() -> None:
    life, now = RUNNING, NOW
    for _ in range(20):
        life, _ = run(life, RestartAsked("x"), Exited("x"), CLEANED, SPAWNED, READY, now=now)
        assert life.state is State.RUNNING
        now += 10.0


@pytest.mark.parametrize(
    ("events", "restarts"),
    [
        ((Exited("it crashed"), CLEANED), 1),
        ((Exited("killed", outside=True), CLEANED), 1),
        ((Condemned("hung"), Exited("x"), CLEANED), 1),
        ((RestartAsked("tina asked"), Exited("x"), CLEANED), 0),
        ((RestartAsked("its cache is broken", by_itself=True), Exited("x"), CLEANED), 1),
        ((UNWANTED, Exited("x"), CLEANED, WANTED), 0),
        ((Exited("it crashed"), UNWANTED, CLEANED, WANTED), 0),  # after a stop the count starts at zero
        ((Exited("it crashed"), CLEANED, SPAWNED, Exited("again"), ABANDONED, CLEANED), 1),
    ],
)
def test_restarts_are_those_that_nobody_asked_for(events: tuple[Event, ...], restarts: int) -> None:
    life, _ = run(RUNNING, *events)
    life, _ = run(life, TICKED, SPAWNED, READY, now=NOW + 60.0)
    assert (life.state, life.restarts) == (State.RUNNING, restarts)


def test_without_restart_after_a_crash_it_fails() -> None:
    policy = replace(POLICY, restart_after_crash=False)
    assert run(RUNNING, Exited("x"), CLEANED, policy=policy)[0].state is State.FAILED


EVENTS: list[Event] = [
    WANTED, UNWANTED, RestartAsked("r"), ALLOWED, FORBIDDEN, SPAWNED, READY, StartFailed("f"),
    StartFailed("p", permanent=True), ABANDONED, Exited("e"), Exited("u", permanent=True), Condemned("c"), CLEANED,
    TICKED,
]  # fmt: skip


def test_a_stop_and_a_start_wait_for_no_limit() -> None:
    life, now = RUNNING, NOW
    for _ in range(3 * STARTS_PER_WINDOW):
        life, actions = run(life, UNWANTED, Exited("x"), CLEANED, WANTED, SPAWNED, READY, now=now)
        assert (life.state, BEGIN in actions) == (State.RUNNING, True)
        now += 0.5


HELD = [
    (RUNNING, [Exited("x"), CLEANED], State.FAILED),
    (STARTING, [SPAWNED, Exited("x"), ABANDONED, CLEANED], State.FAILED),
    (STARTING, [StartFailed("x"), CLEANED], State.FAILED),
    (STARTING, [SPAWNED, StartFailed("x"), Exited("x"), CLEANED], State.FAILED),
    (RUNNING, [RestartAsked("x"), Exited("x"), CLEANED], State.STARTING),
    (RUNNING, [FORBIDDEN, RestartAsked("x"), Exited("x"), CLEANED], State.BACKOFF),
    (RUNNING, [FORBIDDEN, RestartAsked("x"), Exited("x"), CLEANED, ALLOWED], State.STARTING),
    (RUNNING, [Exited("x"), CLEANED, UNWANTED, WANTED], State.STARTING),
]


@pytest.mark.parametrize(("life", "events", "state"), HELD)
def test_without_retry_what_fails_stays_down_and_what_is_restarted_does_not(
    life: Life, events: list[Event], state: State
) -> None:
    assert run(life, *events, policy=replace(POLICY, retry=False))[0].state is state


@given(
    st.builds(
        Life,
        state=st.sampled_from(State),
        wanted=st.booleans(),
        allowed=st.booleans(),
        child=st.booleans(),
        attempting=st.booleans(),
        due=st.none() | st.floats(0, 2000),
        crashes=st.lists(st.floats(0, 1000), max_size=8).map(tuple),
        starts=st.lists(st.floats(0, 1000), max_size=12).map(tuple),
        steady=st.none() | st.floats(0, 1000),
    ),
    st.sampled_from(EVENTS),
    st.floats(0, 3000),
)
def test_every_pair_of_state_and_event_is_handled(life: Life, event: Event, now: float) -> None:
    after, actions = step(life, event, now, POLICY)
    assert isinstance(after, Life)
    assert actions.count(BEGIN) <= 1


class World(RuleBasedStateMachine):
    """The machine among things that behave as processes do: late, in any order, but never twice."""

    @initialize(limit=st.sampled_from([None, (3, 100.0)]), restarts=st.booleans(), retry=st.booleans())
    def begin(self, limit: tuple[int, float] | None, restarts: bool, retry: bool) -> None:
        self.policy = Policy(grace_s=5.0, crash_limit=limit, restart_after_crash=restarts, retry=retry)
        self.life = Life()
        self.now = 0.0
        self.children = 0
        self.terminated = self.killed = False
        self.attempts = 0
        self.cancelled = False
        self.spawned = False
        self.cleaning = 0
        self.begun: list[float] = []
        self.steady: list[float] = []
        self.ready_at: float | None = None

    def post(self, event: Event) -> None:
        self.life, actions = step(self.life, event, self.now, self.policy)
        for action in actions:
            match action:
                case Action.BEGIN:
                    assert self.children == self.attempts == self.cleaning == 0, "an attempt beside something else"
                    self.attempts, self.cancelled, self.spawned = 1, False, False
                    self.begun.append(self.now)
                case Action.ABANDON:
                    self.cancelled = True
                case Action.TERMINATE:
                    self.terminated = True
                case Action.KILL:
                    self.killed = True
                case Action.CLEAN:
                    assert self.children == self.attempts == self.cleaning == 0, "cleaning beside something else"
                    self.cleaning = 1
        if self.life.state is State.STOPPED:
            self.begun, self.steady = [], []  # it was wanted so: no loop

    @rule(event=st.sampled_from([WANTED, UNWANTED, RestartAsked("r"), ALLOWED, FORBIDDEN, Condemned("c")]))
    def is_reported(self, event: Event) -> None:
        if isinstance(event, RestartAsked) and self.life.state in (State.BACKOFF, State.FAILED):
            self.begun, self.steady = [], []  # who asks need not wait for the limit
        self.post(event)

    @rule(seconds=st.floats(0.0, 100.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.post(TICKED)

    @precondition(lambda self: self.attempts and not self.spawned)
    @rule()
    def a_child_appears(self) -> None:
        self.spawned = True
        self.children += 1
        assert self.children == 1, "two children"
        self.terminated = self.killed = False
        self.post(SPAWNED)

    @precondition(lambda self: self.attempts)
    @rule(event=st.sampled_from([READY, StartFailed("f"), StartFailed("p", permanent=True), ABANDONED]))
    def the_attempt_ends(self, event: Event) -> None:
        if event is READY and not self.spawned:
            event = StartFailed("never spawned")
        if event is ABANDONED and not self.cancelled:
            event = StartFailed("not cancelled")
        self.attempts = 0
        self.post(event)
        if event is READY and self.life.state is State.RUNNING:
            self.ready_at = self.now

    @precondition(lambda self: self.children)
    @rule(permanent=st.booleans(), outside=st.booleans())
    def the_child_exits(self, permanent: bool, outside: bool) -> None:
        self.children = 0
        if outside and self.ready_at is not None and self.now - self.ready_at >= STEADY_S:
            self.steady = [self.begun.pop()]  # it came to something: those before it do not count
        self.ready_at = None
        self.post(Exited("e", permanent, outside))

    @precondition(lambda self: self.cleaning)
    @rule()
    def cleaning_ends(self) -> None:
        self.cleaning = 0
        self.post(CLEANED)

    @invariant()
    def never_two(self) -> None:
        assert self.children <= 1
        assert self.attempts <= 1

    @invariant()
    def no_hot_loop(self) -> None:
        recent = [begun for begun in (*self.steady, *self.begun) if self.now - begun < START_WINDOW_S]
        assert len(recent) <= STARTS_PER_WINDOW

    def teardown(self) -> None:
        if not hasattr(self, "life"):
            return
        self.post(UNWANTED)
        for _ in range(10):
            if self.attempts and self.cancelled:
                self.attempts = 0
                self.post(ABANDONED)
            if self.children and not self.killed:
                self.now += 10.0  # the child ignores the stop signal: patience must end by itself
                self.post(TICKED)
            if self.children and self.killed:
                self.children = 0
                self.post(Exited("e"))
            if self.cleaning:
                self.cleaning = 0
                self.post(CLEANED)
        assert self.life.state is State.STOPPED
        assert (self.children, self.attempts) == (0, 0)


World.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestWorld = World.TestCase
