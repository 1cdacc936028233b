"""Follows the source of one model's wanted version: reads it at its times and at a webhook, again after a failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from mountd.clock import now_text
from mountd.errors import MountdError
from mountd.gitops.source import Source
from mountd.gitops.wanted import UNREACHABLE, WantedVersion
from mountd.journal.journal import Declared, Journal
from mountd.model.model import Model
from mountd.process.lifecycle import Backoff
from mountd.status.source import SourceStatus

log = structlog.get_logger()

LEAST_PAUSE_S = 1.0
"""Between the starts of two reads, however many webhooks come."""


class Follower:
    """`said`: what the source said last, also to a previous run; `take` is called with what it says, when that is new
    to this run."""

    def __init__(
        self,
        model: Model,
        source: Source,
        said: Declared | None,
        take: Callable[[Declared], Awaitable[None]],
        journal: Journal,
    ) -> None:
        self.said = said
        self._model = model
        self._source = source
        self._take = take
        self._journal = journal
        self._poked = asyncio.Event()
        self._has_read = False
        status = SourceStatus(source.kind, source.place)
        self._show(_with(status, said) if said else status)

    def poke(self) -> None:
        """Reads it at once, or once more when it is being read."""
        self._poked.set()

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        try:
            while True:
                began, has_changed = time.monotonic(), self._poked.is_set()
                self._poked.clear()
                failures = await self._read(failures, has_changed=has_changed)
                await self._pause(failures)
                await asyncio.sleep(LEAST_PAUSE_S - (time.monotonic() - began))
        finally:
            self._source.close()

    async def _pause(self, failures: int) -> None:
        """Until it is time to read again; after a failure earlier, a few times."""
        retry = self._model.settings.sync.retry
        again_s = Backoff(retry.initial, retry.factor, retry.max).delay_s(failures) if failures else None
        waits = [asyncio.create_task(self._poked.wait()), asyncio.create_task(self._source.changed())]
        try:
            limit_s = again_s if failures <= retry.limit else None
            await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _read(self, failures: int, *, has_changed: bool) -> int:
        """How often it has failed since the last success."""
        try:
            wanted = await self._source.read(has_changed=has_changed)
        except MountdError as error:
            self._fail(error)
            return failures + 1
        now = now_text()
        if not self._has_read or self.said is None or not _is_said(self.said, wanted):
            await self._hear(wanted, now)
        assert self.said is not None
        before = self._status
        if before.code:
            log.info("wanted version can be read again", model=self._model.name, source=before.place)
        self._show(replace(_with(before, self.said), read=now, code="", cause="", hint=""))
        self._has_read = True
        return 0

    async def _hear(self, wanted: WantedVersion, now: str) -> None:
        name = self._model.name
        is_new = self.said is None or not _is_said(self.said, wanted)
        if is_new:
            # A commit that names the version as before declares nothing: what came of that version still counts.
            seen = self.said.seen if self.said is not None and self.said.version == wanted.version else now
            self.said = Declared(
                name, wanted.version, wanted.source, wanted.revision, wanted.author, wanted.message, seen
            )
            log.info(
                "wanted version", model=name, version=wanted.version, source=wanted.source, revision=wanted.revision
            )
            try:
                await self._journal.declare(self.said)
            except MountdError as error:  # the next start reads it again
                log.error("cannot journal the wanted version", model=name, cause=error.text, hint=error.hint)
        assert self.said is not None
        await self._take(self.said)

    def _fail(self, error: MountdError) -> None:
        before = self._status
        if (before.code, before.cause) != (error.code, error.text):
            log.warning("cannot read the wanted version", model=self._model.name, cause=error.text, hint=error.hint)
        self._show(replace(before, code=error.code or UNREACHABLE, cause=error.text, hint=error.hint))

    @property
    def _status(self) -> SourceStatus:
        found = self._model.status.source
        assert found is not None
        return found

    def _show(self, status: SourceStatus) -> None:
        self._model.publish(replace(self._model.status, source=status))


def _is_said(said: Declared, wanted: WantedVersion) -> bool:
    return (said.version, said.source, said.revision) == (wanted.version, wanted.source, wanted.revision)


def _with(status: SourceStatus, said: Declared) -> SourceStatus:
    return replace(status, version=said.version, revision=said.revision, author=said.author, message=said.message)
