"""When automatic switches may begin, and those by hand: the rules of Argo CD's sync windows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.gitops.windows import closed, is_active
from mountd.settings.sync import WindowSettings

NIGHT = {"schedule": "0 22 * * *", "duration": "8h"}
"""From 22:00 to 06:00."""
DAY = {"schedule": "0 8 * * 1-5", "duration": "10h"}
TWICE = {"schedule": "30 2 * * *", "duration": "1h", "timezone": "Europe/Berlin"}


def window(kind: str = "allow", **keys: Any) -> WindowSettings:
    return WindowSettings.model_validate({"kind": kind, **NIGHT, **keys})


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


@pytest.mark.parametrize(
    ("keys", "moment", "active"),
    [
        ({}, at("2026-03-04T21:59:59"), False),
        ({}, at("2026-03-04T22:00:00"), True),
        ({}, at("2026-03-05T05:59:59"), True),
        ({}, at("2026-03-05T06:00:00"), False),
        ({"timezone": "Asia/Shanghai"}, at("2026-03-04T22:00:00"), False),
        ({"timezone": "Asia/Shanghai"}, at("2026-03-04T14:00:00"), True),
        ({"timezone": "Asia/Shanghai"}, at("2026-03-04T22:30:00", "Asia/Shanghai"), True),
        (DAY, at("2026-03-06T12:00:00"), True),  # a Friday
        (DAY, at("2026-03-07T12:00:00"), False),
        ({"schedule": "0 0 1 1 *", "duration": "48h"}, at("2026-01-02T23:59:00"), True),
        ({"schedule": "0 0 1 1 *", "duration": "48h"}, at("2026-01-03T00:00:00"), False),
        ({"schedule": "* * * * *", "duration": "1m"}, at("2026-01-03T00:00:30"), True),
        # The night of the change to summer time, when 02:30 does not exist, and to winter time.
        ({"timezone": "Europe/Berlin"}, at("2026-03-29T04:30:00", "Europe/Berlin"), True),
        ({"timezone": "Europe/Berlin"}, at("2026-03-29T07:30:00", "Europe/Berlin"), False),
        ({"timezone": "Europe/Berlin"}, at("2026-10-25T04:30:00", "Europe/Berlin"), True),
        # The hour that comes twice: a window that begins in it begins once.
        (TWICE, at("2026-10-25T00:29:59"), False),
        (TWICE, at("2026-10-25T00:30:00"), True),
        (TWICE, at("2026-10-25T01:29:59"), True),
        (TWICE, at("2026-10-25T01:30:00"), False),
        (TWICE, at("2026-10-25T02:15:00"), False),
        (TWICE, at("2026-10-26T01:30:00"), True),
    ],
)
def test_when_a_window_is_active(keys: dict[str, Any], moment: datetime, active: bool) -> None:
    assert is_active(window(**keys), moment) is active
    assert is_active(window(**keys), moment.astimezone(UTC)) is active


IN, OUT = at("2026-03-04T23:00:00"), at("2026-03-04T12:00:00")


@pytest.mark.parametrize(
    ("windows", "moment", "automatic", "manual"),
    [
        ([], IN, True, True),
        ([window("allow")], IN, True, True),
        ([window("allow")], OUT, False, True),
        ([window("allow", manual="false")], OUT, False, False),
        ([window("deny")], IN, False, True),
        ([window("deny")], OUT, True, True),
        ([window("deny", manual="false")], IN, False, False),
        ([window("allow"), window("deny", manual="false")], IN, False, False),  # deny wins
        ([window("allow"), window("deny")], OUT, False, True),
        ([window("allow"), window("allow", **DAY)], OUT, True, True),
        ([window("allow", manual="false"), window("allow", schedule="0 2 * * *")], OUT, False, False),
    ],
)
def test_what_may_begin(windows: list[WindowSettings], moment: datetime, automatic: bool, manual: bool) -> None:
    assert (not closed(windows, moment)) is automatic
    assert (not closed(windows, moment, manual=True)) is manual


@given(
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    hours=st.integers(1, 24),
    moment=st.integers(1_600_000_000, 1_900_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
)
def test_a_daily_window_is_active_for_its_duration(minute: int, hour: int, hours: int, moment: datetime) -> None:
    found = window(schedule=f"{minute} {hour} * * *", duration=f"{hours}h")
    since = (moment - moment.replace(hour=hour, minute=minute, second=0, microsecond=0)) % timedelta(days=1)
    assert is_active(found, moment) is (since < timedelta(hours=hours))


@given(kinds=st.lists(st.sampled_from(["allow", "deny"]), max_size=4), moment=st.sampled_from([IN, OUT]))
def test_a_person_may_whatever_mountd_may(kinds: list[str], moment: datetime) -> None:
    windows = [window(kind, manual="false") for kind in kinds]
    assert closed(windows, moment) or not closed(windows, moment, manual=True)
