"""The files of one outbox in the journal: found, uploaded, announced. Each change is whole, whenever mountd is killed.

Every method raises JournalError or another MountdError while the journal cannot be used.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mountd.clock import now_text
from mountd.journal.database import marks
from mountd.journal.journal import UPLOADED, Journal
from mountd.journal.records import OutboxFile
from mountd.journal.unsent import FAILED, LOST, REFUSED, UnsentEvents, short, unsent
from mountd.text import dumps

KEPT = 10_000
"""Rows of files that are no longer here; the newest stay."""
_WAITING = "state IN ('queued', 'uploading')"
"""As the index has it, which serves no other words for the same."""
RETRIED = 1_000_000
"""Tries of a file that failed and is tried once more: after all others, and counted as failed until it is uploaded."""


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A finished file. `sha256`, `event`: of its upload, when only its ctime is another one since."""

    name: bytes
    size: int
    stamp: str
    state: str = "queued"
    cause: str = ""
    sha256: str = ""
    key: str = ""
    uploaded: str | None = None
    event: int | None = None


@dataclass(frozen=True, slots=True)
class OutboxTotals:
    """`oldest`: when the first of those that wait was queued; `last_key`, `last_time`, `last_compared`: of the newest
    upload; the last one is empty where nobody knows any more."""

    pending: int
    pending_bytes: int
    oldest: str
    failed: int
    failed_cause: str
    uploaded: int
    last_key: str = ""
    last_time: str = ""
    last_compared: tuple[str, ...] = ()


