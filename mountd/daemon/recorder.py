"""What happens on the board goes into the journal, each happening once and none lost at the end."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from mountd.errors import MountdError
from mountd.journal.journal import Journal
from mountd.status import events
from mountd.status.board import Board
from mountd.status.snapshot import Reason

log = structlog.get_logger()

RETRY_S = 10.0
GAP = "journal-gap"
"""Written first once the journal can be written again."""


class Recorder:
    def __init__(self, board: Board, journal: Journal) -> None:
        self._board = board
        self._journal = journal
        self._recorded = board.snapshot
        self._turn = asyncio.Lock()
        self._lost = 0
        """events that could not be written since the journal fails"""

    async def run(self) -> None:
        """Until cancelled; `flush` afterwards tells what happened last."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self._lost else None):
                    await self._board.changed()
            await self.flush()

    async def flush(self) -> None:
        """Returns when everything up to now is in the journal; one event that cannot be written goes without."""
        # Shielded: a cancelled `run` has taken the news already, and nobody else would write them.
        await asyncio.shield(self._write_news())

    async def _write_news(self) -> None:
        async with self._turn:
            before, self._recorded = self._recorded, self._board.snapshot
            if self._lost:
                text = f"the journal could not be written: {self._lost} events are missing here"
                await self._write(GAP, "mountd", text)
            for happening in events.between(before, self._recorded):
                await self._write(happening.code, happening.object, happening.text)

    async def _write(self, code: str, object_: str, text: str) -> None:
        try:
            await self._journal.event(code, object_, text)
        except MountdError as error:
            if code != GAP:  # which is tried again and again
                log.warning("cannot journal an event", code=code, cause=error.text)
                self._lost += 1
            told = f"{error.text}; what happens meanwhile is not written down, all else goes on"
            self._board.set_journal(Reason("journal-unusable", told, "journal", "mountd", error.hint))
        else:
            if code == GAP:
                log.info("journal can be written again", lost=self._lost)
                self._lost = 0
                self._board.set_journal(None)
