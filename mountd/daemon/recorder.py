"""Writes what happens on the board into the journal: each event once, none lost at the stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from mountd import __version__
from mountd.codes import CODES, HEALING, OF
from mountd.daemon import shutdown
from mountd.errors import JournalError, MountdError
from mountd.journal.journal import Journal
from mountd.journal.records import CRASHED, STARTED, STOPPED, EventRecord
from mountd.status import alarms, events
from mountd.status.alarms import Alarm
from mountd.status.board import Board
from mountd.status.snapshot import Reason
from mountd.text import object_of

log = structlog.get_logger()

RETRY_S = 10.0
GAP = "journal-gap"
"""Written first once the journal can be written again."""
REPLACED = "journal-replaced"
ALARMS_AND_ENDS = frozenset(code for code, each in CODES.items() if each.healed_by) | HEALING


class Recorder:
    def __init__(self, board: Board, journal: Journal) -> None:
        self._board = board
        self._journal = journal
        self._recorded = board.snapshot
        self._turn = asyncio.Lock()
        self._lost = 0
        """events that could not be written since the journal fails"""
        self._started = False
        self._open: frozenset[Alarm] = frozenset()
        """alarms of previous runs that this one has neither seen again nor seen over"""
        self._replaced: Reason | None = None
        """stands in the status until mountd is restarted or a person has taken the broken file away"""

    def know_outboxes(self) -> None:
        """What the board says of them now was in the journal before this run."""
        self._recorded = replace(self._recorded, outbox=self._board.snapshot.outbox)

    async def run(self) -> None:
        """Until cancelled; then `flush` writes what happened last, and `stopped` that this run has stopped."""
        await self._record_replaced()
        await self._record_start()
        while True:
            if not self._is_behind():
                await self._board.changed(RETRY_S if self._lost or self._replaced else None)
            self._look_for_broken()
            await self.flush()

    def _is_behind(self) -> bool:
        """Whether something has happened while events were written; what is said of the journal is no event."""
        return replace(self._board.snapshot, journal=None) != replace(self._recorded, journal=None)

    async def flush(self) -> None:
        """Returns when everything up to now is in the journal.

        After the first event that cannot be written those that follow are not tried: each would wait for a journal
        that another program holds. They are counted as lost.
        """
        # Shielded: a cancelled `run` has taken the news already, and nothing else would write them.
        await asyncio.shield(self._write_news())

    async def _write_news(self) -> None:
        async with self._turn:
            before, self._recorded = self._recorded, self._board.snapshot
            news = events.between(before, self._recorded)
            self._open = alarms.without(self._open, news)
            news += alarms.healed(self._open, self._recorded)
            self._open = alarms.without(self._open, news)
            if self._lost:
                text = f"the journal could not be written: {self._lost} events are missing here"
                if not await self._write(GAP, "mountd", text):
                    self._lose(news)
                    return
            for number, happening in enumerate(news):
                if not await self._write(happening.code, happening.object, happening.text, happening.data):
                    self._lose(news[number + 1 :])
                    return

    def _lose(self, news: Sequence[events.Happening]) -> None:
        self._lost += len(news)
        if news:
            log.warning("cannot journal events", count=len(news), codes=sorted({each.code for each in news}))

    async def _write(self, code: str, object_: str, text: str, data: Mapping[str, str] | None = None) -> bool:
        """Whether it is in the journal."""
        try:
            await self._journal.event(code, object_, text, data)
        except MountdError as error:
            if code != GAP:  # which is retried
                log.warning("cannot journal an event", code=code, cause=error.text)
                self._lost += 1
            text = f"{error.text}; events are not recorded meanwhile, all else works"
            self._board.set_journal(Reason(JournalError.code, text, "journal", "mountd", error.hint))
            return False
        if code == GAP:
            log.info("journal can be written again", lost=self._lost)
            self._lost = 0
            self._board.set_journal(self._replaced)
        return True

    # -- runs -----------------------------------------------------------------------------------------------------

    async def _record_start(self) -> None:
        if self._started:
            return
        self._started = True
        last = None
        with contextlib.suppress(MountdError):  # reported with the event
            last = await self._journal.last_of(STARTED, STOPPED)
            known = await self._journal.last_of_each(ALARMS_AND_ENDS)
            self._open = alarms.open_after(_happening(each) for each in known)
        async with self._turn:
            if last is not None and last.code == STARTED:
                text = (
                    f"the run that began at {last.time} did not stop cleanly: a crash, SIGKILL, or the machine failed"
                )
                log.warning("previous run did not stop cleanly", began=last.time)
                await self._write(CRASHED, "mountd", text)
            await self._write(STARTED, "mountd", f"mountd {__version__} has started (pid {os.getpid()})")

    async def stopped(self, why: str) -> None:
        """The last event of this run; given up after `shutdown.JOURNAL_S`, with a line in the log."""
        try:
            async with asyncio.timeout(shutdown.JOURNAL_S):
                await self.flush()
                async with self._turn:
                    await self._write(STOPPED, "mountd", why)
        except TimeoutError:
            log.warning("cannot journal the stop", cause=f"the journal did not answer within {shutdown.JOURNAL_S:g} s")

    # -- a journal that was replaced -------------------------------------------------------------------------------

    async def _record_replaced(self) -> None:
        if self._journal.replaced is None:
            return
        path, cause = self._journal.replaced
        what = f"could not be used ({cause}): it was set aside as {path}" if cause else "was missing or empty"
        text = (
            f"the journal {what}, and a new one was created;"
            " earlier history, quarantine and pauses are lost, and each link counts as the live version"
        )
        hint = (
            "check that `mountd status` shows the right versions and that the disk is healthy;"
            f" this reason goes away when {path} is moved or deleted"
        )
        log.error("journal replaced", cause=cause or "it was missing or empty", set_aside=str(path), hint=hint)
        self._replaced = Reason(REPLACED, text, "journal", "mountd", hint)
        self._board.set_journal(self._replaced)
        async with self._turn:
            await self._write(REPLACED, "mountd", text)

    def _look_for_broken(self) -> None:
        if self._replaced is None or self._journal.replaced is None or os.path.lexists(self._journal.replaced[0]):
            return
        log.info("broken journal removed", set_aside=str(self._journal.replaced[0]))
        if self._board.snapshot.journal == self._replaced:
            self._board.set_journal(None)
        self._replaced = None


def _happening(event: EventRecord) -> events.Happening:
    of = object_of(event.data).get(OF)
    return events.Happening(event.code, event.object, event.text, {OF: str(of)} if of is not None else None)
