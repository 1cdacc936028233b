"""Lines of rclone over time → what is told of them: the first of a kind at once, its repeats as a count.

An outage makes rclone say the same of each object and each attempt. Two lines are of one kind when only their numbers,
ids, paths and quoted names differ. What is told is bounded, whatever rclone says: in a window at most `NEW_KINDS` first
lines, a count before each of them, a count of each kind, and one of all the rest.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass

from mountd.rclone.log import LogEvent

WINDOW_S = 30.0
KINDS = 64
"""How many are remembered; the one not heard of for longest is forgotten first."""
NEW_KINDS = 32
"""How many first lines are told in a window: lines may differ in words that we do not take for names."""
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
    """`text` without its varying parts: equal for lines that say the same of another object or attempt."""
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
class _Kind:
    first: LogEvent
    since: float
    repeats: int = 0


class Folder:
    """The lines of one rclone. Times are seconds on the monotonic clock, never falling."""

    def __init__(self, *, window_s: float = WINDOW_S, kinds: int = KINDS, new_kinds: int = NEW_KINDS) -> None:
        self._window_s = window_s
        self._most_kinds = kinds
        self._most_new = new_kinds
        self._kinds: OrderedDict[tuple[str, str], _Kind] = OrderedDict()
        self._latest: _Kind | None = None
        self._new_since = float("-inf")
        self._new = 0
        self._rest: _Kind | None = None
        """lines of kinds beyond `new_kinds`; its `first` is the last and worst of them"""

    @property
    def due(self) -> float | None:
        """When `flush` has something to tell; None while nothing is folded."""
        counting = [kind.since for kind in self._kinds.values() if kind.repeats]
        if self._rest is not None:
            counting.append(self._rest.since)
        return min(counting) + self._window_s if counting else None

    def feed(self, event: LogEvent, now: float) -> list[LogEvent]:
        """What is told because of this line, in order. Debug lines are never folded: who asked for them wants each."""
        if event.level == "debug":
            return [event]
        told = self.flush(now)
        key = (event.level, kind_of(event.text))
        kind = self._kinds.get(key)
        if kind is not None and (kind.repeats or now < kind.since + self._window_s):
            kind.repeats += 1
            self._kinds.move_to_end(key)
            self._latest = kind
            return told
        if not self._may_be_told(now):
            self._count_rest(event, now)
            return told
        if self._latest is not None and self._latest is not kind:
            told += self._count(self._latest, now)  # before what comes after it
        self._latest = self._kinds[key] = _Kind(event, now)
        self._kinds.move_to_end(key)
        if len(self._kinds) > self._most_kinds:
            _, forgotten = self._kinds.popitem(last=False)
            told += self._count(forgotten, now)
        return [*told, event]

    def flush(self, now: float) -> list[LogEvent]:
        """The counts whose window is over. A kind that goes on is only counted; one that was silent begins anew."""
        told: list[LogEvent] = []
        for kind in self._kinds.values():
            if now >= kind.since + self._window_s:
                told += self._count(kind, now)
        if self._rest is not None and now >= self._rest.since + self._window_s:
            told += self._tell_rest(now)
        return told

    def finish(self, now: float) -> list[LogEvent]:
        """All counts, at the end of the process; the next one begins anew."""
        told = [line for kind in self._kinds.values() for line in self._count(kind, now)]
        told += self._tell_rest(now)
        self._kinds.clear()
        self._latest, self._new, self._new_since = None, 0, float("-inf")
        return told

    def _may_be_told(self, now: float) -> bool:
        if now >= self._new_since + self._window_s:
            self._new, self._new_since = 0, now
        self._new += 1
        return self._new <= self._most_new

    def _count(self, kind: _Kind, now: float) -> list[LogEvent]:
        """Of a kind that was repeated; its next window begins."""
        if not kind.repeats:
            return []
        times = f"{kind.repeats} times" if kind.repeats > 1 else "once"
        told = _line(kind, f"… repeated {times} in {_seconds(kind, now)} s: ")
        kind.repeats, kind.since = 0, now
        return [told]

    def _count_rest(self, event: LogEvent, now: float) -> None:
        if self._rest is None:
            self._rest = _Kind(event, now)
        elif _SEVERITY.index(event.level) >= _SEVERITY.index(self._rest.first.level):
            self._rest.first = event
        self._rest.repeats += 1

    def _tell_rest(self, now: float) -> list[LogEvent]:
        if self._rest is None:
            return []
        lines = f"{self._rest.repeats} more lines" if self._rest.repeats > 1 else "1 more line"
        told = _line(self._rest, f"… {lines} of other kinds in {_seconds(self._rest, now)} s, such as: ")
        self._rest = None
        return [told]


def _line(kind: _Kind, what: str) -> LogEvent:
    return LogEvent(kind.first.level, what + kind.first.text[:SHOWN_CHARACTERS])


def _seconds(kind: _Kind, now: float) -> int:
    return max(1, round(now - kind.since))
