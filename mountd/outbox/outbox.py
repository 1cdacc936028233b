"""One outbox: journals, uploads, verifies and announces each finished file, and removes it after `keep`.

The journal decides: every step is in it before the next begins, so that a run that is killed at any point is continued.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from mountd import clock
from mountd.errors import DiskError, MountdError
from mountd.journal.journal import Journal
from mountd.journal.records import OutboxFile
from mountd.journal.results import RETRIED, ResultQueue
from mountd.journal.unsent import short, shown
from mountd.outbox import plan
from mountd.outbox.keeping import KeptFiles
from mountd.outbox.local import Found, LocalDirectory, name_of
from mountd.outbox.patience import Patience, RareLog, first_of
from mountd.outbox.plan import DirectoryFacts, Place, Sending
from mountd.outbox.sender import Uploader
from mountd.outbox.sweeping import Sweep
from mountd.outbox.uploading import FileUploads
from mountd.outbox.worker import MOST_FILES
from mountd.process.instance import Instance
from mountd.process.lifecycle import Backoff
from mountd.rclone.binary import Binary
from mountd.rclone.conf_file import ConfFile
from mountd.settings.schema import Settings
from mountd.settings.units import format_duration
from mountd.status.board import Board
from mountd.status.results import OutboxStatus
from mountd.status.snapshot import Reason

log = structlog.get_logger()

RESCAN_S = 60.0
RESCANS_TAKE = 0.01
"""The largest share of one processor for scans, however many files there are."""
RESCANS_OF_NEW_TAKE = 0.1
"""The same, while there are more new files than are taken up at once."""
MISSING_S = 10.0
"""Seconds between two looks for a directory that is missing."""
IDLE_S = 30.0
"""Seconds without an upload after which rclone is stopped; another one starts in 0.2 s."""
REPORT_S = 1.0
REPORTS_TAKE = 0.05
"""The largest share of the journal's time for reports, however many files wait."""
LOOK_S = 30.0
FAILED_AGAIN_S = 900.0
DISK_AGAIN = Backoff(1.0, 2.0, 30.0)
LIVING = ("queued", "uploading", "failed")


