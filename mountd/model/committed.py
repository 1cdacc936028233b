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

Change = Callable[[Committed], Committed]
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

    async def take_from_link(self, version: str, config_version: str | None) -> None:
        """The journal was lost and the link points to `version`: so that is live, and no other version is desired.

        Nobody knows which `version:` mountd saw last in the file. `config_version` is the one that stands there now, so
        that no switch begins that nobody asked for; None: a source outside says it, and is asked again.
        """
        log.info("the link says which version is live", model=self._model, version=version)
        try:
            await self._journal.mark_lost()
        except MountdError as error:
            log.error("cannot note that the journal was lost", cause=error.text, hint=error.hint)
        await self.update(lambda now: replace(now, current=version, desired=version, config_version=config_version))

    async def save(self, change: Change, content: Content | None = None) -> None:
        """Writes what `change` makes of the present state, one change after the other: what an operation commits, a
        person pauses and a source declares may come at the same time.

        `content`: what the live version holds now.
        """
        async with self._lock:
            await self._write(change(self.committed), content)

    async def update(self, change: Change) -> None:
        """Takes what a start, a reload or a source found, and writes it if it is new. Raises nothing.

        If it cannot be written it counts all the same and goes to disk with the next change: a full disk stops no
        version from being served, and the next start finds the same again.
        """
        if change(self.committed) != self.committed:
            try:
                await self.save(change)
            except MountdError as error:
                self.committed = change(self.committed)
                log.error("cannot journal what is asked for", model=self._model, cause=error.text, hint=error.hint)
        self._changed()

    async def suspend(self, why: str | None) -> None:
        """Pauses automatic changes; `why` says who did it and for what reason. None resumes them, also after a switch
        by hand against the source of the wanted version: what that says is desired again."""

        def change(now: Committed) -> Committed:
            if why is None and now.overridden is not None:
                now = replace(now, overridden=None, desired=now.config_version or now.desired)
            return replace(now, suspended=why)

        await self.save(change)

    async def commit(self, content: Content, override: str | None = None) -> None:
        """Makes its version live for good, and what was live `previous`. `override`: who holds it against the source of
        the wanted version."""
        version = content.version

        def change(now: Committed) -> Committed:
            previous = now.previous if now.current in (None, version) else now.current
            overridden = override or now.overridden
            return replace(now, current=version, previous=previous, desired=version, overridden=overridden)

        await self.save(change, content)

    async def revert(self) -> None:
        """Takes back a commit that failed, which may have reached the disk all the same."""
        await self.save(lambda now: now)

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
