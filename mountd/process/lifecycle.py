"""The one state machine of a supervised thing: a state and an event give the next state and what to do.

ARCHITECTURE.md has the drawing. Two facts are kept beside the state: whether a child exists and whether an attempt to
start one is under way. Only when neither is true may cleaning begin, and only after cleaning may the next attempt: so
there are never two children.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto

from mountd.status.snapshot import State

STARTS_PER_WINDOW = 10
START_WINDOW_S = 60.0
"""At most 10 starts in any 60 s: a hot loop helps nobody."""
STEADY_S = 2.0
"""Of starts that ran as long and were ended from outside only the last counts: they are no loop, however many."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next try: `initial_s`, then `factor` times as long after each further failure, never
    above `max_s`."""

    initial_s: float = 1.0
    factor: float = 2.0
    max_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after `failures` failures in a row; none after none."""
        if failures <= 0:
            return 0.0
        # The exponent is bounded because a float overflows long before a person stops waiting.
        return min(self.max_s, self.initial_s * self.factor ** min(failures - 1, 64))


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient the machine is. `crash_limit` is (count, seconds); None never gives up.

    Without `retry` whatever fails stays down: somebody else decides what comes next.
    A stop takes `prepare_s` at most until the stop signal, and `grace_s` from then until SIGKILL.
    """

    grace_s: float = 30.0
    prepare_s: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)
    crash_limit: tuple[int, float] | None = None
    restart_after_crash: bool = True
    retry: bool = True


@dataclass(frozen=True, slots=True)
class Life:
    """All that the machine remembers. Times are seconds on the monotonic clock."""

    state: State = State.STOPPED
    wanted: bool = False
    allowed: bool = True
    """the gate: whether it may be started; what runs is left alone"""
    child: bool = False
    attempting: bool = False
    failures: int = 0
    """starts in a row that did not reach running"""
    crashes: tuple[float, ...] = ()
    starts: tuple[float, ...] = ()
    """those that count for the limit, each"""
    steady: float | None = None
    """the last one that came to something, which counts as well"""
    ran_since: float | None = None
    """when the present child was ready"""
    due: float | None = None
    """stopping: when patience ends and SIGKILL comes; backoff: when to try again"""
    retry_s: float | None = None
    """a wait that the failure itself asked for, instead of the backoff"""
    cause: str = ""
    crashed: bool = False
    """the present cleaning follows a crash"""
    hopeless: bool = False
    """the present cleaning follows what retrying cannot change"""
    restarts: int = 0
    """how often it has come back to running after an end that nobody asked for"""
    unasked: bool = False
    """it had such an end since it ran last"""
    overdue: bool = False
    """the present stop: its patience is over, and it was killed"""

    @property
    def limited(self) -> bool:
        """It waits because it was started too often, not because of its last failure."""
        return self.state is State.BACKOFF and len(self.starts) + (self.steady is not None) >= STARTS_PER_WINDOW


class Notice(Enum):
    """An event of which its name says everything."""

    WANTED = auto()
    UNWANTED = auto()
    ALLOWED = auto()
    FORBIDDEN = auto()
    SPAWNED = auto()
    READY = auto()
    ABANDONED = auto()
    SIGNALLED = auto()
    """what had to be done before is done: the stop signal was sent"""
    CLEANED = auto()
    TICKED = auto()


@dataclass(frozen=True, slots=True)
class RestartAsked:
    cause: str
    by_itself: bool = False
    """mountd has decided it, for something that nobody brought about"""


@dataclass(frozen=True, slots=True)
class StartFailed:
    cause: str
    permanent: bool = False
    retry_s: float | None = None


@dataclass(frozen=True, slots=True)
class Exited:
    """`permanent`: trying again is hopeless. `outside`: it was killed, or what it served was taken away; it did not end
    by itself."""

    cause: str
    permanent: bool = False
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Condemned:
    """It runs, but it must be replaced, by force."""

    cause: str


Event = Notice | RestartAsked | StartFailed | Exited | Condemned


class Action(Enum):
    BEGIN = auto()
    """start an attempt; it ends with exactly one of READY, StartFailed and ABANDONED"""
    ABANDON = auto()
    """end the attempt under way"""
    TERMINATE = auto()
    """prepare the child's end, then the stop signal to its process group; ends with SIGNALLED"""
    KILL = auto()
    """SIGKILL to the child's process group"""
    CLEAN = auto()
    """remove what the child left; ends with CLEANED"""