class Outbox:
    """`run` until it is cancelled; once."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        instance: Instance,
        board: Board,
        journal: Journal,
        binary: Binary,
        conf: ConfFile,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self.name, self.settings = name, settings.outbox[name]
        self._board, self._now = board, now
        self._log = log.bind(outbox=name)
        self._rare = RareLog(self._log)
        self._queue = ResultQueue(journal, name)
        self._patient = Patience(self._log)
        self._news, self._changed, self._uploaded, self._readable, self._doubt = (asyncio.Event() for _ in range(5))
        self._local = LocalDirectory(
            self.settings,
            instance.marks(f"{name}-outbox"),
            found=self._on_found,
            gone=self._on_gone,
            writing=lambda count: self._set_facts(writing=count),
            leaving=self._stop_uploads,
            new=self._new_ones,
            stirred=self._doubt.set,
        )
        self.uploader = Uploader(name, settings, instance, binary, conf)
        self._place = Place.of(self.settings.remote)
        self._files = FileUploads(
            *(self._queue, self._local, self.uploader, self._patient, self._place), lose=self._lose, log=self._log
        )
        blank = OutboxStatus(str(self.settings.directory), self.settings.remote)
        # With other settings it goes on from where it was: nothing has healed by that, or begun.
        former = board.snapshot.outbox.get(name, blank)
        self._status = replace(former, directory=blank.directory, remote=blank.remote)
        board.set_outbox(name, self._status)
        self._facts = DirectoryFacts()
        self._sending = Sending()
        self._failures = self._status.failures
        self._first_failed: dict[bytes, float] = {}
        """monotonic, of files whose last try failed"""
        self._under_way: dict[asyncio.Task[None], tuple[OutboxFile, float]] = {}
        """each with when it began, monotonic"""
        self._gone: set[int] = set()
        """of those under way: ids of files that are no longer there"""
        self._root = ""
        """inode of the directory"""
        self._tried_failed = time.monotonic()
        self._sweep = Sweep(self._queue, self._local, self._patient, forget=self._forget)
        self._kept = KeptFiles(
            *(self.settings.keep, self._queue, self._local, self._patient),
            readable=self._readable,
            uploaded=self._uploaded,
            now=now,
        )

    async def run(self) -> None:
        """Raises only what is a bug, or what the machine lacks."""
        work = (self._follow, self._upload_all, self._kept.run, self._report)
        tasks = [asyncio.create_task(each(), name=f"outbox {self.name}") for each in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in (*tasks, *self._under_way):
                task.cancel()
            try:
                await asyncio.wait([*tasks, *self._under_way])
            finally:  # also of a second cancel
                self._under_way.clear()
                await self.uploader.close()
                await self._local.close()
            with contextlib.suppress(MountdError):
                await self._queue.write_due(all_of_them=True)

    def reconfigure(self, settings: Settings) -> None:
        """The same outbox, with other secrets."""
        self.uploader.reconfigure(settings)

    # -- the directory --------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                await self._local.start()
                self._sweep.begin()
                while True:
                    pause_s = await self._look()
                    failures = 0
                    await self._pause(pause_s)
            except DiskError as error:
                self._unreadable("outbox-disk-silent", error)
                await self._stop_uploads()
                failures += 1
                await asyncio.sleep(DISK_AGAIN.delay_s(failures))

    async def _look(self) -> float:
        """One scan; how long the next one may wait. Raises DiskError where the process has to be replaced."""
        began = time.monotonic()
        try:
            scan = await self._local.scan()
            self._root = scan.root
            if self._sweep.is_due(scan):
                await self._sweep.run(scan)
        except DiskError as error:
            if not error.errno:
                raise
            self._unreadable("outbox-no-directory" if error.errno in plan.NO_DIRECTORY else "outbox-directory", error)
            return MISSING_S
        self._set_facts(
            reason=None,
            was_there=True,
            free_bytes=scan.free,
            least_free_bytes=self.settings.min_free.of(scan.total),
            missing=self._sweep.missing,
            too_many=MOST_FILES if scan.full else 0,
            unread=scan.unread,
            skipped=scan.skipped,
            first_skipped=scan.first_skipped,
        )
        self._readable.set()
        await self._try_failed()
        take = RESCANS_OF_NEW_TAKE if scan.full else RESCANS_TAKE
        return max(RESCAN_S, (time.monotonic() - began) / take)

    async def _pause(self, pause_s: float) -> None:
        """Until the next scan. After a long one that is long, and what costs nothing is done meanwhile.

        Raises DiskError where the process has to be replaced.
        """
        end = time.monotonic() + pause_s
        while (left_s := end - time.monotonic()) > 0:
            if await first_of(min(left_s, RESCAN_S), self._local.ended, self._doubt):
                break
            if left_s > RESCAN_S:
                await self._look_at_room()
                await self._try_failed()
        self._doubt.clear()
        if self._local.ended.is_set():
            raise self._local.gone_error()

    async def _look_at_room(self) -> None:
        try:
            free, total = await self._local.room()
        except DiskError as error:
            if not error.errno:
                raise
            self._doubt.set()  # a scan finds out
        else:
            self._set_facts(free_bytes=free, least_free_bytes=self.settings.min_free.of(total))

    async def _try_failed(self) -> None:
        if time.monotonic() - self._tried_failed > FAILED_AGAIN_S:
            self._tried_failed = time.monotonic()
            await self._patient.journaled(self._queue.retry_failed)
            self._news.set()

    def _unreadable(self, code: str, error: DiskError) -> None:
        hint = plan.HINTS.get(code, "mountd tries again by itself; look at the disk, and at the network to it")
        if self._facts.reason is None or self._facts.reason.code != code:
            self._log.warning("cannot use the directory of an outbox", code=code, cause=error.text)
        self._readable.clear()
        self._set_facts(reason=Reason(code, error.text, "outbox", self.name, hint))

    def _set_facts(self, **changes: object) -> None:
        facts = replace(self._facts, **changes)  # type: ignore[arg-type]
        if facts != self._facts:
            self._facts = facts
            self._changed.set()

    async def _new_ones(self, seen: Found, root: str) -> Sequence[int]:
        """Which of these files of a scan the journal does not have as they are."""
        files = [(name_of(path), path, look) for path, look in seen]
        known = await self._patient.journaled(self._queue.known, [name for name, *_ in files])
        return plan.new(files, known, self._place, root)

    async def _on_found(self, found: Found, root: str) -> None:
        self._root = root
        files = [(name_of(path), path, look) for path, look in found]
        known = await self._patient.journaled(self._queue.known, [name for name, *_ in files])
        verdicts = plan.judge(files, known, self._place, root)
        await self._patient.journaled(self._queue.put, verdicts.put, root)
        await self._patient.journaled(self._queue.restamp, verdicts.restamp)
        await self._patient.journaled(self._queue.returned, verdicts.returned)
        for each in verdicts.put:
            if each.cause:
                self._rare.warning("a result cannot be uploaded", cause=each.cause)
        self._news.set()
        self._changed.set()

    async def _on_gone(self, paths: Sequence[str]) -> None:
        known = await self._patient.journaled(self._queue.known, [name_of(path) for path in paths])
        await self._forget(known.values())

    async def _forget(self, rows: Iterable[OutboxFile]) -> None:
        """Their files are no longer there. What is being uploaded is still open, and finds its own end."""
        removed = []
        for row in rows:
            if row.state == "uploaded":
                removed.append(row.id)
            elif row.state == "refused":
                await self._patient.journaled(self._queue.drop, row)
            elif any(row.id == each.id for each, _ in self._under_way.values()):
                self._gone.add(row.id)  # this try has it open, and may still succeed
            elif row.state == "uploading" and row.root == self._root:
                pass  # it may be in the bucket since before mountd ended: its upload finds out
            elif row.state in LIVING:
                await self._lose(row)
        await self._patient.journaled(self._queue.removed, removed)
        self._changed.set()

    async def _lose(self, row: OutboxFile) -> None:
        if row.event is not None:  # only its content was to be compared again: it was uploaded
            await self._patient.journaled(self._queue.removed_unread, row.id)
            return
        self._rare.warning("a result was removed before it was uploaded", name=shown(row.name), bytes=row.size)
        await self._patient.journaled(self._queue.lose, row)
        self._changed.set()

    # -- uploads --------------------------------------------------------------------------------------------------

    async def _upload_all(self) -> None:
        while True:
            await self._readable.wait()
            self._news.clear()
            now = time.monotonic()
            wait_s = self._sending.wait_s(now)
            limit = self._sending.at_once(self.settings.parallel, [at for _, at in self._under_way.values()], now)
            if not wait_s and len(self._under_way) < limit:
                await self._begin_uploads(limit)
            if self._under_way or wait_s:
                limit_s = wait_s or (plan.LASTS_S if self._sending.failures else None)
                news = asyncio.ensure_future(self._news.wait())
                try:
                    await asyncio.wait([news, *self._under_way], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                for task in [each for each in self._under_way if each.done()]:
                    row, _ = self._under_way.pop(task)
                    if not task.cancelled():
                        task.result()
                    await self._look_again(row)
            elif not await first_of(IDLE_S, self._news):
                await self.uploader.close()
                await self._news.wait()

    async def _look_again(self, row: OutboxFile) -> None:
        """After a try: whose file went away meanwhile has no other one to wait for, unless it was uploaded."""
        if row.id in self._gone:
            self._gone.discard(row.id)
            known = await self._patient.journaled(self._queue.known, [row.name])
            await self._forget(each for each in known.values() if each.id == row.id)

    async def _stop_uploads(self) -> None:
        """Before the number of the process that holds their files is free: rclone finds them by it."""
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait([*self._under_way])
        await self.uploader.close()

    async def _begin_uploads(self, limit: int) -> None:
        # One at a time of each name: of two versions the newer one has to come last.
        names = {row.name for row, _ in self._under_way.values()}
        rows = await self._patient.journaled(self._queue.waiting, limit + 2 * len(names), self._root)
        for row in rows:
            if len(self._under_way) < limit and row.name not in names:
                names.add(row.name)
                task = asyncio.create_task(self._upload(row), name=f"upload of {self.name}")
                self._under_way[task] = row, time.monotonic()

    async def _upload(self, row: OutboxFile) -> None:
        try:
            if await self._files.upload(row):
                self._sending = self._sending.uploaded(time.monotonic())
                self._first_failed.pop(row.name, None)
            self._uploaded.set()  # or found to be uploaded before, and kept for long enough by now
        except DiskError as error:
            if error.errno and error.errno not in plan.OF_ALL:
                await self._failed(row, error, of_the_file=row.tries + 1 >= plan.OWN_TRIES)
            else:
                self._readable.clear()  # until the next scan
                self._doubt.set()
        except MountdError as error:
            self.uploader.renew()
            if row.tries >= RETRIED:  # it failed before: this says nothing of the others
                await self._failed(row, error, of_the_file=True)
                return
            if not self._sending.failures:
                self._rare.warning("results wait for their upload", cause=short(error.text), hint=error.hint)
            code = error.code or "outbox-waiting"
            cause, now = Reason(code, short(error.text), "outbox", self.name, error.hint), time.monotonic()
            self._sending = self._sending.failed(cause, now)
            began = self._first_failed.setdefault(row.name, now)
            await self._failed(row, error, of_the_file=self._sending.is_of_the_file(row.tries + 1, began))
        finally:
            self._changed.set()

    async def _failed(self, row: OutboxFile, error: MountdError, *, of_the_file: bool) -> None:
        self._failures += 1
        if of_the_file:
            self._rare.warning("a result cannot be uploaded", name=shown(row.name), cause=short(error.text))
            self._first_failed.pop(row.name, None)
            if row.tries < RETRIED:
                self._sending = Sending(last_upload=self._sending.last_upload)
            await self._patient.journaled(self._queue.fail, row, error.text)
        else:
            await self._patient.journaled(self._queue.again, row.id, error.text)

    # -- what is shown --------------------------------------------------------------------------------------------

    async def _report(self) -> None:
        while True:
            self._changed.clear()
            began = time.monotonic()
            await self._patient.journaled(self._queue.write_due)
            totals = await self._patient.journaled(self._queue.totals)
            late = ""
            if totals.oldest and (self._now() - clock.parse(totals.oldest)).total_seconds() > self.settings.late:
                late = format_duration(self.settings.late)
            if totals.uploaded or totals.pending:
                self._facts = replace(self._facts, was_there=True)
            status = plan.status(self.name, self._status, totals, self._sending, self._facts, late=late)
            self._status = replace(status, failures=self._failures)
            self._board.set_outbox(self.name, self._status)
            await asyncio.sleep(max(REPORT_S, (time.monotonic() - began) / REPORTS_TAKE))
            await first_of(LOOK_S if totals.pending else None, self._changed)
