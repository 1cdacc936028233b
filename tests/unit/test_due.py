"""When a scheduled switch is carried out, by a wall clock that may be set; and what is understood as a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd import clock
from mountd.errors import UsageError
from mountd.operation import due
from mountd.operation.due import Turn

NOW = datetime(2026, 1, 31, 2, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "ahead"),
    [
        ("+30m", timedelta(minutes=30)),
        ("+1h30m", timedelta(minutes=90)),
        ("+500ms", timedelta(seconds=1)),
        ("2026-01-31T02:00:00.001Z", timedelta(seconds=1)),
        ("2026-01-31T03:00:00Z", timedelta(hours=1)),
        ("2026-01-31T11:30:00+08:00", timedelta(minutes=90)),
        ("2026-01-31 03:00+00:00", timedelta(hours=1)),
        ("2027-01-31T03:00:00Z", timedelta(days=365, hours=1)),
    ],
)
def test_times(text: str, ahead: timedelta) -> None:
    found = due.moment(text, NOW)
    assert (found - NOW, found.utcoffset()) == (ahead, timedelta(0))


@pytest.mark.parametrize(
    "text",
    [
        *("", "+", "+0", "-5m", "30m", "+5", "+9999d", "+5x", "03:00", "tomorrow", "2026-01-31", "2026-01-31T03:00:00"),
        *("2026-01-31T02:00:00Z", "2026-01-31T01:59:59Z", "2026-01-31T03:00:00+02:00", "2027-03-01T00:00:00Z"),
        *("2026-02-30T00:00:00Z", "9999-12-31T23:59:59-23:00", "x" * 1000),
    ],
)
def test_what_is_no_time_ahead(text: str) -> None:
    with pytest.raises(UsageError):
        due.moment(text, NOW)


@given(st.integers(-(10**6), 10**6))
def test_it_waits_is_due_for_an_hour_and_was_missed_then(late_s: int) -> None:
    turn = due.turn(NOW, NOW + timedelta(seconds=late_s))
    assert turn is (Turn.WAITS if late_s < 0 else Turn.DUE if late_s <= due.LATE_S else Turn.MISSED)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_is_read_as_it_is_written(moment: datetime) -> None:
    assert clock.parse(clock.as_text(moment, "microseconds")) == moment


def test_a_time_without_an_offset_is_none() -> None:
    with pytest.raises(ValueError, match="offset"):
        clock.parse("2026-01-31T03:00:00")
