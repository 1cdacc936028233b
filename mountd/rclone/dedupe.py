"""Lines of rclone over time → the lines to log: of each kind the first one at once, then one count for each window.

In an outage rclone logs the same for each object and each attempt. Two lines are of one kind when only their numbers,
ids, paths and quoted names differ. The output is bounded whatever rclone logs: in a window at most `KINDS` first lines,
as many counts, and one count of all other kinds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mountd.rclone.log import LogEvent

WINDOW_S = 30.0
KINDS = 64
"""Known at a time. There may be more: lines can also differ in words that are not taken for names."""
KIND_CHARACTERS = 300
SHOWN_CHARACTERS = 500
ID_CHARACTERS = 20
VARYING = "#"

_PART = re.compile(
    r"(?P<status>(?:status ?code|http error|status)[ :=]+\d{3}\b)"  # 403 and 503 are not the same
    r"|(?P<quoted>\"[^\"]*\"|(?<!\w)'[^']*'(?!\w)|`[^`]*`)"
    r"|(?P<word>[^\s\"',;`()\[\]{}<>]+)",
    re.IGNORECASE,
)
_SEVERITY = ("debug", "info", "warning", "error")


def kind_of(text: str) -> str:
    """`text` without its varying parts: equal for lines that differ only in the object or attempt."""
    return _PART.sub(_without_varying, text)[:KIND_CHARACTERS]


def _without_varying(match: re.Match[str]) -> str:
    part = match[0]
    if match.lastgroup == "status":
        return part
    if match.lastgroup == "quoted":
        return VARYING
    varies = "/" in part or len(part) >= ID_CHARACTERS or any(character.isdigit() for character in part)
    return VARYING if varies else part


@dataclass(slots=True)
class _Repeats:
    first: LogEvent
    since: float
    count: int = 0


class Deduplicator:
    """The lines of one rclone. Times are seconds on the monotonic clock, never falling."""

    def __init__(self, *, window_s: float = WINDOW_S, kinds: int = KINDS) -> None:
        self._window_s = window_s
        self._most_kinds = kinds
        self._kinds: dict[tuple[str, str], _Repeats] = {}
        self._others: _Repeats | None = None
        """lines of further kinds; its `first` is the last one of the highest level"""

    @property
    def due(self) -> float | None:
        """When `flush` has something to log; None while no repeat was counted."""
        counting = [each.since for each in self._kinds.values() if each.count]
        if self._others is not None:
            counting.append(self._others.since)
        return min(counting) + self._window_s if counting else None

    def feed(self, event: LogEvent, now: float) -> list[LogEvent]:
        """The lines to log because of this one, in order. Debug lines all pass."""
        if event.level == "debug":
            return [event]
        lines = self.flush(now)
        key = (event.level, kind_of(event.text))
        if key in self._kinds:
            self._kinds[key].count += 1
        elif len(self._kinds) < self._most_kinds:
            self._kinds[key] = _Repeats(event, now)
            lines.append(event)
        else:
            self._count_other(event, now)
        return lines

    def flush(self, now: float) -> list[LogEvent]:
        """The counts of windows that are over. A kind without repeats is forgotten: its next line is a first one."""
        over = {key: each for key, each in self._kinds.items() if now >= each.since + self._window_s}
        lines = [_counted(each, now) for each in over.values() if each.count]
        for key, each in over.items():
            if each.count:
                each.count, each.since = 0, now
            else:
                del self._kinds[key]
        if self._others is not None and now >= self._others.since + self._window_s:
            lines.append(_counted_others(self._others, now))
            self._others = None
        return lines

    def finish(self, now: float) -> list[LogEvent]:
        """All counts, when rclone has exited; the next one starts with none."""
        lines = [_counted(each, now) for each in self._kinds.values() if each.count]
        if self._others is not None:
            lines.append(_counted_others(self._others, now))
        self._kinds, self._others = {}, None
        return lines

    def _count_other(self, event: LogEvent, now: float) -> None:
        if self._others is None:
            self._others = _Repeats(event, now)
        elif _SEVERITY.index(event.level) >= _SEVERITY.index(self._others.first.level):
            self._others.first = event
        self._others.count += 1


def _counted(kind: _Repeats, now: float) -> LogEvent:
    times = f"{kind.count} times" if kind.count > 1 else "once"
    return _line(kind, f"… repeated {times} in {_seconds(kind, now)} s: ")


def _counted_others(others: _Repeats, now: float) -> LogEvent:
    lines = f"{others.count} more lines" if others.count > 1 else "1 more line"
    return _line(others, f"… {lines} of other kinds in {_seconds(others, now)} s, such as: ")


def _line(kind: _Repeats, what: str) -> LogEvent:
    return LogEvent(kind.first.level, what + kind.first.text[:SHOWN_CHARACTERS])


def _seconds(kind: _Repeats, now: float) -> int:
    return max(1, round(now - kind.since))
