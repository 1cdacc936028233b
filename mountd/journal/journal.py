"""Operations, events and each model's committed versions in SQLite, on a thread of its own."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from mountd.errors import MountdError

EVENTS_KEPT = 10_000
OPERATIONS_KEPT = 10_000
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Committed:
    """What is durable of a model: the versions that are, were and should be live."""

    current: str | None = None
    previous: str | None = None
    desired: str | None = None
    config_version: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One operation, as it stands in the journal; `finished` is None while it runs."""

    id: int
    kind: str
    model: str
    from_version: str | None
    to_version: str
    operator: str
    source: str
    reason: str
    step: str
    started: str
    finished: str | None = None
    result: str | None = None
    cause: str = ""
    hint: str = ""
    exit_code: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Drilled:
    """What the drill of one operation measured, in seconds; None: did not happen. `details` is a JSON object."""

    operation: int
    kind: str
    mount: str
    detected_s: float | None
    serving_again_s: float | None
    ready_again_s: float | None
    app_restarted: bool
    passed: bool
    details: str = "{}"

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.operation,
            "kind": self.kind,
            "mount": self.mount,
            "detected_s": self.detected_s,
            "serving_again_s": self.serving_again_s,
            "ready_again_s": self.ready_again_s,
            "app_restarted": bool(self.app_restarted),
            "passed": bool(self.passed),
            **json.loads(self.details),
        }


_SCHEMAS = ("schema.sql", "schema-2-drills.sql")
"""The n-th leads to schema n: a new file runs all, one of an older mountd those that it has not had."""
_COLUMNS = ", ".join(field.name for field in fields(Record))
_DRILLED = ", ".join(field.name for field in fields(Drilled))


class Journal:
    """Every method returns once the change is on disk. Raises MountdError when the disk or the file fails.

    Not in WAL mode: the state directory may lie on a network volume, where its shared memory does not work.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._db: sqlite3.Connection | None = None

    async def open(self) -> None:
        await self._run(self._open)

    def _open(self) -> None:
        self._db = sqlite3.connect(self.path, isolation_level=None, timeout=5.0, check_same_thread=False)
        self._db.execute("PRAGMA synchronous = FULL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > len(_SCHEMAS):
            raise sqlite3.DatabaseError(f"it is of a newer mountd (schema {version})")
        for name in _SCHEMAS[version:]:
            schema = files(__package__).joinpath(name).read_text()
            self._db.executescript(f"BEGIN;{schema}COMMIT;")

    async def close(self) -> None:
        if self._db is not None:
            await self._run(self._db.close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            hint = "see whether its disk is full or read-only, or another program holds the file"
            if not isinstance(error, sqlite3.OperationalError):  # as it is for a file that is none of SQLite's
                hint = f"stop mountd and move the broken file away: mv {self.path} {self.path}.broken"
            raise MountdError(f"cannot use the journal {self.path}: {error}", hint=hint) from None

    def _rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        assert self._db is not None
        return self._db.execute(sql, values).fetchall()

    async def committed(self, model: str) -> Committed:
        sql = "SELECT current, previous, desired, config_version FROM models WHERE model = ?"
        rows = await self._run(lambda: self._rows(sql, model))
        return Committed(*rows[0]) if rows else Committed()  # type: ignore[arg-type]

    async def commit(self, model: str, committed: Committed) -> None:
        sql = "INSERT OR REPLACE INTO models (model, current, previous, desired, config_version) VALUES (?, ?, ?, ?, ?)"
        row = (model, committed.current, committed.previous, committed.desired, committed.config_version)
        await self._run(lambda: self._rows(sql, *row))

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
    ) -> Record:
        sql = (
            "INSERT INTO operations (kind, model, from_version, to_version, operator, source, reason, step, started)"
            f" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING {_COLUMNS}"
        )
        row = (kind, model, from_version, to_version, operator, source, reason, step, now_text())
        rows = await self._run(lambda: self._rows(sql, *row))
        await self._run(lambda: self._trim("operations", OPERATIONS_KEPT))
        return Record(*rows[0])  # type: ignore[arg-type]

    async def record_step(self, id_: int, step: str) -> None:
        await self._run(lambda: self._rows("UPDATE operations SET step = ? WHERE id = ?", step, id_))

    async def finish(
        self, id_: int, *, result: str, cause: str, hint: str, exit_code: int, duration_s: float | None
    ) -> Record:
        sql = (
            "UPDATE operations SET finished = ?, result = ?, cause = ?, hint = ?, exit_code = ?, duration_s = ?"
            f" WHERE id = ? RETURNING {_COLUMNS}"
        )
        row = (now_text(), result, cause, hint, exit_code, duration_s, id_)
        rows = await self._run(lambda: self._rows(sql, *row))
        return Record(*rows[0])  # type: ignore[arg-type]

    async def operation(self, id_: int) -> Record | None:
        rows = await self._run(lambda: self._rows(f"SELECT {_COLUMNS} FROM operations WHERE id = ?", id_))
        return Record(*rows[0]) if rows else None  # type: ignore[arg-type]

    async def unfinished(self) -> list[Record]:
        sql = f"SELECT {_COLUMNS} FROM operations WHERE finished IS NULL ORDER BY id"
        return [Record(*row) for row in await self._run(lambda: self._rows(sql))]  # type: ignore[arg-type]

    async def record_drill(self, drilled: Drilled) -> None:
        values = astuple(drilled)
        sql = f"INSERT OR REPLACE INTO drills ({_DRILLED}) VALUES ({', '.join('?' * len(values))})"
        await self._run(lambda: self._rows(sql, *values))
        # With the operation that it belongs to goes what it measured.
        gone = "DELETE FROM drills WHERE operation < (SELECT min(id) FROM operations)"
        await self._run(lambda: self._rows(gone))

    async def drill(self, operation: int) -> Drilled | None:
        rows = await self._run(lambda: self._rows(f"SELECT {_DRILLED} FROM drills WHERE operation = ?", operation))
        return Drilled(*rows[0]) if rows else None  # type: ignore[arg-type]

    async def event(self, code: str, object_: str, text: str) -> None:
        sql = "INSERT INTO events (time, code, object, text) VALUES (?, ?, ?, ?)"
        await self._run(lambda: self._rows(sql, now_text(), code, object_, text))
        await self._run(lambda: self._trim("events", EVENTS_KEPT))

    def _trim(self, table: str, kept: int) -> None:
        self._rows(f"DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?", kept)


def now_text() -> str:
    """The wall clock, for people: UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
