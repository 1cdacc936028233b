"""The route of the OpenAPI document, which is made when somebody asks for it first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from mountd.api.documents.requests import NoQuery
from mountd.api.roles import Route
from mountd.api.route import get
from mountd.text import dumps


class OpenApiRoutes:
    def __init__(self, table: Callable[[], Sequence[Route]]) -> None:
        """`table`: all routes, this one among them."""
        self._table = table
        self._made: bytes | None = None
        self._making = asyncio.Lock()

    def reads(self) -> list[Route]:
        return [get("/api/v1/openapi.json", self.openapi, NoQuery, {200: dict[str, Any]})]

    async def openapi(self, _: web.Request, __: NoQuery) -> web.Response:
        """This document: every route, with what it reads and answers."""
        async with self._making:  # it takes a processor a while: once is enough
            if self._made is None:
                self._made = await asyncio.to_thread(_make, self._table())
        return web.Response(body=self._made, content_type="application/json")


def _make(table: Sequence[Route]) -> bytes:
    from mountd.api import openapi  # in a thread, and only for who asks

    return dumps(openapi.document(table)).encode()