Step = tuple[Life, tuple[Action, ...]]


def step(life: Life, event: Event, now: float, policy: Policy) -> Step:  # noqa: PLR0912 (one branch an event)
    """The next life and what to do, for every pair of state and event."""
    match event:
        case Notice.WANTED:
            return _want(replace(life, wanted=True), now)
        case Notice.UNWANTED:
            return _unwant(replace(life, wanted=False), now, policy)
        case RestartAsked():
            return _restart(life, event, now, policy)
        case Notice.ALLOWED:
            return _try_begin(replace(life, allowed=True), now)
        case Notice.FORBIDDEN:
            return replace(life, allowed=False), ()
        case Notice.SPAWNED:
            return _spawned(life)
        case Notice.READY:
            return _ready(life, now)
        case StartFailed():
            return _start_failed(life, event, now)
        case Notice.ABANDONED:
            return _settle(replace(life, attempting=False)) if life.state is State.STOPPING else (life, ())
        case Exited():
            return _exited(life, event, now)
        case Notice.SIGNALLED:
            patient = life.state is State.STOPPING and life.due is not None
            return (replace(life, due=min(life.due or now, now + policy.grace_s)), ()) if patient else (life, ())
        case Condemned(cause):
            if life.state is not State.RUNNING:
                return life, ()
            return replace(life, state=State.STOPPING, due=None, cause=cause, unasked=True), (Action.KILL,)
        case Notice.CLEANED:
            return _cleaned(life, now, policy) if life.state is State.CLEANING else (life, ())
        case Notice.TICKED:
            return _ticked(life, now)


def _begin(life: Life, now: float) -> Step:
    recent = tuple(start for start in life.starts if now - start < START_WINDOW_S)
    steady = life.steady if life.steady is not None and now - life.steady < START_WINDOW_S else None
    if len(recent) + (steady is not None) >= STARTS_PER_WINDOW:
        oldest = min(start for start in (recent[0], steady) if start is not None)
        return replace(life, state=State.BACKOFF, due=oldest + START_WINDOW_S, starts=recent, steady=steady), ()
    begun = replace(
        life,
        state=State.STARTING,
        attempting=True,
        starts=(*recent, now),
        steady=steady,
        due=None,
        retry_s=None,
        crashed=False,
        hopeless=False,
        overdue=False,
    )
    return begun, (Action.BEGIN,)


def _try_begin(life: Life, now: float) -> Step:
    if not (life.wanted and life.allowed):
        return life, ()
    if life.state is State.STOPPED or (life.state is State.BACKOFF and now >= (life.due or 0.0)):
        return _begin(life, now)
    return life, ()


def _want(life: Life, now: float) -> Step:
    if life.state is State.FAILED:
        life = replace(life, state=State.STOPPED, failures=0, crashes=(), cause="", unasked=False)
    return _try_begin(life, now)


def _unwant(life: Life, now: float, policy: Policy) -> Step:
    if life.state in (State.BACKOFF, State.FAILED):
        return _stopped(life, cause=""), ()
    if life.state in (State.STARTING, State.RUNNING):
        return _stop(life, now, policy)
    return life, ()


def _stopped(life: Life, cause: str) -> Life:
    """Somebody wanted that, which ends every loop: its next start is a first one."""
    return Life(wanted=life.wanted, allowed=life.allowed, cause=cause, restarts=life.restarts)


def _restart(life: Life, event: RestartAsked, now: float, policy: Policy) -> Step:
    unasked = life.unasked or (event.by_itself and life.state is State.RUNNING)
    fresh = replace(life, failures=0, crashes=(), cause=event.cause, unasked=unasked)
    if life.state in (State.STARTING, State.RUNNING):
        return _stop(fresh, now, policy)
    if life.state in (State.BACKOFF, State.FAILED):
        # Who asks has repaired the cause: the limit on starts that failed before does not delay this one.
        return _try_begin(replace(fresh, state=State.STOPPED, due=None, starts=(), steady=None), now)
    return life, ()


