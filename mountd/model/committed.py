"""The committed state of one model, in the journal: which versions are, were and should be live, what each held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from mountd.errors import MountdError
from mountd.journal.journal import Committed, Journal
from mountd.model.changes import holding
from mountd.model.content import Content

log = structlog.get_logger()

DISK_LIMIT_S = 10.0
"""For one write; longer than another program may hold the file."""


class CommittedState:
    """`committed` is what the journal holds. A change counts once it is on disk, except for what `update` takes.

    `changed` is called after each change. Methods raise MountdError.
    """

    def __init__(self, model: str, journal: Journal, changed: Callable[[], None]) -> None:
        self.committed = Committed()
        self._model = model
        self._journal = journal
        self._changed = changed
        self._lock = asyncio.Lock()

    @property
    def is_lost(self) -> bool:
        """The journal was broken, missing or empty, and the new one does not hold this model."""
        return self._journal.is_lost and self.committed.current is None

    async def load(self) -> None:
        self.committed = await self._journal.committed(self._model)

    async def take_from_link(self, version: str, config_version: str) -> None:
        """The journal was lost and the link points to `version`: so that is live, and no other version is desired.

        Nobody knows which `version:` mountd saw last in the file. `config_version` is the one that stands there now, so
        that no switch begins that nobody asked for.
        """
        log.info("the link says which version is live", model=self._model, version=version)
        try:
            await self._journal.mark_lost()
        except MountdError as error:
            log.error("cannot note that the journal was lost", cause=error.text, hint=error.hint)
        await self.update(replace(self.committed, current=version, desired=version, config_version=config_version))

    async def save(self, committed: Committed, content: Content | None = None) -> None:
        """Writes all but a pause, which may come between what an operation reads and what it writes.

        `content`: what the live version holds now.
        """
        async with self._lock:
            await self._write(replace(committed, suspended=self.committed.suspended), content)

    async def update(self, committed: Committed) -> None:
        """Takes what a start or a reload found, and writes it if it is new. Raises nothing.

        If it cannot be written it counts all the same and goes to disk with the next change: a full disk stops no
        version from being served, and the next start finds the same again.
        """
        if committed != self.committed:
            try:
                await self.save(committed)
            except MountdError as error:
                self.committed = replace(committed, suspended=self.committed.suspended)
                log.error("cannot journal what is asked for", model=self._model, cause=error.text, hint=error.hint)
        self._changed()

    async def suspend(self, why: str | None) -> None:
        """Pauses automatic changes; `why` says who did it and for what reason. None resumes them."""
        async with self._lock:
            await self._write(replace(self.committed, suspended=why))

    async def commit(self, content: Content) -> None:
        """Makes its version live for good, and what was live `previous`."""
        known, version = self.committed, content.version
        previous = known.previous if known.current in (None, version) else known.current
        await self.save(replace(known, current=version, previous=previous, desired=version), content)

    async def revert(self) -> None:
        """Takes back a commit that failed, which may have reached the disk all the same."""
        await self.save(self.committed)

    async def _write(self, committed: Committed, content: Content | None = None) -> None:
        holds = holding(self._model, content) if content else None
        writing = asyncio.ensure_future(self._journal.commit(self._model, committed, holds=holds))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # It is written all the same, so it counts: who asks next must find the same here as in the journal.
            await asyncio.wait([writing], timeout=DISK_LIMIT_S)
            if writing.done() and writing.exception() is None:
                self._hold(committed)
            raise
        self._hold(committed)

    def _hold(self, committed: Committed) -> None:
        self.committed = committed
        self._changed()
