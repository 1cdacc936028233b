"""How a route is made: its handler gets what the request gives, read by the types that the OpenAPI document shows."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from aiohttp import web

from mountd.api.body import Fields, read_body, read_query
from mountd.api.roles import Answers, Handler, Route, RouteAccess

Reads = Callable[[web.Request, Fields], Awaitable[web.StreamResponse]]


def get(
    path: str,
    handler: Reads[Fields],
    query: type[Fields],
    answers: Answers,
    access: RouteAccess = RouteAccess.READ,
) -> Route:
    """The first paragraph of the handler's docstring says what the route does."""

    async def asked(request: web.Request) -> web.StreamResponse:
        return await handler(request, read_query(request, query))

    return Route(web.get(path, asked), access, query=query, answers=answers, about=_about(handler))


def post(
    path: str,
    handler: Reads[Fields],
    body: type[Fields],
    answers: Answers,
    access: RouteAccess = RouteAccess.WRITE,
    *,
    around: Callable[[Handler], Handler] = lambda reads: reads,
) -> Route:
    """As `get`, for what changes something. `around`: makes what is called first, before the body is read."""

    async def asked(request: web.Request) -> web.StreamResponse:
        return await handler(request, await read_body(request, body))

    return Route(web.post(path, around(asked)), access, body=body, answers=answers, about=_about(handler))


def _about(handler: object) -> str:
    return inspect.getdoc(handler) or ""
