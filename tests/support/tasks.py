"""The daemon's tasks for a test, which a bug in one of them fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mountd.app.app import App
from mountd.daemon.tasks import Tasks
from mountd.daemon.threads import Reserve
from mountd.model.model import Model
from mountd.process.supervisor import Supervisor
from mountd.status.board import Board


def tasks_of(board: Board) -> Tasks:
    return Tasks(board, Reserve(), _fail)


def _fail() -> None:
    pytest.fail("a task has met a bug: see the log")


class IdleTasks(Tasks):
    """Those of mounts, models and apps do nothing, so that no rclone is started; their names are added to `begun`."""

    def __init__(self, board: Board, begun: list[str]) -> None:
        super().__init__(board, Reserve(), _fail)
        self._begun = begun

    def keep(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        if isinstance(getattr(work, "__self__", None), App | Model | Supervisor):
            self._begun.append(name)
            work = _idle
        return super().keep(work, name)


async def _idle() -> None:
    await asyncio.Event().wait()


async def notify_nobody(_: object) -> None:
    """For what applies a configuration: no target of notifications changes."""
