"""The wall clock: as text for people and documents, and to be compared with another one. Timers run on the monotonic
clock."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """In UTC. Somebody may set this clock at any time, forth and back."""
    return datetime.now(UTC)


def now_text(timespec: str = "milliseconds") -> str:
    """Now in UTC, ISO 8601, ending in Z: `2026-01-31T12:00:00.123Z`. `timespec`: as for `datetime.isoformat`."""
    return as_text(now(), timespec)


def as_text(moment: datetime, timespec: str = "milliseconds") -> str:
    return moment.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def parse(text: str) -> datetime:
    """ISO 8601 with an offset, or Z → that moment in UTC. Raises ValueError, also for one without an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    return moment.astimezone(UTC)
