"""The routes that pause automatic changes and let them go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from mountd.api import documents
from mountd.operation.sync import Syncing
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

    async def _answer(self, request: web.Request, work: Callable[..., Awaitable[list[Any]]]) -> web.Response:
        body = await self._read_body(request, FIELDS)
        operator = await self._operator()
        paused = await work(body.get("model"), operator=operator, reason=body.get("reason", ""))
        document = {"schema": documents.SCHEMA, "models": [each.as_json() for each in paused]}
        return web.json_response(document, dumps=dumps)
