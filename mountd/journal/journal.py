"""Operations and their steps, events, versions and what is known of them: what was asked for and done, durable."""

from __future__ import annotations

import asyncio
import time
from dataclasses import astuple
from pathlib import Path
from typing import Protocol

from mountd.clock import now_text
from mountd.journal.database import Database, columns_of
from mountd.journal.records import (
    Committed,
    Drilled,
    EventRecord,
    KnownContent,
    OperationRecord,
    Quarantined,
    StepRecord,
    action,
)

__all__ = [
    "Committed",
    "Drilled",
    "EventRecord",
    "Journal",
    "KnownContent",
    "OperationRecord",
    "Quarantined",
    "StepRecord",
    "action",
]

EVENTS_KEPT = 10_000
OPERATIONS_KEPT = 10_000
QUARANTINED_KEPT = 1_000
CONTENTS_KEPT = 1_000

_COLUMNS = columns_of(OperationRecord)
_STEP = columns_of(StepRecord)
_EVENT = columns_of(EventRecord)
_COMMITTED = columns_of(Committed)
_QUARANTINED = columns_of(Quarantined)
_CONTENT = columns_of(KnownContent)
_DRILLED = columns_of(Drilled)


class Holds(Protocol):
    """What a version holds: digests of its manifest and of all its paths and sizes."""

    @property
    def digest(self) -> str: ...

    @property
    def listing(self) -> str: ...


