"""The routes that pause and resume automatic changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from mountd.api.documents import operations
from mountd.operation.sync import Paused, Syncing
from mountd.text import dumps

ReadBody = Callable[[web.Request, Mapping[str, type]], Awaitable[dict[str, Any]]]
Operator = Callable[[], Awaitable[str]]
FIELDS: Mapping[str, type] = {"model": str, "reason": str}


class SyncRoutes:
    def __init__(self, syncing: Syncing, read_body: ReadBody, operator: Operator) -> None:
        self._syncing = syncing
        self._read_body = read_body
        self._operator = operator

    def writes(self) -> list[web.RouteDef]:
        return [web.post("/api/v1/pause", self.pause), web.post("/api/v1/resume", self.resume)]

    async def pause(self, request: web.Request) -> web.Response:
        """Of `model`, without it of all."""
        return await self._answer(request, self._syncing.pause)

    async def resume(self, request: web.Request) -> web.Response:
        return await self._answer(request, self._syncing.resume)

    async def _answer(self, request: web.Request, work: Callable[..., Awaitable[list[Paused]]]) -> web.Response:
        body = await self._read_body(request, FIELDS)
        operator = await self._operator()
        paused = await work(body.get("model"), operator=operator, reason=body.get("reason", ""))
        return web.json_response(operations.pause(paused), dumps=dumps)