class ResultQueue:
    def __init__(self, journal: Journal, outbox: str) -> None:
        self._journal = journal
        self._outbox = outbox
        self._unsent = UnsentEvents(journal, outbox)
        self.write_due = self._unsent.write_due
        """of what was refused, lost or failed"""

    async def known(self, names: Collection[bytes]) -> dict[bytes, OutboxFile]:
        """What is known of these files."""
        rows = await self._journal.read(
            OutboxFile, f"WHERE outbox = ? AND name IN ({marks((*names,))})", self._outbox, *names
        )
        return {row.name: row for row in rows}

    async def put(self, found: Sequence[ResultFile], root: str) -> None:
        """Finished files, each in place of what is known under its name, with a new id; an event for those refused."""
        columns = "outbox, name, state, size, stamp, root, sha256, key, cause, uploaded, event, queued"
        sql = f"INSERT OR REPLACE INTO outbox ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id"
        now = now_text()
        rows = [
            (
                self._outbox,
                it.name,
                it.state,
                it.size,
                it.stamp,
                root,
                it.sha256,
                it.key,
                short(it.cause),
                it.uploaded,
                it.event,
            )
            for it in found
        ]
        statements = [(sql, *row, now) for row in rows]
        refused = [unsent(it.state, it.name, it.size, it.cause) for it in found if it.state == "refused"]
        if refused:
            await self._unsent.change(REFUSED, refused, *statements)
        elif rows:
            await self._journal.change(*statements)

    async def restamp(self, stamps: Mapping[int, str]) -> None:
        """By id: only the ctime is another one. What was uploaded meanwhile has its content compared again."""
        if stamps:
            sql = (
                "UPDATE outbox SET stamp = ?, state = CASE WHEN state IN ('uploaded', 'removed') THEN 'queued' ELSE"
                " state END WHERE id = ? AND stamp != ?"
            )
            await self._journal.change(*((sql, stamp, id_, stamp) for id_, stamp in stamps.items()))

    async def waiting(self, limit: int, root: str) -> list[OutboxFile]:
        """Those of this directory to be uploaded next: the least tried first, then the one that has waited longest."""
        return await self._journal.read(
            OutboxFile,
            f"WHERE outbox = ? AND {_WAITING} AND root = ? ORDER BY tries, id LIMIT ?",
            self._outbox,
            root,
            limit,
        )

    async def page(self, after: int, limit: int, *states: str) -> list[OutboxFile]:
        """By id, from the one after `after` on."""
        which = (
            f"WHERE outbox = ? AND +state IN ({marks(states)}) AND id > ? ORDER BY id LIMIT ?"  # +: by id, not by state
        )
        return await self._journal.read(OutboxFile, which, self._outbox, *states, after, limit)

    async def kept_until(self, uploaded_before: str, limit: int, after: tuple[str, int] = ("", 0)) -> list[OutboxFile]:
        """Files that are here and were uploaded at that time or before, the oldest first; `after`: the time and the id
        of the one before the first."""
        which = (
            "WHERE outbox = ? AND state = 'uploaded' AND uploaded <= ? AND (uploaded, id) > (?, ?)"
            " ORDER BY uploaded, id LIMIT ?"
        )
        return await self._journal.read(OutboxFile, which, self._outbox, uploaded_before, *after, limit)

    async def first_kept(self) -> str | None:
        """When the file that is here longest was uploaded."""
        sql = "SELECT min(uploaded) FROM outbox WHERE outbox = ? AND state = 'uploaded'"
        ((first,),) = await self._journal.rows(sql, self._outbox)
        return str(first) if first is not None else None

    # -- one file -------------------------------------------------------------------------------------------------

    async def begin(self, id_: int, *, sha256: str, md5: str, bucket: str, key: str) -> bool:
        """Before anything of it is sent: an earlier upload was of other content. False: there is a newer version."""
        sql = (
            "UPDATE outbox SET state = 'uploading', sha256 = ?, md5 = ?, bucket = ?, key = ?, event = NULL"
            f" WHERE id = ? AND {_WAITING} RETURNING id"
        )
        return bool(await self._journal.rows(sql, sha256, md5, bucket, key, id_))

    async def done(self, row: OutboxFile, stamp: str = "", *, compared: Sequence[str] = ("size",)) -> bool:
        """Uploaded, verified and announced: all of it or nothing. `stamp`: of the file, when it still held that;
        `compared`: what it was verified by.

        False: there is a newer version of it, or the file may be one, and is to be looked at again.
        """
        now = now_text()
        data = {"bucket": row.bucket, "key": row.key, "size": row.size, "digest": f"sha256:{row.sha256}"}
        data |= {"compared": [*compared], "time": now}
        text = f"{row.key} is in {row.bucket or 'its remote'}: {row.size} bytes, sha256 {row.sha256}"
        return bool(
            await self._journal.change_with_event(
                (
                    "UPDATE outbox SET state = 'uploaded', stamp = ?, uploaded = ?, cause = '', tries = 0"
                    " WHERE id = ? AND state = 'uploading' AND stamp IN (?, ?) RETURNING id",
                    *(stamp or row.stamp, now, row.id, row.stamp, stamp),
                ),
                # Each of the following acts only when the one before it has.
                (
                    "INSERT INTO events (time, code, object, text, data) SELECT ?, ?, ?, ?, ? WHERE changes() = 1",
                    *(now, UPLOADED, self._outbox, text, dumps(data)),
                ),
                ("UPDATE outbox SET event = last_insert_rowid() WHERE id = ? AND changes() = 1", row.id),
                (
                    "INSERT INTO outbox_totals (outbox, uploaded) SELECT ?, 1 WHERE changes() = 1"
                    " ON CONFLICT (outbox) DO UPDATE SET uploaded = uploaded + 1",
                    self._outbox,
                ),
            )
        )

    async def same_as_before(self, id_: int) -> None:
        """Its content is what was uploaded and announced already."""
        sql = f"UPDATE outbox SET state = 'uploaded', cause = '' WHERE id = ? AND {_WAITING}"
        await self._journal.rows(sql, id_)

    async def not_sent(self, id_: int) -> None:
        """It was begun, and has not got to the bucket as a whole."""
        await self._journal.rows("UPDATE outbox SET state = 'queued' WHERE id = ? AND state = 'uploading'", id_)

    async def removed_unread(self, id_: int) -> None:
        """Uploaded, and no longer here: its ctime was another one, and its content was not compared in time."""
        sql = f"UPDATE outbox SET state = 'removed', cause = '' WHERE id = ? AND ({_WAITING} OR state = 'failed')"
        await self._journal.rows(f"{sql} AND event IS NOT NULL", id_)
        await self._trim()

    async def again(self, id_: int, cause: str) -> None:
        """This try has failed. What may be in the bucket stays `uploading`: the next try looks first."""
        sql = f"UPDATE outbox SET tries = tries + 1, cause = ? WHERE id = ? AND {_WAITING}"
        await self._journal.rows(sql, short(cause), id_)

    async def fail(self, row: OutboxFile, cause: str) -> None:
        """For its own reason it cannot be uploaded now; others can. That it failed again is no other event."""
        if row.tries >= RETRIED:
            await self._journal.rows(
                f"UPDATE outbox SET state = 'failed', cause = ? WHERE id = ? AND {_WAITING}", short(cause), row.id
            )
            return
        await self._end(row, "failed", FAILED, short(cause))

    async def retry_failed(self) -> None:
        await self._journal.rows(
            "UPDATE outbox SET state = 'queued', tries = ? WHERE outbox = ? AND state = 'failed'", RETRIED, self._outbox
        )

    async def lose(self, row: OutboxFile) -> None:
        """It was removed before it was uploaded."""
        await self._end(row, "lost", LOST, "")

    async def _end(self, row: OutboxFile, state: str, code: str, cause: str) -> None:
        sql = f"UPDATE outbox SET state = ?, cause = ? WHERE id = ? AND ({_WAITING} OR state = 'failed') RETURNING id"
        await self._unsent.change(code, [unsent(state, row.name, row.size, cause)], (sql, state, cause, row.id))
        await self._trim()

    async def removed(self, ids: Collection[int]) -> None:
        """Uploaded files that are no longer here."""
        sql = "UPDATE outbox SET state = 'removed' WHERE id = ? AND state = 'uploaded'"
        if ids:
            await self._journal.change(*((sql, id_) for id_ in ids))
            await self._trim()

    async def returned(self, ids: Collection[int]) -> None:
        """Uploaded files that are here again."""
        sql = "UPDATE outbox SET state = 'uploaded' WHERE id = ? AND state = 'removed'"
        if ids:
            await self._journal.change(*((sql, id_) for id_ in ids))

    async def drop(self, row: OutboxFile) -> None:
        """The file will be found again, as it is now, or is none that is to be uploaded. It stays if it was already."""
        await self._journal.rows("DELETE FROM outbox WHERE id = ? AND stamp = ?", row.id, row.stamp)

    async def _trim(self) -> None:
        sql = (
            "DELETE FROM outbox WHERE outbox = ? AND state IN ('removed', 'lost') AND id <= (SELECT id FROM outbox"
            " WHERE outbox = ? AND state IN ('removed', 'lost') ORDER BY id DESC LIMIT 1 OFFSET ?)"
        )
        await self._journal.rows(sql, self._outbox, self._outbox, KEPT)

    # -- all of them ----------------------------------------------------------------------------------------------

    async def totals(self) -> OutboxTotals:
        waiting = (
            f"SELECT tries >= {RETRIED}, count(*), coalesce(sum(size), 0), coalesce(min(queued), '') FROM outbox"
            f" WHERE outbox = ? AND {_WAITING} GROUP BY 1"
        )
        failed = (
            "SELECT count(*), coalesce(max(cause), '') FROM outbox WHERE outbox = ? AND state IN ('failed', 'refused')"
        )
        retried = f"SELECT max(cause) FROM outbox WHERE outbox = ? AND {_WAITING} AND tries >= {RETRIED}"
        by_kind = {bool(kind): found for kind, *found in await self._journal.rows(waiting, self._outbox)}
        pending, size, oldest = by_kind.get(False, (0, 0, ""))
        ((failures, cause),) = await self._journal.rows(failed, self._outbox)
        if True in by_kind:
            failures += by_kind[True][0]
            ((cause_of_retried,),) = await self._journal.rows(retried, self._outbox)
            cause = cause or cause_of_retried
        uploaded = await self._journal.rows("SELECT uploaded FROM outbox_totals WHERE outbox = ?", self._outbox)
        last = await self._journal.rows(
            "SELECT key, uploaded, (SELECT json_extract(data, '$.compared') FROM events WHERE id = event) FROM outbox"
            " WHERE outbox = ? AND state IN ('uploaded', 'removed') ORDER BY event DESC LIMIT 1",
            self._outbox,
        )
        key, at, compared = last[0] if last else ("", "", "")
        number = uploaded[0][0] if uploaded else 0
        by = tuple(json.loads(compared or "[]"))
        return OutboxTotals(pending, size, oldest, failures, cause, number, key, at or "", by)