class Journal:
    """Every method returns once the change is on disk. Raises JournalError when the disk fails, or somebody holds the
    file; MountdError when the file is no good."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path)
        self._step_began: dict[tuple[int, str], float] = {}
        """monotonic, of the steps that run"""
        self._next_event: asyncio.Future[None] | None = None

    @property
    def path(self) -> Path:
        return self._database.path

    @property
    def replaced(self) -> tuple[Path, str] | None:
        """Where an unusable journal was moved to, and why it is unusable; this one was created in its place.

        Of one that was missing or empty: the file that stands for it, and "".
        """
        return self._database.replaced

    @property
    def is_lost(self) -> bool:
        """It was created at this start: an earlier journal may have known more of a model."""
        return self._database.replaced is not None or self._database.is_new

    async def open(self) -> None:
        """A file that is broken or no journal is set aside and a new one begun, see `replaced`."""
        await self._database.open()

    async def mark_lost(self) -> None:
        """There was a previous run, of which it holds nothing; see `replaced`."""
        if self._database.replaced is None:
            await self._database.mark_lost()

    async def close(self) -> None:
        await self._database.close()

    # -- models ---------------------------------------------------------------------------------------------------

    async def committed(self, model: str) -> Committed:
        rows = await self._database.rows(f"SELECT {_COMMITTED} FROM models WHERE model = ?", model)
        return Committed(*rows[0]) if rows else Committed()

    async def commit(self, model: str, committed: Committed, *, holds: Holds | None = None) -> None:
        """`holds`: what the version that is live now holds; with it or not at all."""
        values = (model, *astuple(committed))
        statement = (f"INSERT OR REPLACE INTO models (model, {_COMMITTED}) VALUES ({_marks(values)})", *values)
        if holds is None:
            await self._database.change(statement)
        else:
            recorded = _recorded(model, str(committed.current), holds.digest, holds.listing)
            await self._database.change(statement, *recorded)

    async def quarantine(self, model: str, digest: str, *, version: str, operation: int | None, cause: str) -> None:
        """This content is refused from now on, whatever its version is called."""
        values = astuple(Quarantined(model, digest, version, operation, cause, now_text()))
        await self._database.change(
            (f"INSERT OR REPLACE INTO quarantine ({_QUARANTINED}) VALUES ({_marks(values)})", *values),
            _trim("quarantine", QUARANTINED_KEPT),
        )

    async def quarantined(self, model: str) -> dict[str, Quarantined]:
        """By digest."""
        rows = await self._database.rows(f"SELECT {_QUARANTINED} FROM quarantine WHERE model = ?", model)
        return {each.digest: each for each in (Quarantined(*row) for row in rows)}

    async def release(self, model: str, digest: str) -> bool:
        """Out of quarantine; False: it was not in it."""
        sql = "DELETE FROM quarantine WHERE model = ? AND digest = ? RETURNING digest"
        return bool(await self._database.rows(sql, model, digest))

    async def record_content(self, model: str, version: str, *, digest: str, listing: str) -> None:
        """What the version holds now, instead of what was recorded before."""
        await self._database.change(*_recorded(model, version, digest, listing))

    async def content(self, model: str, version: str) -> KnownContent | None:
        sql = f"SELECT {_CONTENT} FROM contents WHERE model = ? AND version = ?"
        rows = await self._database.rows(sql, model, version)
        return KnownContent(*rows[0]) if rows else None

    async def rename_digest(self, model: str, former: str, digest: str) -> None:
        """The same content, by another rule for digests: what is known of it, and its quarantine."""
        await self._database.change(
            ("UPDATE contents SET digest = ? WHERE model = ? AND digest = ?", digest, model, former),
            ("UPDATE OR REPLACE quarantine SET digest = ? WHERE model = ? AND digest = ?", digest, model, former),
        )

    # -- operations -----------------------------------------------------------------------------------------------

    async def begin(
        self,
        *,
        kind: str,
        model: str,
        from_version: str | None,
        to_version: str,
        operator: str,
        source: str,
        reason: str,
        step: str,
    ) -> OperationRecord:
        sql = (
            "INSERT INTO operations (kind, model, from_version, to_version, operator, source, reason, step, started)"
            f" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING {_COLUMNS}"
        )
        row = (kind, model, from_version, to_version, operator, source, reason, step, now_text())
        # With an operation goes what belongs to it.
        rows = await self._database.change(
            (sql, *row),
            _trim("operations", OPERATIONS_KEPT),
            ("DELETE FROM steps WHERE operation < (SELECT min(id) FROM operations)",),
            ("DELETE FROM drills WHERE operation < (SELECT min(id) FROM operations)",),
        )
        return OperationRecord(*rows[0])

    async def record_step(self, id_: int, step: str) -> None:
        await self._database.rows("UPDATE operations SET step = ? WHERE id = ?", step, id_)

    async def begin_step(self, operation: int, step: str) -> None:
        """It is begun now, and the one that the operation is at; before anything of it is done."""
        await self._database.change(
            ("INSERT INTO steps (operation, step, began) VALUES (?, ?, ?)", operation, step, now_text()),
            ("UPDATE operations SET step = ? WHERE id = ?", step, operation),
        )
        self._step_began[operation, step] = time.monotonic()

    async def end_step(self, operation: int, step: str, outcome: str, *, cause: str = "") -> None:
        """The step that was begun last under this name has ended; `outcome` is one word, such as done or failed.

        `cause`: why the operation fails, known from now on even if mountd dies while it is undone.
        """
        began = self._step_began.pop((operation, step), None)
        seconds = None if began is None else round(time.monotonic() - began, 3)
        sql = (
            "UPDATE steps SET ended = ?, outcome = ?, duration_s = ? WHERE id ="
            " (SELECT max(id) FROM steps WHERE operation = ? AND step = ? AND ended IS NULL)"
        )
        await self._database.change(
            (sql, now_text(), outcome, seconds, operation, step),
            ("UPDATE operations SET cause = ? WHERE id = ? AND ? != ''", cause, operation, cause),
        )

    async def steps(self, operation: int) -> list[StepRecord]:
        """In the order in which they were begun."""
        sql = f"SELECT {_STEP} FROM steps WHERE operation = ? ORDER BY id"
        return [StepRecord(*row) for row in await self._database.rows(sql, operation)]

    async def finish(
        self,
        id_: int,
        *,
        result: str,
        cause: str,
        hint: str,
        exit_code: int,
        duration_s: float | None,
        finished: str | None = None,
    ) -> OperationRecord | None:
        """As it stands in the journal then; None: its row was trimmed away. `finished`: when that was, if not now."""
        sql = (
            "UPDATE operations SET finished = ?, result = ?, cause = ?, hint = ?, exit_code = ?, duration_s = ?"
            f" WHERE id = ? RETURNING {_COLUMNS}"
        )
        ended = (finished or now_text(), result, cause, hint, exit_code, duration_s)
        rows = await self._database.rows(sql, *ended, id_)
        self._step_began = {key: began for key, began in self._step_began.items() if key[0] != id_}
        return OperationRecord(*rows[0]) if rows else None

    async def operation(self, id_: int) -> OperationRecord | None:
        rows = await self._database.rows(f"SELECT {_COLUMNS} FROM operations WHERE id = ?", id_)
        return OperationRecord(*rows[0]) if rows else None

    async def newest(self, model: str) -> int:
        """The id of the last operation on it, 0 when there was none."""
        ((newest,),) = await self._database.rows("SELECT coalesce(max(id), 0) FROM operations WHERE model = ?", model)
        return int(newest)

    async def unfinished(self) -> list[OperationRecord]:
        rows = await self._database.rows(f"SELECT {_COLUMNS} FROM operations WHERE finished IS NULL ORDER BY id")
        return [OperationRecord(*row) for row in rows]

    async def history(
        self,
        model: str | None = None,
        kind: str | None = None,
        result: str | None = None,
        *,
        limit: int,
        before: int | None = None,
    ) -> list[OperationRecord]:
        """Newest first, at most `limit`, of those with an id below `before`; for drills `model` is the mount."""
        where, values = _where({"model = ?": model, "kind = ?": kind, "result = ?": result, "id < ?": before})
        sql = f"SELECT {_COLUMNS} FROM operations {where} ORDER BY id DESC LIMIT ?"
        return [OperationRecord(*row) for row in await self._database.rows(sql, *values, limit)]

    async def record_drill(self, drilled: Drilled) -> None:
        values = astuple(drilled)
        await self._database.rows(f"INSERT OR REPLACE INTO drills ({_DRILLED}) VALUES ({_marks(values)})", *values)

    async def drill(self, operation: int) -> Drilled | None:
        rows = await self._database.rows(f"SELECT {_DRILLED} FROM drills WHERE operation = ?", operation)
        return Drilled(*rows[0]) if rows else None

    # -- events ---------------------------------------------------------------------------------------------------

    async def event(self, code: str, object_: str, text: str) -> None:
        sql = "INSERT INTO events (time, code, object, text) VALUES (?, ?, ?, ?)"
        await self._database.change((sql, now_text(), code, object_, text), _trim("events", EVENTS_KEPT))
        if self._next_event is not None and not self._next_event.done():
            self._next_event.set_result(None)
            self._next_event = None

    async def events(
        self, after: int | None = None, *, limit: int, code: str | None = None, object_: str | None = None
    ) -> list[EventRecord]:
        """Oldest first: the first `limit` with an id above `after`, without it the last `limit` of all."""
        where, values = _where({"id > ?": after, "code = ?": code, "object = ?": object_})
        order = "ASC" if after is not None else "DESC"
        sql = f"SELECT {_EVENT} FROM events {where} ORDER BY id {order} LIMIT ?"
        found = [EventRecord(*row) for row in await self._database.rows(sql, *values, limit)]
        return found if after is not None else found[::-1]

    async def last_of(self, *codes: str) -> EventRecord | None:
        """The newest event with one of these codes."""
        sql = f"SELECT {_EVENT} FROM events WHERE code IN ({_marks(codes)}) ORDER BY id DESC LIMIT 1"
        rows = await self._database.rows(sql, *codes)
        return EventRecord(*rows[0]) if rows else None

    async def last_event(self) -> int:
        """The id of the newest event, 0 when there is none."""
        ((newest,),) = await self._database.rows("SELECT coalesce(max(id), 0) FROM events")
        return int(newest)

    def event_written(self) -> asyncio.Future[None]:
        """Done once one more event is in the journal; take it before reading, so that none comes in between."""
        if self._next_event is None:
            self._next_event = asyncio.get_running_loop().create_future()
        return self._next_event


def _recorded(model: str, version: str, digest: str, listing: str) -> tuple[tuple[object, ...], ...]:
    values = astuple(KnownContent(model, version, digest, listing, now_text()))
    return (
        (f"INSERT OR REPLACE INTO contents ({_CONTENT}) VALUES ({_marks(values)})", *values),
        _trim("contents", CONTENTS_KEPT),
    )


def _marks(values: tuple[object, ...]) -> str:
    return ", ".join("?" * len(values))


def _trim(table: str, kept: int) -> tuple[object, ...]:
    # By the row's number: what is replaced counts as new.
    return (f"DELETE FROM {table} WHERE rowid <= (SELECT max(rowid) FROM {table}) - ?", kept)


def _where(asked: dict[str, object | None]) -> tuple[str, list[object]]:
    given = {condition: value for condition, value in asked.items() if value is not None}
    return ("WHERE " + " AND ".join(given) if given else "", list(given.values()))
