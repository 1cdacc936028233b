"""The journal's file: opened and brought up to date, used on a thread of its own, set aside when it is broken."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, fields
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from mountd.errors import JournalError, JournalHeld, MountdError, cause_of
from mountd.journal.records import (
    Committed,
    Declared,
    Drilled,
    EventRecord,
    KnownContent,
    NotifyCursor,
    OperationRecord,
    OutboxFile,
    Quarantined,
    StepRecord,
)
from mountd.text import printable, storable

BROKEN_KEPT = 3
"""Of the files that were set aside; the oldest go."""
LOCKED_S = 5.0
"""How long another program may hold the file."""
LONGEST_TEXT = 16 * 1024
"""Characters in one field: texts from outside were cut before, this is the net."""

_SCHEMAS = (
    "schema.sql",
    "schema-2-drills.sql",
    "schema-3-switch.sql",
    "schema-4-scheduled.sql",
    "schema-5-desired.sql",
    "schema-6-event-data.sql",
    "schema-7-outbox.sql",
    "schema-8-notify.sql",
)
"""The n-th leads to schema n: a new file runs all, one of an older mountd those that it has not had."""
_FIRST_TABLES = frozenset({"operations", "events", "models"})
"""Of the first schema: a file without them is no journal, whatever number it has."""
_COMPANIONS = ("-journal", "-wal", "-shm")
"""What SQLite may have beside a file: applied to another one, it would break that."""
_T = TypeVar("_T")


_TABLES: dict[type[Any], str] = {
    OperationRecord: "operations",
    StepRecord: "steps",
    EventRecord: "events",
    Committed: "models",
    Quarantined: "quarantine",
    KnownContent: "contents",
    Drilled: "drills",
    Declared: "declared",
    NotifyCursor: "notify",
    OutboxFile: "outbox",
}


def columns_of(kind: type[Any]) -> str:
    return ", ".join(field.name for field in fields(kind))


def put(record: Any, **more: object) -> tuple[object, ...]:
    """The statement that writes its row, in place of one with the same key. `more`: columns without a field of it."""
    values = (*more.values(), *astuple(record))
    columns = ", ".join((*more, columns_of(type(record))))
    return f"INSERT OR REPLACE INTO {_TABLES[type(record)]} ({columns}) VALUES ({marks(values)})", *values


def marks(values: tuple[object, ...]) -> str:
    return ", ".join("?" * len(values))


class _Broken(Exception):
    """The file can never be used as a journal; the cause in words."""


class Database:
    """Every call is carried out on its thread, one after the other, and returns once a change is on disk.

    Raises JournalError when the disk fails or somebody holds the file, MountdError when the file is no good.

    Not in WAL mode: the state directory may lie on a network volume, where its shared memory does not work.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.replaced: tuple[Path, str] | None = None
        """Where an unusable file was moved to, and why it is unusable; this one was created in its place.

        Of one that was missing or empty: the file that stands for it, and "".
        """
        self.is_new = False
        """there was none, or an empty one"""
        self.errors = 0
        """calls that failed"""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._db: sqlite3.Connection | None = None

    async def open(self) -> None:
        """A file that is broken or no journal is set aside and a new one begun, see `replaced`."""
        await self.run(self._open)

    async def close(self) -> None:
        if self._db is not None:
            await self.run(self._db.close)
        self._thread.shutdown(wait=False)

    async def run(self, work: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            self.errors += 1
            text = f"cannot use the journal {self.path}: {error}"
            if isinstance(error, _Newer):
                hint = f"run the newer mountd, or begin a new journal: mv {self.path} {self.path}.newer"
            elif _is_locked(error):
                by = await asyncio.to_thread(holders, self.path)
                whom = ", ".join(by) or "another program"
                held = f"cannot use the journal {self.path}: it is locked by {whom}"
                raise JournalHeld(held, hint="end what is done there; mountd goes on by itself") from None
            elif not isinstance(error, sqlite3.OperationalError) or is_about_schema(error):
                hint = "restart mountd: it sets a broken journal aside and begins a new one"
            else:
                hint = "see whether its disk is full or read-only, or another program holds the file"
                raise JournalError(text, hint=hint) from None
            raise MountdError(text, hint=hint, code=JournalError.code) from None
        except OSError as error:
            self.errors += 1
            cause = cause_of(error)
            raise MountdError(
                f"cannot set the broken journal {self.path} aside: {cause}",
                hint=f"let mountd's user write in {self.path.parent}, or move the file away",
                code=JournalError.code,
            ) from None

    async def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """One statement, its own transaction."""
        return await self.run(lambda: self._rows(sql, *values))

    async def read(self, kind: type[_T], which: str, *values: object) -> list[_T]:
        """The rows of its table that `which`, the end of a SELECT, means."""
        sql = f"SELECT {columns_of(kind)} FROM {_TABLES[kind]} {which}"
        return [kind(*row) for row in await self.rows(sql, *values)]

    async def first(self, kind: type[_T], which: str, *values: object) -> _T | None:
        found = await self.read(kind, which, *values)
        return found[0] if found else None

    async def change(self, *statements: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """All of the statements (each its text and values) or none; the rows that the first one returns."""

        def work() -> list[tuple[Any, ...]]:
            self._rows("BEGIN IMMEDIATE")
            try:
                found = [self._rows(str(sql), *values) for sql, *values in statements]
                self._rows("COMMIT")
            except sqlite3.Error:
                with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back already
                    self._rows("ROLLBACK")
                raise
            return found[0]

        return await self.run(work)

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        assert self._db is not None
        stored = [storable(value, LONGEST_TEXT) if isinstance(value, str) else value for value in values]
        return self._db.execute(sql, stored).fetchall()

    async def mark_lost(self) -> None:
        """There was a previous run, of which it holds nothing: a file that says so stands for it, see `replaced`."""
        if self.replaced is not None:
            return

        def work() -> Path:
            mark = _aside(self.path)
            mark.write_text(
                "The journal was missing or empty: mountd began a new one, and took its links as the truth.\n"
            )
            _sweep(self.path)
            return mark

        self.replaced = (await self.run(work), "")

    # -- the file -------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._connect()
        except _Broken as broken:
            self._close()
            self.replaced = (set_aside(self.path), str(broken))
            self._connect()

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _connect(self) -> None:
        _keep_private(self.path)
        self._db = sqlite3.connect(self.path, isolation_level=None, timeout=LOCKED_S, check_same_thread=False)
        try:
            # With FULL a power failure may take back what was committed last: its directory is not on disk yet. A
            # receiver has that event by then, and would get the same upload under another id.
            self._rows("PRAGMA synchronous = EXTRA")
            self._bring_up_to_date()
        except (sqlite3.OperationalError, _Newer):  # the disk, or another program; the file may be good
            self._close()
            raise
        except sqlite3.DatabaseError as error:
            raise _Broken(str(error)) from None

    def _bring_up_to_date(self) -> None:
        ((version,),) = self._rows("PRAGMA user_version")
        tables = {str(name) for (name,) in self._rows("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if (version or tables) and not (version > 0 and tables >= _FIRST_TABLES):
            raise _Broken("it is a database of another program")
        self.is_new = not version and self.replaced is None
        if version > len(_SCHEMAS):
            raise _Newer(f"it is of a newer mountd (schema {version})")
        ((first, *_),) = self._rows("PRAGMA quick_check(1)")
        if first != "ok":
            raise _Broken(str(first))
        missing = [files(__package__).joinpath(name).read_text("utf-8") for name in _SCHEMAS[version:]]
        try:
            if missing:
                assert self._db is not None
                self._db.executescript(f"BEGIN IMMEDIATE;{''.join(missing)}")
            self._check_columns()
            if missing:
                self._rows("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):  # there may be nothing to roll back
                self._rows("ROLLBACK")
            if is_about_schema(error):
                raise _Broken(str(error)) from None
            raise

    def _check_columns(self) -> None:
        for kind, table in _TABLES.items():
            self._rows(f"SELECT {columns_of(kind)} FROM {table} LIMIT 0")


def _keep_private(path: Path) -> None:
    """0600, with what lies beside it: who can read a database can lock it. SQLite gives its own files the same mode."""
    with contextlib.suppress(OSError):  # SQLite reports what cannot be opened
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    for entry in [path, *path.parent.glob(f"{path.name}[-.]*")]:
        with contextlib.suppress(OSError):
            if entry.stat(follow_symlinks=False).st_mode & 0o777 != 0o600 and not entry.is_symlink():
                entry.chmod(0o600)


class _Newer(sqlite3.DatabaseError):
    """A file that a newer mountd wrote: good, but not for us."""


def is_about_schema(error: sqlite3.Error) -> bool:
    """SQLITE_ERROR: the statement does not fit the tables; the disk and locks have codes of their own."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


def _is_locked(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def holders(path: Path) -> list[str]:
    """Who has a lock on the file, as far as the kernel shows: `sqlite3 (pid 12)`. Blocks.

    The file itself is not opened: to close it again would end SQLite's own locks on it.
    """
    found: dict[str, None] = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        here = os.stat(path)
        place = f"{os.major(here.st_dev):02x}:{os.minor(here.st_dev):02x}:{here.st_ino}"
        with open("/proc/locks", encoding="ascii") as locks:
            for fields in map(str.split, locks):
                if place in fields and "->" not in fields and fields[4] not in ("0", "-1", str(os.getpid())):
                    found[fields[4]] = None
    return [f"{_name(pid)} (pid {pid})" for pid in found]


def _name(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return printable(file.read().strip())
    except OSError:
        return "a process"


def set_aside(path: Path) -> Path:
    """Renames the file and what SQLite has beside it; where it is now. At most BROKEN_KEPT are kept. Raises OSError."""
    broken = _aside(path)
    os.rename(path, broken)
    for companion in _COMPANIONS:
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{companion}", f"{broken}{companion}")
    _sweep(path)
    return broken


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.broken-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")


def _sweep(path: Path) -> None:
    """Of what was set aside the oldest go."""
    ours = re.compile(re.escape(f"{path.name}.broken-") + r"\d{8}T\d{6}\.\d{6}Z")
    kept = sorted(entry for entry in os.listdir(path.parent) if ours.fullmatch(entry))
    for name in kept[:-BROKEN_KEPT]:
        for companion in ("", *_COMPANIONS):
            with contextlib.suppress(OSError):
                os.unlink(path.with_name(f"{name}{companion}"))
