"""What is durable of one model: the versions that are, were and should be live, and what each held; in the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from mountd.errors import MountdError
from mountd.journal.journal import Committed, Journal
from mountd.model.content import Content

log = structlog.get_logger()

DISK_LIMIT_S = 10.0
"""For one write; longer than another program may hold the file."""


class Memory:
    """`committed` is what the journal holds. Every change is on disk before it is true, but for what a start reads anew
    from the configuration. Methods raise MountdError."""

    def __init__(self, model: str, journal: Journal, changed: Callable[[], None]) -> None:
        self.committed = Committed()
        self._model = model
        self._journal = journal
        self._changed = changed
        self._lock = asyncio.Lock()

    @property
    def is_lost(self) -> bool:
        """The journal was broken, missing or empty and is a new one, in which this model does not stand."""
        return self._journal.is_lost and self.committed.current is None

    async def take_from_link(self, known: Committed, version: str) -> Committed:
        """The journal was lost, and the link points to `version`: so that is live, and nobody asks for another one.

        Nobody knows which `version:` was seen last in the file; `known` has the one of now, so that no switch begins
        that nobody asked for.
        """
        log.info("the link says which version is live", model=self._model, version=version)
        try:
            await self._journal.mark_lost()
        except MountdError as error:
            log.error("cannot note that the journal was lost", cause=error.text, hint=error.hint)
        return replace(known, current=version, desired=version)

    async def load(self) -> None:
        self.committed = await self._journal.committed(self._model)

    async def remember(self, committed: Committed, content: Content | None = None) -> None:
        """All but a pause, which comes at any time, also between what an operation read and what it writes.

        `content`: what the version that is live now holds.
        """
        async with self._lock:
            await self._save(replace(committed, suspended=self.committed.suspended), content)

    async def update(self, committed: Committed) -> None:
        """What a start or a reload has found, written only when it is new.

        When it cannot be written it is true all the same, and goes to disk with the next change: a full disk does not
        keep anybody from being served, and the next start finds the same again.
        """
        if committed != self.committed:
            try:
                await self.remember(committed)
            except MountdError as error:
                self.committed = replace(committed, suspended=self.committed.suspended)
                log.error("cannot journal what is asked for", model=self._model, cause=error.text, hint=error.hint)
        self._changed()

    async def suspend(self, why: str | None) -> None:
        """Automatic changes are paused, by whom and why is `why`; None: they are not any more."""
        async with self._lock:
            await self._save(replace(self.committed, suspended=why))

    async def _save(self, committed: Committed, content: Content | None = None) -> None:
        writing = asyncio.ensure_future(self._journal.commit(self._model, committed, holds=content))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # It is written all the same, so it is true; who asked, or looks then, must find journal and memory agree.
            await asyncio.wait([writing], timeout=DISK_LIMIT_S)
            if writing.done() and writing.exception() is None:
                self._hold(committed)
            raise
        self._hold(committed)

    def _hold(self, committed: Committed) -> None:
        self.committed = committed
        self._changed()

    async def ask_for(self, version: str) -> None:
        """Remember what was asked for."""
        await self.remember(replace(self.committed, desired=version))

    async def go_live(self, content: Content) -> None:
        """The first version: with it what it holds."""
        await self.remember(replace(self.committed, current=content.version), content)

    async def commit(self, content: Content) -> None:
        """Its version is live for good; what was live becomes `previous`."""
        known, version = self.committed, content.version
        previous = known.previous if known.current in (None, version) else known.current
        await self.remember(replace(known, current=version, previous=previous, desired=version), content)

    async def revert(self) -> None:
        """As before a commit that failed, which may have reached the disk all the same."""
        await self.remember(self.committed)
