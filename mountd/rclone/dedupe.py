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
_OTHERS = ("", "")
"""In place of the level and kind of a line for which there is no room any more."""


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

    def __init__(self, *, kinds: int = KINDS) -> None:
        self._most_kinds = kinds
        self._kinds: dict[tuple[str, str], _Repeats] = {}
        """by level and kind; the `first` of _OTHERS is the last one of the highest level"""

    @property
    def due(self) -> float | None:
        """When `flush` has something to log; None while no repeat was counted."""
        counting = [each.since for each in self._kinds.values() if each.count]
        return min(counting) + WINDOW_S if counting else None

    def feed(self, event: LogEvent, now: float) -> list[LogEvent]:
        """The lines to log because of this one, in order. Debug lines all pass."""
        if event.level == "debug":
            return [event]
        lines = self.flush(now)
        key = (event.level, kind_of(event.text))
        if key not in self._kinds and len(self._kinds.keys() - {_OTHERS}) >= self._most_kinds:
            key = _OTHERS
        if key not in self._kinds:
            self._kinds[key] = _Repeats(event, now)
            if key != _OTHERS:
                return [*lines, event]
        known = self._kinds[key]
        known.count += 1
        if key == _OTHERS and _SEVERITY.index(event.level) >= _SEVERITY.index(known.first.level):
            known.first = event
        return lines

    def flush(self, now: float) -> list[LogEvent]:
        """The counts of windows that are over. A kind without repeats is forgotten: its next line is a first one."""
        over = {key: each for key, each in self._kinds.items() if now >= each.since + WINDOW_S}
        lines = [_counted(key, each, now) for key, each in over.items() if each.count]
        for key, each in over.items():
            if each.count and key != _OTHERS:
                each.count, each.since = 0, now
            else:
                del self._kinds[key]
        return lines

    def finish(self, now: float) -> list[LogEvent]:
        """All counts, when rclone has exited; the next one starts with none."""
        lines = [_counted(key, each, now) for key, each in self._kinds.items() if each.count]
        self._kinds = {}
        return lines


def _counted(key: tuple[str, str], kind: _Repeats, now: float) -> LogEvent:
    seconds, many = max(1, round(now - kind.since)), kind.count > 1
    if key == _OTHERS:
        lines = f"{kind.count} more lines" if many else "1 more line"
        what = f"… {lines} of other kinds in {seconds} s, such as: "
    else:
        what = f"… repeated {f'{kind.count} times' if many else 'once'} in {seconds} s: "
    return LogEvent(kind.first.level, what + kind.first.text[:SHOWN_CHARACTERS])
