"""What happens on the board goes into the journal, each happening once and none lost at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence

import structlog

from mountd import __version__
from mountd.daemon import shutdown
from mountd.errors import MountdError
from mountd.journal.journal import Journal
from mountd.status import events
from mountd.status.board import Board
from mountd.status.snapshot import Reason

log = structlog.get_logger()

RETRY_S = 10.0
GAP = "journal-gap"
"""Written first once the journal can be written again."""
REPLACED = "journal-replaced"
STARTED, STOPPED, CRASHED = "mountd-started", "mountd-stopped", "mountd-restarted-after-crash"
"""The first and the last event of each life, and what is written when the last one is missing."""


class Recorder:
    def __init__(self, board: Board, journal: Journal) -> None:
        self._board = board
        self._journal = journal
        self._recorded = board.snapshot
        self._turn = asyncio.Lock()
        self._lost = 0
        """events that could not be written since the journal fails"""
        self._started = False
        self._replaced: Reason | None = None
        """stands in the status until mountd is restarted or a person has taken the broken file away"""

    async def run(self) -> None:
        """Until cancelled; `flush` afterwards tells what happened last, and `stopped` that this life has ended."""
        await self._tell_replaced()
        await self._tell_started()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self._lost or self._replaced else None):
                    await self._board.changed()
            self._look_for_broken()
            await self.flush()

    async def flush(self) -> None:
        """Returns when everything up to now is in the journal.

        After the first event that cannot be written those that follow are not tried: each would wait for a journal
        that another program holds. They are counted as lost.
        """
        # Shielded: a cancelled `run` has taken the news already, and nobody else would write them.
        await asyncio.shield(self._write_news())

    async def _write_news(self) -> None:
        async with self._turn:
            before, self._recorded = self._recorded, self._board.snapshot
            news = events.between(before, self._recorded)
            if self._lost:
                text = f"the journal could not be written: {self._lost} events are missing here"
                if not await self._write(GAP, "mountd", text):
                    self._lose(news)
                    return
            for number, happening in enumerate(news):
                if not await self._write(happening.code, happening.object, happening.text):
                    self._lose(news[number + 1 :])
                    return

    def _lose(self, news: Sequence[events.Happening]) -> None:
        self._lost += len(news)
        if news:
            log.warning("cannot journal events", count=len(news), codes=sorted({each.code for each in news}))

    async def _write(self, code: str, object_: str, text: str) -> bool:
        """Whether it is in the journal."""
        try:
            await self._journal.event(code, object_, text)
        except MountdError as error:
            if code != GAP:  # which is tried again and again
                log.warning("cannot journal an event", code=code, cause=error.text)
                self._lost += 1
            told = f"{error.text}; what happens meanwhile is not written down, all else goes on"
            self._board.set_journal(Reason("journal-unusable", told, "journal", "mountd", error.hint))
            return False
        if code == GAP:
            log.info("journal can be written again", lost=self._lost)
            self._lost = 0
            self._board.set_journal(self._replaced)
        return True

    # -- lives ----------------------------------------------------------------------------------------------------

    async def _tell_started(self) -> None:
        if self._started:
            return
        self._started = True
        last = None
        with contextlib.suppress(MountdError):  # told with the event
            last = await self._journal.last_of(STARTED, STOPPED)
        async with self._turn:
            if last is not None and last.code == STARTED:
                text = (
                    f"the life that began at {last.time} ended without a stop: a crash, SIGKILL, or the machine's end"
                )
                log.warning("former life of mountd ended without a stop", began=last.time)
                await self._write(CRASHED, "mountd", text)
            await self._write(STARTED, "mountd", f"mountd {__version__} has started (pid {os.getpid()})")

    async def stopped(self, why: str) -> None:
        """The last event of this life; given up after `shutdown.JOURNAL_S`, with a line in the log."""
        try:
            async with asyncio.timeout(shutdown.JOURNAL_S):
                await self.flush()
                async with self._turn:
                    await self._write(STOPPED, "mountd", why)
        except TimeoutError:
            log.warning("cannot journal the stop", cause=f"the journal did not answer within {shutdown.JOURNAL_S:g} s")

    # -- a journal that was begun anew ----------------------------------------------------------------------------

    async def _tell_replaced(self) -> None:
        if self._journal.replaced is None:
            return
        path, cause = self._journal.replaced
        what = f"could not be used ({cause}): it was set aside as {path}" if cause else "was missing or empty"
        text = (
            f"the journal {what}, and a new one was begun;"
            " history, quarantine and pauses until now are not known any more, each link was taken as what is live"
        )
        hint = (
            "see that `mountd status` shows the right versions and that the disk is sound;"
            f" the alarm ends when {path} is moved away or deleted"
        )
        log.error("journal replaced", cause=cause or "it was missing or empty", set_aside=str(path), hint=hint)
        self._replaced = Reason(REPLACED, text, "journal", "mountd", hint)
        self._board.set_journal(self._replaced)
        async with self._turn:
            await self._write(REPLACED, "mountd", text)

    def _look_for_broken(self) -> None:
        if self._replaced is None or self._journal.replaced is None or os.path.lexists(self._journal.replaced[0]):
            return
        log.info("broken journal was taken away", set_aside=str(self._journal.replaced[0]))
        if self._board.snapshot.journal == self._replaced:
            self._board.set_journal(None)
        self._replaced = None
