"""A request that changes something is carried out completely, also when its client goes away meanwhile."""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import web

from mountd.api.documents import failures
from mountd.api.peer import CALLER
from mountd.api.roles import Handler
from mountd.errors import Busy

log = structlog.get_logger()

AT_ONCE = 100


class Shielded:
    """Reads and streams stop with their reader, and so does what somebody unknown sends, who would take the room of the
    others; all else runs as a task of its own, which `close` waits for."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[web.StreamResponse]] = set()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What it calls gives a document for every failure."""
        if request.method in ("GET", "HEAD") or CALLER.get() is None:
            return await handler(request)
        if len(self._tasks) >= AT_ONCE:
            holder = f"{AT_ONCE} requests"
            busy = Busy(f"cannot take another request: busy with {holder}", hint="try again in a moment", holder=holder)
            return web.json_response(failures.error(busy), status=409)
        task = asyncio.ensure_future(handler(request))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[web.StreamResponse]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # goes to the client, if it still listens

    async def close(self, limit_s: float) -> None:
        """Returns when nothing is carried out any more; what takes longer than `limit_s` is cut off."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=limit_s)
        for task in late:
            log.warning("request cut off: mountd stops")
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=limit_s)
