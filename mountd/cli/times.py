"""Times on the command line: `+30m`, `10m`, `03:00`, `2026-01-31T03:00`; what names no zone is this machine's time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from mountd.cli.options import duration
from mountd.clock import as_text, now

HINT = "write 03:00, 2026-01-31T03:00, or 2026-01-31T03:00:00Z"


def moment_ahead(text: str, present: datetime | None = None) -> str:
    """`--at`, as the API takes it: `+30m` as it is, the next `03:00`, any ISO 8601 → UTC. Raises BadParameter."""
    if text.startswith("+"):
        duration(text[1:])  # checked here, counted from by the daemon
        return text
    present = present or now()
    found = _moment(text, present)
    if found <= present and _is_clock_time(text):
        found = _moment(text, present, days=1)
    return as_text(found, "seconds")


def seconds_ago(text: str, present: datetime | None = None) -> float:
    """`--since`: `10m`, the last `03:00`, any ISO 8601 → seconds before now; 0.0 in the future. Raises BadParameter."""
    if not _is_clock_time(text) and "-" not in text:
        return duration(text)
    present = present or now()
    found = _moment(text, present)
    if found > present and _is_clock_time(text):
        found = _moment(text, present, days=-1)
    return max(0.0, (present - found).total_seconds())


def as_here(utc: str) -> str:
    """A time of mountd with what clocks here show then: `2026-01-31T03:00:00Z (11:00 +0800)`; in UTC nothing."""
    moment = datetime.fromisoformat(utc).astimezone()
    return f"{utc} ({moment:%H:%M %z})" if moment.utcoffset() else utc


def until(utc: str) -> float:
    """Seconds until a time of mountd, less than 0 when it is over."""
    return (datetime.fromisoformat(utc) - now()).total_seconds()


def time_of(utc: str) -> float:
    """A time of mountd as seconds since 1970; 0.0 of what is none."""
    try:
        return datetime.fromisoformat(utc).timestamp()
    except ValueError:
        return 0.0


def _is_clock_time(text: str) -> bool:
    return ":" in text and "-" not in text and "T" not in text


def _moment(text: str, present: datetime, *, days: int = 0) -> datetime:
    """In UTC; `days`: those from today, of a clock time."""
    try:
        if _is_clock_time(text):
            clock = datetime.strptime(text, "%H:%M:%S" if text.count(":") == 2 else "%H:%M").time()  # noqa: DTZ007
            day = present.astimezone().date() + timedelta(days=days)
            found = datetime.combine(day, clock)  # of this machine: the offset may differ from that of now
        else:
            found = datetime.fromisoformat(text)
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is not a time: {HINT}") from None
