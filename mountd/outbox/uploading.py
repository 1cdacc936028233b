"""One file of an outbox on its way: read, sent, compared and announced; or found to be gone, or another one by now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from mountd.errors import MountdError, RemoteError
from mountd.journal.records import OutboxFile
from mountd.journal.results import ResultQueue
from mountd.outbox import plan
from mountd.outbox.local import HashedFile, LocalDirectory, path_of
from mountd.outbox.patience import Patience
from mountd.outbox.plan import Place, StoredObject
from mountd.outbox.sender import Uploader
from mountd.outbox.settling import FileLook

REFUSED = "access-denied"
NOTHING_SENT = frozenset(
    {
        *("bucket-unreachable", "bucket-missing", "tls-failure", "cannot-start"),
        *(REFUSED, "credentials-expired", "clock-skew"),
    }
)
"""Codes of failures with which nothing has arrived. After others it may be there."""
MOST_ARRIVED = 10_000


class FileUploads:
    def __init__(
        self,
        queue: ResultQueue,
        local: LocalDirectory,
        uploader: Uploader,
        patient: Patience,
        place: Place,
        *,
        lose: Callable[[OutboxFile], Awaitable[None]],
        log: Any,
    ) -> None:
        """`lose` is awaited for a file that was removed before its upload; `log`: of structlog."""
        self._queue, self._local, self._uploader, self._patient = queue, local, uploader, patient
        self._place, self._lose, self._log = place, lose, log
        self._arrived: set[int] = set()
        """ids of what this run has sent as a whole, and not seen in the bucket yet; what is forgotten is sent again"""
        self._has_md5 = True
        """the MD5 that the store reports is one, as far as this run has seen"""

    async def upload(self, row: OutboxFile) -> bool:
        """Whether it is uploaded now. Raises MountdError."""
        path, look = path_of(row.name), FileLook.of(row.size, row.stamp)
        hashed = await self._local.hash(path, look)
        if hashed is None:
            return await self._gone(row, path)
        try:
            is_done = await self._hashed(row, path, hashed)
        except MountdError:
            self._local.release(hashed)
            raise  # after a cancel it stays open: rclone may still read it, and both processes are ended next
        self._local.release(hashed)
        return is_done

    async def _gone(self, row: OutboxFile, path: str) -> bool:
        """It has changed, and is found again once it is finished; or it was removed, maybe after its upload."""
        if not await self._local.missing([path]):
            await self._patient.journaled(self._queue.drop, row)
            return False
        stored = await self._sent_before(row, path, can_send=False) if self._may_be_there(row, path) else None
        if stored is not None and plan.differs_by_md5_alone(row, stored):
            stored = replace(stored, md5="")  # it cannot be sent again to find out what that MD5 is
        if stored is not None and plan.is_there(row, stored):
            return await self._patient.journaled(self._queue.done, row, compared=plan.compared(stored))
        await self._lose(row)
        return False

    def _may_be_there(self, row: OutboxFile, path: str) -> bool:
        """Whether it was sent to where it goes now: other settings may have another place."""
        return row.state == "uploading" and (row.bucket, row.key) == (self._place.bucket, self._place.key(path))

    async def _hashed(self, row: OutboxFile, path: str, hashed: HashedFile) -> bool:
        if row.event is not None and hashed.sha256 == row.sha256:
            await self._patient.journaled(self._queue.same_as_before, row.id)
            return False
        given = replace(row, sha256=hashed.sha256, md5=hashed.md5, bucket=self._place.bucket, key=self._place.key(path))
        # Of a run that was killed, or of a try that could not be verified: all of it may be there already.
        is_known = given == row and row.state == "uploading"
        stored = await self._sent_before(row, path, can_send=True) if is_known else None
        if stored is None or not plan.is_there(row, stored):
            begun = await self._patient.journaled(
                self._queue.begin, row.id, sha256=given.sha256, md5=given.md5, bucket=given.bucket, key=given.key
            )
            if not begun:
                return False
            stored = await self._sent(given, path, hashed)
        look = await self._local.still(hashed)
        if look is None:  # its row stays: where size and time are the same, it may be found already as it is now
            await self._patient.journaled(self._queue.not_sent, row.id)
            return False
        by = plan.compared(stored)
        done = await self._patient.journaled(self._queue.done, given, look.stamp, compared=by)
        if done:
            self._log.info("result uploaded", key=given.key, bytes=given.size, compared=by)
        return done

    async def _sent(self, given: OutboxFile, path: str, hashed: HashedFile) -> StoredObject:
        """Sends it; what the bucket holds of it then, which is the same."""
        for is_second in (False, True):
            try:
                await self._uploader.upload(hashed, path, given.size)
            except MountdError as error:
                if error.code in NOTHING_SENT:
                    await self._patient.journaled(self._queue.not_sent, given.id)
                raise
            if len(self._arrived) >= MOST_ARRIVED:
                self._arrived.clear()
            self._arrived.add(given.id)
            stored = await self._stored(path)
            if is_second and plan.differs_by_md5_alone(given, stored):
                # Changed on the way twice? Rather it is encrypted there, and the ETag is no MD5.
                self._has_md5 = False
                self._log.warning("the store reports no MD5s: results are compared by size and sha256 alone")
                stored = await self._stored(path)
            self._arrived.discard(given.id)
            problem = plan.mismatch(given, stored)
            if stored is not None and not problem:
                return stored
            if not plan.differs_by_md5_alone(given, stored):
                break
        raise RemoteError(f"cannot verify {given.key}: {problem}", code="outbox-mismatch")

    async def _sent_before(self, row: OutboxFile, path: str, *, can_send: bool) -> StoredObject | None:
        """What is there of a try that came to no end. Raises MountdError.

        Keys that may not list are refused a look at what is not there (Amazon S3, MinIO, Ceph). That may also mean that
        they may look at nothing: where it cannot be sent again, that is asked of what the same keys have seen.
        """
        try:
            return await self._stored(path)
        except RemoteError as error:
            is_absent = error.code == REFUSED and (can_send or self._uploader.has_looked)
            if not is_absent or row.id in self._arrived:
                raise
            return None

    async def _stored(self, path: str) -> StoredObject | None:
        """What the store says of it, as far as that can be compared. Raises MountdError."""
        found = await self._uploader.stat(path)
        return replace(found, md5="") if found is not None and not self._has_md5 else found
