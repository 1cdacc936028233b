"""A target of notifications with a real journal and its task, and nothing else of a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mountd.journal.journal import EventRecord, Journal, NotifyCursor
from mountd.notify import target as target_module
from mountd.notify.delivery import Advice, SenderDeps
from mountd.notify.target import NotifyTarget, TargetDeps
from mountd.process.lifecycle import Backoff
from mountd.settings.notify import NotifySettings
from mountd.settings.secret import SecretRef
from mountd.status.notify import NotifyStatus
from tests.support.receiver import Posted, Receiver
from tests.support.wait import until_async

SOON_S = 60.0
SOURCE = "mountd://test/0"


class Notified:
    """`status`: what is shown of the target `ops`; `at_start`: as for the target."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.status = NotifyStatus()
        self.at_start = True
        self.target: NotifyTarget | None = None
        self.advice: Advice | None = None
        self._task: asyncio.Task[None] | None = None

    def settings(self, **given: Any) -> NotifySettings:
        return NotifySettings.model_validate({"events": ["*"], **given})

    def begin(self, **given: Any) -> NotifyTarget:
        """The target with these settings, and its task; of a later run when there was one."""
        sending = SenderDeps("gpu-1", self._read, lambda name: {})
        deps = TargetDeps(self.journal, sending, SOURCE, self._show, self._advise)
        self.target = NotifyTarget("ops", self.settings(**given), deps, at_start=self.at_start)
        self._task = asyncio.create_task(self.target.run())
        return self.target

    async def begin_loaded(self, **given: Any) -> NotifyTarget:
        """As `begin`, and what is written from now on is new to it."""
        target = self.begin(**given)
        await until_async(lambda: target._state, SOON_S, "the target to be loaded")
        return target

    async def end(self) -> None:
        """At once, as a crash ends it."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def happens(self, *codes: str, object_: str = "hub") -> None:
        for code in codes:
            await self.journal.event(code, object_, f"{object_}: {code}", {"number": 7})

    async def died(self) -> None:
        """Once its task has ended by itself. Raises what ended it."""
        assert self._task is not None
        task, self._task = self._task, None
        await asyncio.wait_for(task, SOON_S)

    async def posted(self, receiver: Receiver, count: int) -> list[Posted]:
        """All that came to the receiver, once there are `count`."""

        def are_there() -> bool:
            self._check()
            return len(receiver.got) >= count

        await until_async(are_there, SOON_S, f"{count} requests, not {len(receiver.got)}")
        return receiver.got

    def _check(self) -> None:
        if self._task is not None and self._task.done():
            raise AssertionError("its task has ended") from self._task.exception()

    async def until_status(self, **wanted: object) -> NotifyStatus:
        def is_so() -> bool:
            self._check()
            return all(getattr(self.status, key) == value for key, value in wanted.items())

        await until_async(is_so, SOON_S, f"{wanted}, not {self.status}")
        return self.status

    async def until_event(self, code: str) -> None:
        """Once the newest event is this one."""
        async with asyncio.timeout(SOON_S):
            while (await self.codes())[-1] != code:
                self._check()
                await asyncio.sleep(0.01)

    async def cursor(self) -> NotifyCursor:
        found = await self.journal.notify_cursor("ops")
        assert found is not None
        return found

    async def codes(self) -> list[str]:
        return [each.code for each in await self.events()]

    async def events(self) -> list[EventRecord]:
        return await self.journal.events(0, limit=1000)

    async def _read(self, secrets: Mapping[str, SecretRef]) -> dict[str, str]:
        return {name: each.read() for name, each in secrets.items()}

    async def _advise(self, language: str | None) -> Advice | None:
        return self.advice

    def _show(self, name: str, status: NotifyStatus) -> None:
        self.status = status


@asynccontextmanager
async def notified(root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Notified]:
    """With pauses between tries of a few milliseconds. The journal holds an event already."""
    monkeypatch.setattr(target_module, "AGAIN", Backoff(0.01, 2.0, 0.05))
    journal = Journal(root / "mountd.db")
    await journal.open()
    journal.is_new = False
    await journal.event("mountd-started", "mountd", "before")
    found = Notified(journal)
    try:
        yield found
    finally:
        await found.end()
        await found.journal.close()