def _stop(life: Life, now: float, policy: Policy) -> Step:
    stopping = replace(life, state=State.STOPPING, due=now + policy.prepare_s + policy.grace_s, overdue=False)
    actions: tuple[Action, ...] = (Action.ABANDON,) if life.attempting else ()
    return stopping, (*actions, Action.TERMINATE) if life.child else actions


def _spawned(life: Life) -> Step:
    alive = replace(life, child=True)
    if life.state is State.STARTING:
        return alive, ()
    # The attempt was abandoned in the moment it succeeded: this child is nobody's.
    return replace(alive, state=State.STOPPING, due=None), (Action.KILL,)


def _ready(life: Life, now: float) -> Step:
    ended = replace(life, attempting=False)
    if life.state is State.STARTING and life.child:
        ended = replace(ended, restarts=life.restarts + life.unasked, unasked=False)
        return replace(ended, state=State.RUNNING, failures=0, cause="", ran_since=now), ()
    return _settle(ended) if life.state is State.STOPPING else (ended, ())


def _start_failed(life: Life, event: StartFailed, now: float) -> Step:
    ended = replace(life, attempting=False)
    if life.state is State.STOPPING:
        return _settle(ended)
    if life.state is not State.STARTING:
        return ended, ()
    failed = replace(
        ended,
        state=State.STOPPING,
        due=None,
        failures=life.failures + 1,
        cause=event.cause,
        retry_s=event.retry_s,
        hopeless=event.permanent,
    )
    if life.child:
        return replace(failed, crashes=(*life.crashes, now), crashed=True), (Action.KILL,)
    return _settle(failed)


def _exited(life: Life, event: Exited, now: float) -> Step:
    gone = replace(life, child=False, ran_since=None)
    if life.starts and life.ran_since is not None and now - life.ran_since >= STEADY_S and event.outside:
        gone = replace(gone, starts=life.starts[:-1], steady=life.starts[-1])
    if life.state is State.STOPPING:
        return _settle(gone)
    if life.state not in (State.STARTING, State.RUNNING):
        return gone, ()
    crashed = replace(
        gone,
        state=State.STOPPING,
        due=None,
        failures=life.failures + (life.state is State.STARTING),
        crashes=(*life.crashes, now),
        cause=event.cause,
        crashed=True,
        hopeless=event.permanent,
        unasked=life.unasked or life.state is State.RUNNING,
    )
    return (crashed, (Action.ABANDON,)) if life.attempting else _settle(crashed)


def _settle(life: Life) -> Step:
    """From stopping to cleaning, once nothing of the attempt is left."""
    if life.child or life.attempting:
        return life, ()
    return replace(life, state=State.CLEANING, due=None), (Action.CLEAN,)


def _cleaned(life: Life, now: float, policy: Policy) -> Step:
    if not life.wanted:
        return _stopped(life, life.cause), ()
    crashes = life.crashes
    if policy.crash_limit is not None:
        count, window_s = policy.crash_limit
        crashes = tuple(crash for crash in crashes if now - crash < window_s)
        if len(crashes) > count:
            cause = f"{life.cause}; it has failed {len(crashes)} times in {window_s / 60:g} minutes"
            return replace(life, state=State.FAILED, crashes=crashes, cause=cause), ()
    else:
        crashes = crashes[-1:]
    given_up = not policy.retry and (life.crashed or life.failures > 0)
    if life.hopeless or given_up or (life.crashed and not policy.restart_after_crash):
        return replace(life, state=State.FAILED, crashes=crashes), ()
    delay_s = policy.backoff.delay_s(life.failures) if life.retry_s is None else life.retry_s
    waiting = replace(life, state=State.BACKOFF, due=now + delay_s, crashes=crashes)
    return _try_begin(waiting, now)


def _ticked(life: Life, now: float) -> Step:
    if life.state is State.STOPPING and life.due is not None and now >= life.due:
        return replace(life, due=None, overdue=life.child), (Action.KILL,) if life.child else ()
    if life.state is State.BACKOFF and life.due is not None and now >= life.due:
        # It has waited long enough; whether the gate is open yet is another question, and no reason to wake up again.
        return _try_begin(replace(life, due=None), now)
    return _try_begin(life, now)
