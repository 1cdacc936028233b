"""Which events a target gets, when, and in how many messages; with a clock that the test sets."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mountd import clock
from mountd.codes import CODES, HEALING, MUST_KNOW
from mountd.journal.records import EventRecord
from mountd.notify import rules
from mountd.notify.rules import Notification, Rules, TargetState, decide, ends, from_json, is_alarm, to_json
from mountd.settings.units import Limit

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ALL = ("*",)


def event(id_: int, code: str, object_: str = "mountd", at: float = 0.0, **data: object) -> EventRecord:
    time = clock.as_text(EPOCH + timedelta(seconds=at))
    return EventRecord(id_, time, code, object_, f"{object_} {code}", json.dumps(data) if data else "")


@dataclass
class World:
    """A journal, a clock and a target that takes everything at once."""

    rules: Rules
    state: TargetState = field(default_factory=lambda: TargetState(0))
    events: list[EventRecord] = field(default_factory=list)
    seen: dict[int, float] = field(default_factory=dict)
    now: float = 1000.0
    sent: list[tuple[float, Notification]] = field(default_factory=list)
    wait_until: float | None = None

    def happens(self, code: str, object_: str = "mountd", **data: object) -> None:
        self.events.append(event(len(self.events) + 1, code, object_, self.now, **data))

    def run(self) -> None:
        """Until nothing is to be sent now."""
        while True:
            waiting = [each for each in self.events if each.id > self.state.cursor]
            for each in waiting:
                self.seen.setdefault(each.id, self.now)
            decision = decide(self.rules, self.state, waiting, self.seen, self.now)
            assert decision.state.cursor >= self.state.cursor
            self.state, self.wait_until = decision.state, decision.wait_until
            if decision.notification is None:
                return
            self.state = self.state.delivered(self.now, self.rules.limit)
            self.sent.append((self.now, decision.notification))

    def wait(self, seconds: float) -> None:
        """As the task does: decides at once, and again when it was asked to."""
        self.run()
        until = self.now + seconds
        while self.wait_until is not None and self.wait_until <= until:
            self.now = max(self.now, self.wait_until)
            self.run()
        self.now = until
        self.run()

    @property
    def codes(self) -> list[str]:
        return [notification.last.code for _, notification in self.sent]


def world(**given_rules: object) -> World:
    return World(Rules("ops", **{"patterns": ALL, **given_rules}))  # type: ignore[arg-type]


def test_only_what_is_wanted_is_sent_in_its_order() -> None:
    now = world(patterns=("switch-*", "ready"))
    for code in ("mountd-started", "switch-refused", "reload-requested", "switch-committed", "ready"):
        now.happens(code)
    now.run()
    assert now.codes == ["switch-refused", "switch-committed", "ready"]
    assert now.state.cursor == 5
    now.run()
    assert len(now.sent) == 3


def test_what_is_wrong_with_a_target_is_not_sent_to_it() -> None:
    now = world()
    now.happens("notify-failing", "ops")
    now.happens("notifications-dropped", "ops")
    now.happens("notify-failing", "people")
    now.run()
    assert [(each.last.code, each.last.object) for _, each in now.sent] == [("notify-failing", "people")]


def test_an_alarm_that_passes_is_not_sent_and_neither_is_its_end() -> None:
    now = world(after_s=30.0)
    now.happens("not-ready")
    now.run()
    assert (now.sent, now.wait_until) == ([], 1030.0)
    now.wait(20.0)
    now.happens("ready")
    now.wait(100.0)
    assert now.sent == []
    now.happens("ready")  # as after a start, of no alarm
    now.run()
    assert now.codes == ["ready"]


def test_an_alarm_that_lasts_is_sent_and_its_end_as_well() -> None:
    now = world(patterns=("not-ready",), after_s=30.0)
    now.happens("not-ready")
    now.wait(29.0)
    assert now.sent == []
    now.wait(2.0)
    assert [(at, notification.last.code) for at, notification in now.sent] == [(1030.0, "not-ready")]
    now.wait(500.0)
    now.happens("ready")
    now.run()
    assert now.codes == ["not-ready", "ready"]
    now.happens("ready")
    now.run()
    assert now.codes == ["not-ready", "ready"], "one message, and nobody asked for `ready` as such"


def test_the_end_is_not_sent_when_nobody_wants_it() -> None:
    now = world(patterns=("not-ready",), healed=False)
    now.happens("not-ready")
    now.happens("ready")
    now.run()
    assert now.codes == ["not-ready"]


def test_an_alarm_ends_only_on_its_own_object() -> None:
    now = world(patterns=MUST_KNOW, after_s=30.0)
    now.happens("bucket-unreachable", "store")
    now.happens("bucket-answers", "other")
    now.wait(31.0)
    assert [(n.last.code, n.last.object) for _, n in now.sent] == [("bucket-unreachable", "store")]
    now.happens("bucket-answers", "other")
    now.run()
    assert len(now.sent) == 1
    now.happens("bucket-answers", "store")
    now.run()
    assert now.codes == ["bucket-unreachable", "bucket-answers"]


def test_one_end_is_of_all_causes() -> None:
    now = world(patterns=MUST_KNOW)
    now.happens("bucket-unreachable", "store")
    now.happens("access-denied", "store")
    now.run()
    now.happens("bucket-answers", "store")
    now.run()
    assert now.codes == ["bucket-unreachable", "access-denied", "bucket-answers"]
    assert now.state.open == ()


def test_where_one_code_ends_several_its_data_says_which() -> None:
    now = world(patterns=MUST_KNOW)
    now.happens("no-memory")
    now.happens("disk-full")
    now.run()
    now.happens("recovered", of="no-memory")
    now.run()
    assert [*now.state.open] == [("disk-full", "mountd")]
    now.happens("recovered")
    now.run()
    assert [*now.state.open] == []


def test_an_alarm_that_waits_holds_up_what_comes_after_it() -> None:
    now = world(after_s=30.0)
    now.happens("switch-committed", "hub")
    now.happens("not-ready")
    now.happens("reload-requested")
    now.run()
    assert now.codes == ["switch-committed"]
    now.wait(31.0)
    assert now.codes == ["switch-committed", "not-ready", "reload-requested"]


def test_after_a_restart_the_times_of_the_events_count() -> None:
    """All are read at once then: how long the alarm lasted says its own clock."""
    now = world(after_s=30.0)
    now.happens("not-ready")
    now.now += 100.0
    now.happens("ready")
    now.happens("not-ready")
    now.now += 5.0
    now.happens("ready")
    now.run()
    assert now.codes == ["not-ready", "ready"]


def test_a_clock_that_was_set_back_makes_no_trouble() -> None:
    now = world(after_s=30.0)
    now.happens("not-ready")
    now.events.append(event(2, "ready", at=-10_000.0))
    now.run()
    assert now.sent == []


def test_the_last_message_of_a_limit_summarises_what_waits() -> None:
    now = world(limit=Limit(3, 3600.0))
    for number in range(10):
        now.happens("link-drifted", f"m{number}")
    now.run()
    assert [notification.last.object for _, notification in now.sent] == ["m0", "m1", "m9"]
    assert now.sent[-1][1].left_out == {"link-drifted": 7}
    now.happens("app-failed", "webui")
    now.run()
    assert len(now.sent) == 3
    now.wait(3599.0)
    assert len(now.sent) == 3
    now.wait(2.0)
    assert now.codes[3:] == ["app-failed"], "what was held back is sent although nothing else happens"


def test_people_get_what_waits_as_one_message() -> None:
    now = world(limit=Limit(5, 3600.0), digest=True)
    for number in range(4):
        now.happens("app-failed", f"a{number}")
    now.run()
    ((_, notification),) = now.sent
    assert [each.object for each in notification.events] == ["a0", "a1", "a2", "a3"]
    for number in range(rules.SHOWN + 12):
        now.happens("app-failed", f"b{number}")
    now.run()
    _, notification = now.sent[-1]
    assert (len(notification.events), notification.left_out) == (rules.SHOWN, {"app-failed": 12})
    assert notification.last.object == f"b{rules.SHOWN + 11}"


def test_an_alarm_that_was_only_counted_counts_as_sent() -> None:
    now = world(limit=Limit(1, 3600.0), patterns=("app-failed", "switch-*"))
    now.happens("app-failed", "webui")
    now.happens("switch-failed", "hub")
    now.run()
    assert now.sent[0][1].left_out == {"app-failed": 1}
    now.wait(4000.0)
    now.happens("app-running", "webui")
    now.run()
    assert now.codes == ["switch-failed", "app-running"]


def test_a_notice_is_an_alarm_while_one_of_it_is_not_over() -> None:
    alarm, end = event(1, "not-ready"), event(2, "ready")
    assert Notification((alarm,)).is_alarm
    assert not Notification((alarm, end)).is_alarm
    assert Notification((alarm, end, event(3, "app-failed", "webui"))).is_alarm
    assert not Notification((event(1, "switch-committed"),)).is_alarm


def test_what_is_remembered_survives_a_restart_of_the_machine() -> None:
    state = TargetState(7, (("not-ready", "mountd"),), (9, 12), (90.0, 100.0))
    text = to_json(state, now=110.0, wall=5000.0)
    again = from_json(text, 7, now=3.0, wall=5060.0)
    assert again == TargetState(7, (("not-ready", "mountd"),), (9, 12), (-77.0, -67.0))
    assert from_json(text, 10, now=3.0, wall=0.0).sent == (3.0, 3.0), "a clock that was set back: as if sent now"
    assert from_json(text, 10, now=3.0, wall=0.0).quiet == (12,)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{", '{"open": 3, "quiet": {}, "sent": ["x"]}', '{"open": [["x", "y"], 1, ["ready", "z"]]}'],
)
def test_a_state_that_cannot_be_read_is_an_empty_one(text: str) -> None:
    assert from_json(text, 5, now=1.0, wall=1.0) == TargetState(5)


# -- whatever happens -------------------------------------------------------------------------------------------------

SOME = [*sorted(HEALING)[:6], "not-ready", "app-failed", "bucket-silent", "access-denied", "disk-full", "switch-failed"]
STEPS = st.lists(
    st.tuples(st.sampled_from(SOME), st.sampled_from(["mountd", "a", "b"]), st.floats(0, 200)), max_size=40
)
LIMITS = st.none() | st.builds(Limit, st.integers(1, 4), st.floats(1, 500))


def shown(sent: Sequence[tuple[float, Notification]]) -> list[EventRecord]:
    return [each for _, notification in sent for each in notification.events]


@settings(max_examples=300)
@given(STEPS, LIMITS, st.sampled_from([0.0, 10.0, 60.0]), st.booleans(), st.booleans())
def test_any_events_arrive_in_order_once_and_within_the_limit(
    steps: list[tuple[str, str, float]], limit: Limit | None, after_s: float, digest: bool, healed: bool
) -> None:
    now = world(limit=limit, after_s=after_s, digest=digest, healed=healed)
    for code, object_, pause_s in steps:
        now.happens(code, object_)
        now.run()
        now.wait(pause_s)
    now.wait(2000.0)
    # Never more messages than allowed in any window, however it lies.
    if limit is not None:
        times = [at for at, _ in now.sent]
        for index in range(len(times) - limit.count):
            assert times[index + limit.count] - times[index] >= limit.window_s - 1e-6
    # In order, and each at most once.
    ids = [each.id for each in shown(now.sent)]
    assert ids == sorted(set(ids))
    # All is decided in the end, and each event is shown, counted, or was quiet with its alarm.
    assert now.state.cursor == len(now.events)
    counted = sum((Counter(notification.left_out) for _, notification in now.sent), Counter[str]())
    said = Counter(each.code for each in shown(now.sent)) + counted
    happened = Counter(each.code for each in now.events)
    assert not said - happened
    for code in happened:
        if code not in HEALING and not is_alarm(event(1, code)):
            assert said[code] == happened[code]
    if after_s == 0.0:
        assert said == happened, "all are wanted, and none waits"


@given(STEPS)
def test_an_alarm_is_missing_only_when_its_end_was_soon(steps: list[tuple[str, str, float]]) -> None:
    now = world(after_s=60.0)
    for code, object_, pause_s in steps:
        now.happens(code, object_)
        now.run()
        now.wait(pause_s)
    now.wait(2000.0)
    sent = {each.id for each in shown(now.sent)}
    for index, each in enumerate(now.events):
        if is_alarm(each):
            end = next((later for later in now.events[index + 1 :] if ends(later, rules.alarm_key(each))), None)
            lasted = 1e9
            if end is not None:
                lasted = (clock.parse(end.time) - clock.parse(each.time)).total_seconds()
            assert (each.id in sent) == (lasted >= 60.0)


@given(STEPS, st.integers(0, 39), LIMITS)
def test_a_restart_between_two_messages_changes_nothing_that_is_sent(
    steps: list[tuple[str, str, float]], at: int, limit: Limit | None
) -> None:
    """But for `seen`: after it an alarm waits once more."""

    def played(restarts: bool) -> list[int]:
        now = world(limit=limit)
        for index, (code, object_, pause_s) in enumerate(steps):
            now.happens(code, object_)
            now.run()
            if restarts and index == at:
                text = to_json(now.state, now=now.now, wall=50_000.0)
                now.state = from_json(text, now.state.cursor, now=now.now, wall=50_000.0)
                now.seen.clear()
            now.wait(round(pause_s))
        now.wait(3000.0)
        return [each.id for each in shown(now.sent)]

    assert played(True) == played(False)


def test_every_alarm_can_be_waited_for() -> None:
    for code, each in CODES.items():
        for healing in each.healed_by:
            assert ends(event(2, healing, "x", of=code), (code, "x"))
            assert not ends(event(2, healing, "y"), (code, "x"))
