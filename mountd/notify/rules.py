"""Which events a target gets, when, and in how many messages: patterns, alarms that pass by themselves, limits.

The journal is the queue: a decision is made of the events behind the target's cursor, and of little that is remembered
of what was sent before. Order is kept: an alarm that is waited for holds up what comes after it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import cached_property

from mountd import clock, codes
from mountd.codes import ABOUT_NOTIFICATIONS, CODES, HEALING, OF, matching
from mountd.journal.records import EventRecord
from mountd.settings.units import Limit
from mountd.text import object_of

SHOWN = 20
"""Events that stand in one message to people; the others are counted."""
MOST_OPEN = 100
"""Alarms that were sent and are not over; beyond this the oldest are forgotten, and no message says that they ended."""

AlarmKey = tuple[str, str]
"""Code and object of an alarm."""


@dataclass(frozen=True)
class Rules:
    """Of the target `name`. `after_s`: an alarm that is over within that time is not sent. `healed`: the end of one
    that was sent is sent too. `digest`: one message can hold several events."""

    name: str
    patterns: tuple[str, ...]
    limit: Limit | None = None
    after_s: float = 0.0
    healed: bool = True
    digest: bool = False

    @cached_property
    def codes(self) -> frozenset[str]:
        return frozenset(code for pattern in self.patterns for code in matching(pattern))

    def wants(self, event: EventRecord) -> bool:
        """By its code; what is wrong with a target is not sent to that target."""
        return event.code in self.codes and not (event.code in ABOUT_NOTIFICATIONS and event.object == self.name)


@dataclass(frozen=True, slots=True)
class TargetState:
    """What is remembered of a target; `cursor`: all events up to that id are decided."""

    cursor: int
    open: tuple[AlarmKey, ...] = ()
    """alarms that were sent and are not over, oldest first"""
    quiet: tuple[int, ...] = ()
    """ids of events that end an alarm of which nothing was sent"""
    sent: tuple[float, ...] = ()
    """when messages were delivered, as long as the limit counts them; monotonic"""

    def delivered(self, at: float, limit: Limit | None) -> TargetState:
        if limit is None:
            return replace(self, sent=())
        return replace(self, sent=(*_counted(limit, self.sent, at), at)[-limit.count :])


@dataclass(frozen=True, slots=True)
class Notification:
    """What one message says: `events`, oldest first and at least one; `left_out`: how many more there were, by code."""

    events: tuple[EventRecord, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def last(self) -> EventRecord:
        return self.events[-1]

    @property
    def is_alarm(self) -> bool:
        """Whether one of its alarms is not over, as far as it says."""
        return any(
            is_alarm(event) and not any(ends(later, alarm_key(event)) for later in self.events[index + 1 :])
            for index, event in enumerate(self.events)
        )


@dataclass(frozen=True, slots=True)
class SendDecision:
    """`state`: how it is once `notification` was delivered, or now when there is none. `wait_until`: when to decide
    again although no event comes, monotonic. `pending`: events that are wanted and wait, those of it among them."""

    state: TargetState
    notification: Notification | None = None
    wait_until: float | None = None
    pending: int = 0


class _Way(Enum):
    SKIP = auto()
    CHOOSE = auto()
    WAIT = auto()


def is_alarm(event: EventRecord) -> bool:
    return event.code in CODES and bool(CODES[event.code].healed_by)


def alarm_key(event: EventRecord) -> AlarmKey:
    return event.code, event.object


def ends(event: EventRecord, alarm: AlarmKey) -> bool:
    """Whether this event says that the alarm is over."""
    code, object_ = alarm
    return event.object == object_ and codes.ends(event.code, data_of(event).get(OF), code)


def decide(
    rules: Rules, state: TargetState, events: Sequence[EventRecord], seen: Mapping[int, float], now: float
) -> SendDecision:
    """`events`: the first ones with an id above the cursor, oldest first. `seen`: when each of them was read first;
    like `now` monotonic."""
    slots = None if rules.limit is None else rules.limit.count - len(_counted(rules.limit, state.sent, now))
    scan = _Scan(rules, state, events, seen, now)
    chosen: list[EventRecord] = []
    wait_until: float | None = None
    for index, event in enumerate(events):
        way = scan.judge(index)
        if way is _Way.WAIT:
            wait_until = seen[event.id] + rules.after_s
            break
        if way is _Way.CHOOSE and slots is not None and slots <= 0:
            assert rules.limit is not None
            wait_until = state.sent[-rules.limit.count] + rules.limit.window_s
            break
        scan.pass_(index, way)
        if way is _Way.CHOOSE:
            chosen.append(event)
            # The last message that the limit allows summarises all that waits.
            if not rules.digest and (slots is None or slots > 1):
                break
    pending = sum(rules.wants(event) for event in events if event.id > scan.cursor) + len(chosen)
    if not chosen:
        return SendDecision(scan.state(), None, wait_until, pending)
    shown = chosen[-SHOWN:] if rules.digest else chosen[-1:]
    left_out = Counter(event.code for event in chosen[: -len(shown)])
    return SendDecision(scan.state(), Notification(tuple(shown), dict(left_out)), None, pending)


class _Scan:
    """Goes through the events in their order, and remembers what follows from those that it has passed."""

    def __init__(
        self,
        rules: Rules,
        state: TargetState,
        events: Sequence[EventRecord],
        seen: Mapping[int, float],
        now: float,
    ) -> None:
        self.cursor = state.cursor
        self._rules = rules
        self._before = state
        self._events = events
        self._seen = seen
        self._now = now
        self._open = list(state.open)
        self._quiet = set(state.quiet)
        self._healing = [index for index, event in enumerate(events) if event.code in HEALING]

    def judge(self, index: int) -> _Way:
        event, rules = self._events[index], self._rules
        wanted = rules.wants(event)
        if wanted and is_alarm(event) and rules.after_s > 0:
            end = self._end_of(index)
            if end is not None:
                return _Way.SKIP if _seconds(event, end) < rules.after_s else _Way.CHOOSE
            return _Way.WAIT if self._now < self._seen[event.id] + rules.after_s else _Way.CHOOSE
        if event.code in HEALING:
            was_sent = bool(self._ended(event))
            wanted = (was_sent and rules.healed) or (wanted and (was_sent or event.id not in self._quiet))
        return _Way.CHOOSE if wanted else _Way.SKIP

    def pass_(self, index: int, way: _Way) -> None:
        event = self._events[index]
        self.cursor = event.id
        if self._rules.wants(event) and is_alarm(event):
            if way is _Way.CHOOSE and alarm_key(event) not in self._open:
                self._open.append(alarm_key(event))
            elif way is _Way.SKIP and (end := self._end_of(index)) is not None:
                self._quiet.add(end.id)
        elif event.code in HEALING:
            for each in self._ended(event):
                self._open.remove(each)

    def state(self) -> TargetState:
        quiet = tuple(sorted(each for each in self._quiet if each > self.cursor))
        return replace(self._before, cursor=self.cursor, open=tuple(self._open[-MOST_OPEN:]), quiet=quiet)

    def _ended(self, event: EventRecord) -> list[AlarmKey]:
        return [each for each in self._open if ends(event, each)]

    def _end_of(self, index: int) -> EventRecord | None:
        alarm = alarm_key(self._events[index])
        later = (self._events[each] for each in self._healing if each > index)
        return next((each for each in later if ends(each, alarm)), None)


def _counted(limit: Limit, sent: Sequence[float], now: float) -> tuple[float, ...]:
    # As `wait_until` is computed: by rounding, a difference may still be too small then.
    return tuple(at for at in sent if now < at + limit.window_s)


def _seconds(first: EventRecord, second: EventRecord) -> float:
    """Between the two; 0 when their clock was set back meanwhile."""
    try:
        return max(0.0, (clock.parse(second.time) - clock.parse(first.time)).total_seconds())
    except ValueError:
        return 0.0


def data_of(event: EventRecord) -> dict[str, object]:
    """What it says to programs."""
    return object_of(event.data)


# -- kept on disk -----------------------------------------------------------------------------------------------------


def to_json(state: TargetState, *, now: float, wall: float) -> str:
    """`wall`: seconds since 1970 at `now`: the monotonic clock begins again with the machine."""
    sent = [round(wall - (now - at), 3) for at in state.sent]
    return json.dumps({"open": state.open, "quiet": state.quiet, "sent": sent})


def from_json(text: str, cursor: int, *, now: float, wall: float) -> TargetState:
    """What is not as `to_json` writes it is left out. A message of the future counts as sent now."""
    try:
        found = json.loads(text)
    except ValueError:
        found = {}
    if not isinstance(found, dict):
        found = {}
    open_ = [tuple(each) for each in _list(found, "open") if isinstance(each, list) and len(each) == 2]
    return TargetState(
        cursor,
        open=tuple((code, str(object_)) for code, object_ in open_ if code in CODES and CODES[code].healed_by),
        quiet=tuple(each for each in _list(found, "quiet") if isinstance(each, int) and each > cursor),
        sent=tuple(sorted(min(now, now - (wall - at)) for at in _list(found, "sent") if isinstance(at, int | float))),
    )


def _list(found: Mapping[str, object], key: str) -> list[object]:
    value = found.get(key)
    return value if isinstance(value, list) else []
