"""Operations and their steps, events, versions and what is known of them: what was asked for and done, durable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mountd.clock import now_text
from mountd.journal.database import LONGEST_TEXT, Database, columns_of, marks, put
from mountd.journal.records import (
    REPORTED_KINDS,
    SCHEDULE,
    Committed,
    Declared,
    Drilled,
    EventRecord,
    KnownContent,
    NotifyCursor,
    OperationRecord,
    Quarantined,
    StepRecord,
    action,
)
from mountd.text import dumps

__all__ = [
    "Committed",
    "Declared",
    "Drilled",
    "EventRecord",
    "Journal",
    "KnownContent",
    "NotifyCursor",
    "OperationRecord",
    "Quarantined",
    "StepRecord",
    "action",
]

EVENTS_KEPT = 10_000
"""Of results that were uploaded, and as many of all others: a busy app pushes nothing else out."""
UPLOADED = "result-uploaded"
OPERATIONS_KEPT = 10_000
QUARANTINED_KEPT = 1_000
CONTENTS_KEPT = 1_000
_OLDEST = f"SELECT min(id) FROM operations WHERE kind != '{SCHEDULE}'"
"""A schedule has neither steps nor a drill, and may wait for a year."""
_SAME = ("kind", "operator", "source", "reason", "revision", "result", "hint", "started", "finished", "duration_s")
_RESULT_FIELDS = {"operation": "id", "from": "from_version", "to": "to_version", **{name: name for name in _SAME}}
"""What the event of a result says of its operation."""


class Journal(Database):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._step_began: dict[tuple[int, str], float] = {}
        """monotonic, of the steps that run"""
        self._next_event: asyncio.Future[None] | None = None
        self._quarantined: dict[str, int] | None = None
        """as `quarantined_counts`; None: to be counted again"""

    @property
    def is_lost(self) -> bool:
        """It was created at this start: an earlier journal may have known more of a model."""
        return self.replaced is not None or self.is_new

    # -- models ---------------------------------------------------------------------------------------------------

    async def committed(self, model: str) -> Committed:
        return await self.first(Committed, "WHERE model = ?", model) or Committed()

    async def commit(self, model: str, committed: Committed, *, holds: KnownContent | None = None) -> None:
        """`holds`: what the version that is live now holds; with it or not at all."""
        await self.change(put(committed, model=model), *(_recorded(holds) if holds else ()))

    async def declared(self, model: str) -> Declared | None:
        return await self.first(Declared, "WHERE model = ?", model)

    async def declare(self, declared: Declared) -> None:
        """What a source says now, instead of what was said before."""
        await self.change(put(declared))

    async def quarantine(self, model: str, digest: str, *, version: str, operation: int | None, cause: str) -> None:
        """This content is refused from now on, whatever its version is called."""
        row = put(Quarantined(model, digest, version, operation, cause, now_text()))
        try:
            await self.change(row, _trim("quarantine", QUARANTINED_KEPT))
        finally:
            self._quarantined = None

    async def quarantined(self, model: str) -> dict[str, Quarantined]:
        """By digest."""
        return {each.digest: each for each in await self.read(Quarantined, "WHERE model = ?", model)}

    async def quarantined_counts(self) -> dict[str, int]:
        """How many contents are in quarantine, by model; models without any are left out."""
        if self._quarantined is None:
            rows = await self.rows("SELECT model, count(*) FROM quarantine GROUP BY model")
            self._quarantined = {str(model): int(count) for model, count in rows}
        return self._quarantined

    async def release(self, model: str, digest: str) -> bool:
        """Out of quarantine; False: it was not in it."""
        sql = "DELETE FROM quarantine WHERE model = ? AND digest = ? RETURNING digest"
        try:
            return bool(await self.rows(sql, model, digest))
        finally:
            self._quarantined = None

    async def record_content(self, holds: KnownContent) -> None:
        """What the version holds now, instead of what was recorded before."""
        await self.change(*_recorded(holds))

    async def content(self, model: str, version: str) -> KnownContent | None:
        return await self.first(KnownContent, "WHERE model = ? AND version = ?", model, version)

    async def rename_digest(self, model: str, former: str, digest: str) -> None:
        """The same content, by another rule for digests: what is known of it, and its quarantine."""
        await self.change(
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
        due: str | None = None,
        schedule: int | None = None,
        options: str = "",
        revision: str | None = None,
    ) -> OperationRecord:
        values = "kind, model, from_version, to_version, operator, source, reason, step, started"
        row: tuple[object, ...] = (kind, model, from_version, to_version, operator, source, reason, step, now_text())
        values, row = f"{values}, due, schedule, options, revision", (*row, due, schedule, options, revision)
        sql = f"INSERT INTO operations ({values}) VALUES ({marks(row)}) RETURNING {columns_of(OperationRecord)}"
        # With an operation goes what belongs to it.
        rows = await self.change(
            (sql, *row),
            _trim("operations", OPERATIONS_KEPT, but=f"kind = '{SCHEDULE}' AND finished IS NULL"),
            *((f"DELETE FROM {table} WHERE operation < ({_OLDEST})",) for table in ("steps", "drills")),
        )
        return OperationRecord(*rows[0])

    async def record_step(self, id_: int, step: str) -> None:
        await self.rows("UPDATE operations SET step = ? WHERE id = ?", step, id_)

    async def begin_step(self, operation: int, step: str) -> None:
        """It is begun now, and the one that the operation is at; before anything of it is done."""
        await self.change(
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
        await self.change(
            (sql, now_text(), outcome, seconds, operation, step),
            ("UPDATE operations SET cause = ? WHERE id = ? AND ? != ''", cause, operation, cause),
        )

    async def steps(self, operation: int) -> list[StepRecord]:
        """In the order in which they were begun."""
        return await self.read(StepRecord, "WHERE operation = ? ORDER BY id", operation)

    async def finish(self, record: OperationRecord) -> None:
        """Writes its result, and when that was, with the event of a switch or a rollback; its row may be trimmed away.

        Its result once more is not another event.
        """
        sql = (
            "UPDATE operations SET finished = ?, result = ?, cause = ?, hint = ?, exit_code = ?, duration_s = ?"
            " WHERE id = ?"
        )
        ended = (record.finished, record.result, record.cause, record.hint, record.exit_code, record.duration_s)
        reported = await self.operation(record.id) if record.kind in REPORTED_KINDS else None
        if reported is not None and reported.finished is None:
            data = {key: getattr(record, name) for key, name in _RESULT_FIELDS.items()}
            event = _event(f"{record.kind}-{record.result}", record.model, record.outcome, data)
            await self.change_with_event((sql, *ended, record.id), event)
        else:
            await self.rows(sql, *ended, record.id)
        self._step_began = {key: began for key, began in self._step_began.items() if key[0] != record.id}

    async def operation(self, id_: int) -> OperationRecord | None:
        return await self.first(OperationRecord, "WHERE id = ?", id_)

    async def newest(self, model: str) -> int:
        """The id of the last operation on it, 0 when there was none; schedules, which only wait, are left out."""
        sql = "SELECT coalesce(max(id), 0) FROM operations WHERE model = ? AND kind != ?"
        ((newest,),) = await self.rows(sql, model, SCHEDULE)
        return int(newest)

    async def unfinished(self) -> list[OperationRecord]:
        return await self.read(OperationRecord, "WHERE finished IS NULL AND kind != ? ORDER BY id", SCHEDULE)

    async def scheduled(self) -> list[OperationRecord]:
        """The schedules that are not finished."""
        return await self.read(OperationRecord, "WHERE finished IS NULL AND kind = ? ORDER BY id", SCHEDULE)

    async def became(self, schedule: int) -> OperationRecord | None:
        """The switch that this schedule became: written with it or not at all, so that it never becomes two."""
        return await self.first(OperationRecord, "WHERE schedule = ?", schedule)

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
        return await self.read(OperationRecord, f"{where} ORDER BY id DESC LIMIT ?", *values, limit)

    async def record_drill(self, drilled: Drilled) -> None:
        await self.change(put(drilled))

    async def drill(self, operation: int) -> Drilled | None:
        return await self.first(Drilled, "WHERE operation = ?", operation)

    # -- events ---------------------------------------------------------------------------------------------------

    async def event(self, code: str, object_: str, text: str, data: Mapping[str, object] | None = None) -> None:
        """`data`: for programs, what can be JSON; what is too large for the journal is left out, the largest first."""
        await self.change_with_event(_event(code, object_, text, data))

    async def change_with_event(self, *statements: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """As `change`, with statements of which one writes an event."""
        found = await self.change(*statements, *_trim_events(EVENTS_KEPT))
        self._wake()
        return found

    def _wake(self) -> None:
        if self._next_event is not None and not self._next_event.done():
            self._next_event.set_result(None)
            self._next_event = None

    async def events(
        self,
        after: int | None = None,
        *,
        limit: int,
        before: int | None = None,
        code: str | None = None,
        object_: str | None = None,
        uploads: bool = True,
    ) -> list[EventRecord]:
        """Oldest first: the first `limit` with an id above `after`, without it the last `limit` of all.

        `before`: only those with an id below it; without `uploads` none of a result that was uploaded.
        """
        without = None if uploads else UPLOADED
        where, values = _where(
            {"id > ?": after, "id < ?": before, "code = ?": code, "object = ?": object_, "code != ?": without}
        )
        order = "ASC" if after is not None else "DESC"
        found = await self.read(EventRecord, f"{where} ORDER BY id {order} LIMIT ?", *values, limit)
        return found if after is not None else found[::-1]

    async def lost_after(self, cursor: int) -> tuple[int, int]:
        """How many events above that id, uploads aside, have left the journal; and the id of the first that is there.

        Where uploads have left it as well, those among them count too: nobody knows what they were.
        """
        others = f"FROM events INDEXED BY events_of_others WHERE code != '{UPLOADED}'"
        rows = await self.rows(f"SELECT id {others} ORDER BY id LIMIT 1")
        first = int(rows[0][0]) if rows else 0
        if first <= cursor + 1:
            return 0, first
        ((kept,),) = await self.rows(f"SELECT count(*) {others}")
        if kept < EVENTS_KEPT:
            return 0, first
        ((uploads,),) = await self.rows("SELECT count(*) FROM events WHERE id > ? AND id < ?", cursor, first)
        return first - cursor - 1 - uploads, first

    async def last_of(self, *codes: str, object_: str | None = None) -> EventRecord | None:
        """The newest event with one of these codes, of this object or of any."""
        where = f"WHERE code IN ({marks(codes)}) AND object = coalesce(?, object) ORDER BY id DESC LIMIT 1"
        return await self.first(EventRecord, where, *codes, object_)

    async def last_of_each(self, codes: Collection[str]) -> list[EventRecord]:
        """The newest event of each of these codes, of each object, with the same data; oldest first."""
        newest = f"SELECT max(id) FROM events WHERE code IN ({marks(tuple(codes))}) GROUP BY code, object, data"
        return await self.read(EventRecord, f"WHERE id IN ({newest}) ORDER BY id", *codes)

    async def last_event(self) -> int:
        """The id of the newest event, 0 when there is none."""
        ((newest,),) = await self.rows("SELECT coalesce(max(id), 0) FROM events")
        return int(newest)

    def event_written(self) -> asyncio.Future[None]:
        """Done once one more event is in the journal; take it before reading, so that none comes in between."""
        if self._next_event is None:
            self._next_event = asyncio.get_running_loop().create_future()
        return self._next_event

    # -- notifications --------------------------------------------------------------------------------------------

    async def identity(self) -> str:
        """Of this journal: one that is begun after a loss has another, so that no event of the two has the same."""
        ((found,),) = await self.rows("SELECT id FROM identity")
        return str(found)

    async def notify_cursor(self, target: str) -> NotifyCursor | None:
        return await self.first(NotifyCursor, "WHERE target = ?", target)

    async def keep_notify_cursor(self, cursor: NotifyCursor) -> None:
        await self.change(put(cursor))

    async def forget_notify_cursors(self, kept: Collection[str]) -> None:
        """Those of all targets but these: one that comes back begins with the newest event."""
        await self.rows(f"DELETE FROM notify WHERE target NOT IN ({marks(tuple(kept))})", *kept)


def _event(code: str, object_: str, text: str, data: Mapping[str, object] | None) -> tuple[object, ...]:
    sql = "INSERT INTO events (time, code, object, text, data) VALUES (?, ?, ?, ?, ?)"
    kept = dict(data or {})
    while len(stored := dumps(kept)) > LONGEST_TEXT:  # it would be cut, and be no JSON any more
        del kept[max(kept, key=lambda key: len(dumps({key: kept[key]})))]
    return sql, now_text(), code, object_, text, stored if kept else ""


def _recorded(holds: KnownContent) -> tuple[tuple[object, ...], ...]:
    return put(holds), _trim("contents", CONTENTS_KEPT)


def _trim(table: str, kept: int, *, but: str = "FALSE") -> tuple[object, ...]:
    """`but`: rows that stay however old they are."""
    # By the row's number: what is replaced counts as new.
    return (f"DELETE FROM {table} WHERE rowid <= (SELECT max(rowid) FROM {table}) - ? AND NOT ({but})", kept)


def _trim_events(kept: int) -> tuple[tuple[object, ...], ...]:
    # As the two indices have it, which serve no other words for the same.
    indices = {"events_of_results": f"code = '{UPLOADED}'", "events_of_others": f"code != '{UPLOADED}'"}
    return tuple(
        (
            f"DELETE FROM events INDEXED BY {index} WHERE {which} AND id <="
            f" (SELECT id FROM events INDEXED BY {index} WHERE {which} ORDER BY id DESC LIMIT 1 OFFSET ?)",
            kept,
        )
        for index, which in indices.items()
    )


def _where(asked: dict[str, object | None]) -> tuple[str, list[object]]:
    given = {condition: value for condition, value in asked.items() if value is not None}
    return ("WHERE " + " AND ".join(given) if given else "", list(given.values()))
