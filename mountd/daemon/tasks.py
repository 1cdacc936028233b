"""The tasks of the daemon: one that lacks a resource is restarted, one with a bug stops the daemon in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from mountd.daemon.foreign_logs import Limiter
from mountd.daemon.threads import Reserve
from mountd.errors import Exhausted
from mountd.process.resources import SYSTEM_ERROR, lack, of_the_machine
from mountd.process.steady import keep
from mountd.status.board import Board
from mountd.status.snapshot import Reason

log = structlog.get_logger()

LENT = 8
"""Of the reserve, for requests such as `mountd status`."""
REFILL_S = 10.0


class Tasks(asyncio.TaskGroup):
    """No task of it fails, so none cancels another. `is_broken` after a bug; `on_bug` is called at the first one."""

    def __init__(self, board: Board, reserve: Reserve, on_bug: Callable[[], None]) -> None:
        super().__init__()
        self.is_broken = False
        self.reserve = reserve
        self._board = board
        self._on_bug = on_bug
        self._limiter = Limiter()
        self._lent: asyncio.TimerHandle | None = None

    def keep(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        """A task that does `work`, and restarts it after a resource was missing."""
        return self.create_task(self._kept(work, name), name=name)

    async def _kept(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        try:
            await keep(work, lambda found: self.show_lack(name, found))
        except Exception as error:
            self.report_bug(name, error)

    async def run_last(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A part of the stop; its failure does not prevent the next part."""
        try:
            await work()
        except Exception as error:
            self.report_bug("stop", error)

    def show_lack(self, part: str, found: Exhausted | None) -> None:
        """What a part of mountd waits for; None: it continues."""
        known = self._board.snapshot.lacks.get(part)
        if found is None:
            self._board.set_lack(part, None)
            if known is not None:
                log.info("a part of mountd continues", part=part)
            return
        if known is None or known.code != found.code:
            where = found.__cause__ if found.code == SYSTEM_ERROR else None
            log.warning(
                "a part of mountd waits",
                part=part,
                code=found.code,
                cause=found.text,
                hint=found.hint,
                exc_info=where,
            )
        self._board.set_lack(part, Reason(found.code, f"{part} waits: {found.text}", "mountd", "mountd", found.hint))

    def report_bug(self, part: str, error: BaseException) -> None:
        """A missing resource is shown as such; anything else is a bug."""
        if (found := of_the_machine(error)) is not None:
            self.show_lack(part, found)
            return
        log.error("bug in mountd: stopping in order", part=part, exc_info=error)
        if not self.is_broken:
            self.is_broken = True
            self._on_bug()

    # -- what happens outside of tasks ----------------------------------------------------------------------------

    def unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The event loop's handler: mostly connections that cannot be accepted, which it retries each second.

        The reserve has descriptors for requests. Of each kind of failure a few are logged each minute.
        """
        error = context.get("exception")
        found = None if error is None else lack(error)
        if found is None:
            message = str(context.get("message"))
            left_out = self._limiter.admit(f"{message}: {type(error).__name__}")
            if left_out is not None:
                more = {"left_out": left_out} if left_out else {}
                log.error("unexpected failure in the event loop", cause=message, exc_info=error, **more)
            return
        self.show_lack("api", found)
        if found.code == "no-descriptors":
            self.reserve.lend(LENT)
        if self._lent is None:
            self._lent = asyncio.get_running_loop().call_later(REFILL_S, self._refill)

    def _refill(self) -> None:
        """Once there is more than the reserve needs."""
        self._lent = None
        if self._board.snapshot.stopping:
            return
        if self.reserve.refill():
            self.show_lack("api", None)
        else:
            self.reserve.lend(LENT)
            self._lent = asyncio.get_running_loop().call_later(REFILL_S, self._refill)
