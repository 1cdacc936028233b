"""The wall clock as text, for people and documents. Timers run on the monotonic clock."""

from __future__ import annotations

from datetime import UTC, datetime


def now_text(timespec: str = "milliseconds") -> str:
    """Now in UTC, ISO 8601, ending in Z: `2026-01-31T12:00:00.123Z`. `timespec`: as for `datetime.isoformat`."""
    return datetime.now(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
