"""An edited `version:` asks for a switch, as soon as one can be begun."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from mountd.errors import Busy, MountdError
from mountd.operation.switch import Operations
from mountd.status.board import Board

log = structlog.get_logger()

AGAIN_S = 5.0


class Edits:
    """At most one wish a model; a later one takes the place of the former."""

    def __init__(self, operations: Operations, board: Board) -> None:
        self._operations = operations
        self._board = board
        self._waiting: dict[str, asyncio.Task[None]] = {}

    def ask(self, group: asyncio.TaskGroup, model: str, version: str) -> None:
        self.forget(model)
        self._waiting[model] = group.create_task(self._switch(model, version), name=f"edit {model}")

    def forget(self, model: str) -> None:
        if model in self._waiting:
            self._waiting.pop(model).cancel()

    def tasks(self) -> list[asyncio.Task[None]]:
        return list(self._waiting.values())

    async def _switch(self, model: str, version: str) -> None:
        """Once the former version is up: so that there is a way back."""
        while True:
            await self._board.wait_until(lambda snapshot: snapshot.models[model].linked and snapshot.operation is None)
            try:
                await self._operations.switch(
                    model, version, operator="config", source="config", reason="version: in the configuration"
                )
            except Busy:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S):
                        await self._board.changed()
            except MountdError as error:
                log.error("cannot switch to the version in the file", model=model, version=version, cause=error.text)
                return
            else:
                return
