"""An app for operations without a process: it notes what is asked of it, and fails on demand."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mountd.errors import CannotStart
from mountd.process.child import User
from mountd.settings.schema import AppSettings
from mountd.status.board import Board
from mountd.status.snapshot import AppStatus, State


class FakeApp:
    """Needs the model `hub`. `calls` holds what was asked of it, a start with the directory that its link led to."""

    def __init__(self, name: str, board: Board, link: Path) -> None:
        self.name = name
        self.settings = AppSettings.model_validate({"command": ["x"], "needs": ["hub"]})
        self.user: User | None = None
        self.environment: Mapping[str, str] = {}
        self.stop_limit_s = self.ready_limit_s = 1.0
        self.calls: list[str] = []
        self.is_held = False
        self.bad: dict[str, CannotStart] = {}
        """by directory: it never gets ready there, and why"""
        self.stuck: CannotStart | None = None
        """why it cannot be stopped"""
        self.gate = asyncio.Event()
        self.gate.set()
        """while it is closed the app does not get ready"""
        self.waits = 0
        """how often it was waited for at the gate"""
        self._board = board
        self._link = link
        self._directory = ""
        self._show(State.RUNNING)

    @property
    def state(self) -> State:
        return self._board.snapshot.apps[self.name].state

    def _show(self, state: State) -> None:
        self._board.set_app(self.name, AppStatus(needs=("hub",), state=state))

    def crash(self) -> None:
        self._show(State.FAILED)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self.is_held = True
        try:
            yield
        finally:
            self.is_held = False

    def want(self) -> None:
        self.calls.append("want")

    def check_running(self) -> None:
        if self.state is State.FAILED:
            raise self.bad.get(self._directory) or CannotStart("it crashed", code="app-exited")

    async def stop(self) -> None:
        self.calls.append("stop")
        if self.stuck is not None:
            raise self.stuck
        self._show(State.STOPPED)

    async def begin(self) -> None:
        self._directory = os.path.basename(os.readlink(self._link))
        self.calls.append(f"begin {self._directory}")
        self._show(State.STARTING)

    async def become_ready(self) -> None:
        self.waits += 1
        await self.gate.wait()
        if self._directory in self.bad:
            self.crash()
        self.check_running()
        self._show(State.RUNNING)
