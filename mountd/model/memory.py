"""What is durable of one model: the versions that are, were and should be live, and what each held; in the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from mountd.journal.journal import Committed, Journal
from mountd.model.content import Content


class Memory:
    """`committed` is what the journal holds. Every change is on disk before it is true. Methods raise MountdError."""

    def __init__(self, model: str, journal: Journal, changed: Callable[[], None]) -> None:
        self.committed = Committed()
        self._model = model
        self._journal = journal
        self._changed = changed
        self._lock = asyncio.Lock()

    @property
    def is_lost(self) -> bool:
        """The journal was broken and is a new one, in which this model does not stand."""
        return self._journal.replaced is not None and self.committed.current is None

    async def load(self) -> None:
        self.committed = await self._journal.committed(self._model)

    async def remember(self, committed: Committed) -> None:
        """All but a pause, which comes at any time, also between what an operation read and what it writes."""
        async with self._lock:
            await self._save(replace(committed, suspended=self.committed.suspended))

    async def update(self, committed: Committed) -> None:
        """As `remember`, but writes only what is new: a full disk does not keep what is known from being served."""
        if committed != self.committed:
            await self.remember(committed)
        else:
            self._changed()

    async def suspend(self, why: str | None) -> None:
        """Automatic changes are paused, by whom and why is `why`; None: they are not any more."""
        async with self._lock:
            await self._save(replace(self.committed, suspended=why))

    async def _save(self, committed: Committed) -> None:
        await self._journal.commit(self._model, committed)
        self.committed = committed
        self._changed()

    async def ask_for(self, version: str) -> None:
        """Remember what was asked for."""
        await self.remember(replace(self.committed, desired=version))

    async def go_live(self, content: Content) -> None:
        """The first version: with it what it holds."""
        await self._record(content)
        await self.remember(replace(self.committed, current=content.version))

    async def commit(self, content: Content) -> None:
        """Its version is live for good; what was live becomes `previous`."""
        known, version = self.committed, content.version
        previous = known.previous if known.current in (None, version) else known.current
        await self._record(content)
        await self.remember(replace(known, current=version, previous=previous, desired=version))

    async def revert(self) -> None:
        """As before a commit that failed, which may have reached the disk all the same."""
        await self.remember(self.committed)

    async def _record(self, content: Content) -> None:
        await self._journal.record_content(self._model, content.version, digest=content.digest, listing=content.listing)
