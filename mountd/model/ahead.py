"""Loads the data of the live version in the background: what is asked for beyond what apps wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from mountd.errors import MountdError, Refused
from mountd.model.content import Content
from mountd.model.levels import Levels
from mountd.settings.schema import WarmSettings
from mountd.status.board import Board

log = structlog.get_logger()

AGAIN_S = 30.0
"""After a failure: nobody waits for these data."""
REFUSED_AGAIN_S = 600.0
"""After one that somebody has to end: wrong bytes in the bucket, which were fetched to be seen, or no room."""

Ahead = tuple[Content, WarmSettings]


class LoadAhead:
    def __init__(
        self,
        model: str,
        board: Board,
        levels: Levels,
        *,
        wanted: Callable[[], Ahead | None],
        tidy: Callable[[], Awaitable[None]],
        loaded: Callable[[Content], Awaitable[None]],
    ) -> None:
        """`wanted`: what is to be loaded now; `loaded` is called once it is. `tidy` removes what is no longer to be
        kept, see `may_be_untidy`; both raise MountdError."""
        self._board = board
        self._levels = levels
        self._wanted = wanted
        self._tidy = tidy
        self._loaded = loaded
        self._is_untidy = True  # the run before may have ended too early
        self._log = log.bind(model=model)

    def may_be_untidy(self) -> None:
        """Another version is live, or what had to stay may go now; the board changes with it."""
        self._is_untidy = True

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            wanted = self._wanted()
            try:
                if wanted is not None:
                    await self._load(wanted)
                elif self._is_untidy:
                    await self._tidy_up()
                else:
                    await self._board.changed()
            except MountdError as error:
                self._log.warning("cannot load data ahead", cause=error.text, hint=error.hint)
                await self._until_over(wanted, REFUSED_AGAIN_S if isinstance(error, Refused) else AGAIN_S)
                if self._wanted() != wanted:
                    self._levels.loads.forget()

    async def _tidy_up(self) -> None:
        """Raises MountdError, and is to be done again then, or when it was cancelled."""
        self._is_untidy = False
        try:
            await self._tidy()
        except BaseException:
            self._is_untidy = True
            raise

    async def _load(self, wanted: Ahead) -> None:
        """Ends also when something else is wanted. Raises MountdError."""
        content, warm = wanted
        work = asyncio.create_task(self._levels.reach(content, warm.level))
        over = asyncio.create_task(self._until_over(wanted, None))
        try:
            await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
                await self._loaded(content)
        finally:
            for task in (work, over):
                task.cancel()
            await asyncio.gather(work, over, return_exceptions=True)

    async def _until_over(self, wanted: Ahead | None, limit_s: float | None) -> None:
        """Until something else is wanted."""
        try:
            async with asyncio.timeout(limit_s):
                await self._board.wait_until(lambda _: self._wanted() != wanted)
        except TimeoutError:
            pass
