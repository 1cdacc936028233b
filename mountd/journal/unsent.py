"""Events of results that do not arrive: of each kind one a minute, however many files it is about.

Who writes into an outbox chooses names, and how many: neither may push everything else out of the journal, or send a
notification for each file. What comes within the minute is in the next event.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mountd.clock import now_text
from mountd.journal.journal import Journal
from mountd.text import LIMIT, dumps, printable, storable

EACH_S = 60.0
MOST_NAMES = 10
LONGEST_OF_MANY = 200
"""Characters of each name where there are several."""
LONGEST_CAUSE = 300
LOST, REFUSED, FAILED = "result-lost", "result-refused", "result-failed"
"""Codes of events, beside that of an upload."""
_STATES = {LOST: "lost", REFUSED: "refused", FAILED: "failed"}
UNSAID = -1
"""Tries of a file that does not arrive, and is in no event yet: a run that is killed leaves them to the next one."""


def shown(name: bytes, limit: int = LIMIT) -> str:
    """The name of a file as a terminal can show it, in so many characters."""
    return storable(printable(name.decode("utf-8", "backslashreplace")), limit)


def short(cause: str) -> str:
    """What rclone or a store says may repeat a long name, or be a whole page."""
    return storable(printable(cause), LONGEST_CAUSE)


@dataclass(frozen=True, slots=True)
class Unsent:
    """One file that does not arrive; `text` says why."""

    name: bytes
    size: int
    text: str


def unsent(state: str, name: bytes, size: int, cause: str) -> Unsent:
    """`state`: lost, refused or failed; the cause of one that is refused names it."""
    what = shown(name, LONGEST_OF_MANY)
    match state:
        case "lost":
            return Unsent(name, size, f"{what} was removed before it was uploaded")
        case "failed":
            return Unsent(name, size, f"{what} cannot be uploaded: {short(cause)}")
    return Unsent(name, size, short(cause))


@dataclass(frozen=True, slots=True)
class Batch:
    """Those of one event: how many, the first of them, and a few names."""

    count: int
    first: Unsent
    names: tuple[str, ...]

    @classmethod
    def of(cls, files: Sequence[Unsent], before: Batch | None = None) -> Batch:
        names = tuple(shown(each.name, LONGEST_OF_MANY) for each in files[:MOST_NAMES])
        if before is None:
            return cls(len(files), files[0], names)
        return cls(before.count + len(files), before.first, (*before.names, *names)[:MOST_NAMES])

    def statement(self, code: str, outbox: str, *, when: str = "") -> tuple[object, ...]:
        data = {"name": shown(self.first.name), "size": self.first.size, "count": self.count, "names": self.names}
        text = f"{self.first.text} (and {self.count - 1} more files)" if self.count > 1 else self.first.text
        sql = f"INSERT INTO events (time, code, object, text, data) SELECT ?, ?, ?, ?, ? {when}"
        return sql, now_text(), code, outbox, text, dumps(data)


class UnsentEvents:
    """Of one outbox. Every method raises JournalError or another MountdError, and then has done nothing."""

    def __init__(self, journal: Journal, outbox: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: in seconds, set by nobody."""
        self._journal, self._outbox, self._clock = journal, outbox, clock
        self._waiting: dict[str, Batch] = {}
        self._said_at: dict[str, float] = {}
        self._turn = asyncio.Lock()
        self._knows_former = False

    async def change(self, code: str, files: Sequence[Unsent], *statements: tuple[object, ...]) -> None:
        """The statements, and that by them these files do not arrive.

        Only if the first one returns a row, and the last one changes one: of a single file these are the same. The
        first event of a minute is written with them or not at all; with the others it is that they are in none yet.
        """
        async with self._turn:
            await self._learn()
            batch, is_due = Batch.of(files, self._waiting.get(code)), self._is_due(code)
            if is_due:
                more = [batch.statement(code, self._outbox, when="WHERE changes() = 1"), self._said(code)]
            else:
                sql = "UPDATE outbox SET tries = ? WHERE outbox = ? AND name = ? AND changes() = 1"
                more = [(sql, UNSAID, self._outbox, each.name) for each in files]
            if await self._journal.change_with_event(*statements, *more):
                self._note(code, None if is_due else batch)

    async def write_due(self, *, all_of_them: bool = False) -> None:
        """What has waited for its minute."""
        async with self._turn:
            await self._learn()
            for code in [code for code in self._waiting if all_of_them or self._is_due(code)]:
                await self._journal.change_with_event(
                    self._waiting[code].statement(code, self._outbox), self._said(code)
                )
                self._note(code, None)

    async def _learn(self) -> None:
        """What a run that was killed has not said."""
        if self._knows_former:
            return
        sql = (
            "SELECT name, size, cause, count(*) OVER () FROM outbox INDEXED BY outbox_by_time"
            " WHERE outbox = ? AND state = ? AND tries = ? ORDER BY id LIMIT ?"
        )
        for code, state in _STATES.items():
            rows = await self._journal.rows(sql, self._outbox, state, UNSAID, MOST_NAMES)
            if rows:
                files = [unsent(state, name, size, cause) for name, size, cause, _ in rows]
                self._waiting[code] = replace(Batch.of(files), count=rows[0][3])
        self._knows_former = True

    def _said(self, code: str) -> tuple[object, ...]:
        sql = (
            "UPDATE outbox INDEXED BY outbox_by_time SET tries = 0"
            " WHERE outbox = ? AND state = ? AND tries = ? AND changes() = 1"
        )
        return sql, self._outbox, _STATES[code], UNSAID

    def _is_due(self, code: str) -> bool:
        return self._clock() - self._said_at.get(code, -math.inf) >= EACH_S

    def _note(self, code: str, waiting: Batch | None) -> None:
        if waiting is not None:
            self._waiting[code] = waiting
        else:
            self._waiting.pop(code, None)
            self._said_at[code] = self._clock()
