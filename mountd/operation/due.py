"""When a scheduled switch begins: its time, and whether it waits, is due or was missed."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum, auto

from mountd import clock
from mountd.errors import UsageError
from mountd.settings.units import parse_duration

LATE_S = 3600.0
"""How late it may begin: a switch for 03:00 must not begin at noon because mountd was down until then."""
FARTHEST = timedelta(days=366)
HINT = "write +30m, or a time with its offset from UTC: 2026-01-31T03:00:00Z"


class Turn(Enum):
    WAITS = auto()
    DUE = auto()
    MISSED = auto()


def moment(text: str, now: datetime) -> datetime:
    """`+30m`, or ISO 8601 with an offset → UTC, the next whole second, in the future. Raises UsageError."""
    try:
        ahead = timedelta(seconds=parse_duration(text[1:])) if text.startswith("+") else None
        found = clock.parse(text) if ahead is None else now + ahead
        part = timedelta(microseconds=found.microsecond)
        found += timedelta(seconds=1) - part if part and found > now else timedelta()
    except (ValueError, OverflowError):
        raise UsageError(f"cannot schedule for {text!r}: it is not a time", hint=HINT) from None
    if found <= now:
        raise UsageError(
            f"cannot schedule for {text}: it is not in the future", hint=f"here it is {clock.as_text(now, 'seconds')}"
        )
    if found - now > FARTHEST:
        raise UsageError(f"cannot schedule for {text}: it is more than {FARTHEST.days} days ahead", hint=HINT)
    return found


def turn(due: datetime, now: datetime) -> Turn:
    """`now` is that of the wall clock, which may have been set since the last look."""
    if now < due:
        return Turn.WAITS
    return Turn.DUE if (now - due).total_seconds() <= LATE_S else Turn.MISSED
