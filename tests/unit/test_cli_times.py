"""Times on the command line, in the zone of this machine where they name none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import click
import pytest

from mountd.cli import times

NOW = datetime(2026, 1, 31, 2, 0, tzinfo=UTC)


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "text", "moment"),
    [
        ("UTC0", "03:00", "2026-01-31T03:00:00Z"),
        ("UTC0", "02:00", "2026-02-01T02:00:00Z"),
        ("UTC0", "01:59:59", "2026-02-01T01:59:59Z"),
        ("UTC0", "2026-01-31T03:00", "2026-01-31T03:00:00Z"),
        ("UTC0", "2026-01-31 03:00:30", "2026-01-31T03:00:30Z"),
        ("CST-8", "03:00", "2026-01-31T19:00:00Z"),
        ("CST-8", "11:00", "2026-01-31T03:00:00Z"),
        ("CST-8", "2026-01-31T11:00", "2026-01-31T03:00:00Z"),
        ("CST-8", "2026-01-31T11:00:00Z", "2026-01-31T11:00:00Z"),
        ("CST-8", "2026-01-31T11:00:00+01:00", "2026-01-31T10:00:00Z"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "2026-07-01T03:00", "2026-07-01T01:00:00Z"),
        ("CST-8", "+30m", "+30m"),
    ],
    indirect=["zone"],
)
@pytest.mark.usefixtures("zone")
def test_the_next_moment(text: str, moment: str) -> None:
    assert times.moment_ahead(text, NOW) == moment


@pytest.mark.parametrize(
    ("zone", "text", "seconds"),
    [
        ("UTC0", "10m", 600),
        ("UTC0", "90s", 90),
        ("UTC0", "01:30", 1800),
        ("UTC0", "02:30", 86400 - 1800),
        ("CST-8", "09:30", 1800),
        ("CST-8", "2026-01-31T09:00", 3600),
        ("CST-8", "2026-01-31T01:00:00Z", 3600),
        ("UTC0", "2027-01-01T00:00", 0),
        ("UTC0", "2026-01-30", 86400 + 7200),
    ],
    indirect=["zone"],
)
@pytest.mark.usefixtures("zone")
def test_the_last_moment(text: str, seconds: float) -> None:
    assert times.seconds_ago(text, NOW) == seconds


@pytest.mark.parametrize("text", ["", "x", "25:00", "03:60", "3:0:0:0", "+", "+5", "2026-13-01T00:00", "T03:00", "-5m"])
def test_what_is_no_time(text: str) -> None:
    for read in (times.moment_ahead, times.seconds_ago):
        with pytest.raises(click.BadParameter):
            read(text, NOW)


@pytest.mark.parametrize(
    ("zone", "shown"),
    [("UTC0", "2026-01-31T03:00:00Z"), ("CST-8", "2026-01-31T03:00:00Z (11:00 +0800)")],
    indirect=["zone"],
)
@pytest.mark.usefixtures("zone")
def test_a_time_with_what_clocks_here_show(shown: str) -> None:
    assert times.as_here("2026-01-31T03:00:00Z") == shown
