"""An edited `version:` asks for a switch, as soon as one can be begun, and again when it failed for what can pass."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from mountd.daemon.tasks import Tasks
from mountd.errors import Busy, MountdError
from mountd.operation.switch import FROM_FILE, Operations, Request
from mountd.process.backoff import Backoff
from mountd.status.board import Board
from mountd.status.snapshot import Snapshot, Unmet

log = structlog.get_logger()

AGAIN_S = 5.0
WISH = Request("config", FROM_FILE, "version: in the configuration")


def _is_due(now: Snapshot, model: str, version: str) -> bool:
    """It can begin, and nobody has paused it; or it is no longer wanted."""
    found = now.models[model]
    busy = any(operation.model == model for operation in now.operations)
    return found.linked and not busy and (found.follows or found.desired != version)


class Edits:
    """At most one wish a model; a later one takes the place of the former."""

    def __init__(self, operations: Operations, board: Board) -> None:
        self._operations = operations
        self._board = board
        self._waiting: dict[str, asyncio.Task[None]] = {}

    def ask(self, group: Tasks, model: str, version: str) -> None:
        self.forget(model)
        self._waiting[model] = group.keep(lambda: self._switch(model, version), f"edit {model}")

    def forget(self, model: str) -> None:
        if model in self._waiting:
            self._waiting.pop(model).cancel()

    def tasks(self) -> list[asyncio.Task[None]]:
        return list(self._waiting.values())

    async def _switch(self, model: str, version: str) -> None:
        """Once the former version is up, so that there is a way back; again when what it failed for can pass.

        What could not even be begun, such as with a full disk, has disturbed nobody and counts for no try.
        """
        failures = put_off = 0
        while True:
            await self._board.wait_until(lambda now: _is_due(now, model, version))
            if self._board.snapshot.models[model].desired != version:
                log.info("another version was asked for since", model=model, version=version)
                return
            retry = self._operations.model(model).settings.sync.retry
            pauses = Backoff(retry.initial, retry.factor, retry.max)
            try:
                asked = await self._operations.switch(model, version, WISH)
            except Busy:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S):
                        await self._board.changed()
                continue
            except MountdError as error:
                told = log.debug if put_off else log.error
                told("cannot switch to the version in the file", model=model, version=version, cause=error.text)
                self._show(model, version, error)
                if not error.retryable:
                    return
                put_off += 1
                await asyncio.sleep(pauses.delay_s(put_off))
                continue
            outcome = await self._operations.outcome(asked.record) if asked.record else None
            self._show(model, version, outcome.failure if outcome else None)
            if outcome is None or not outcome.retryable:
                return
            failures, put_off = failures + 1, 0
            if failures > retry.limit:
                log.error("gave up the version in the file", model=model, version=version, tries=failures)
                return
            delay_s = pauses.delay_s(failures)
            log.info("switch is tried again", model=model, version=version, tries=failures, delay_s=delay_s)
            await asyncio.sleep(delay_s)

    def _show(self, model: str, version: str, failure: MountdError | None) -> None:
        """Why the file's version is not the live one stays in status until it is, or another one is asked for."""
        unmet = Unmet(version, failure.text, failure.hint) if failure else None
        self._operations.model(model).show_unmet(unmet)
