"""What happens on the board goes into the journal, each happening once and none lost at the end."""

from __future__ import annotations

import asyncio

import structlog

from mountd.errors import MountdError
from mountd.journal.journal import Journal
from mountd.status import events
from mountd.status.board import Board

log = structlog.get_logger()


class Recorder:
    def __init__(self, board: Board, journal: Journal) -> None:
        self._board = board
        self._journal = journal
        self._recorded = board.snapshot
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled; `flush` afterwards tells what happened last."""
        while True:
            await self._board.changed()
            await self.flush()

    async def flush(self) -> None:
        """Returns when everything up to now is in the journal; one event that cannot be written goes without."""
        # Shielded: a cancelled `run` has taken the news already, and nobody else would write them.
        await asyncio.shield(self._write_news())

    async def _write_news(self) -> None:
        async with self._turn:
            before, self._recorded = self._recorded, self._board.snapshot
            for happening in events.between(before, self._recorded):
                try:
                    await self._journal.event(happening.code, happening.object, happening.text)
                except MountdError as error:
                    log.warning("cannot journal an event", code=happening.code, cause=error.text)
