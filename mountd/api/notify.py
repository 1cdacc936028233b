"""The route of notifications: a message to a target, to see that it arrives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from mountd.api.body import read_body
from mountd.api.documents import SCHEMA
from mountd.api.documents.notify import NotifySentDocument
from mountd.api.history import answer
from mountd.errors import NotFound, UsageError

SendTest = Callable[[str, str], Awaitable[None]]
"""target, operator: sends one message now. Raises NotFound, MountdError."""


class NotifyRoutes:
    def __init__(self, send: SendTest | None, operator: Callable[[], Awaitable[str]]) -> None:
        """`send`: None where nobody is notified."""
        self._send = send
        self._operator = operator

    def writes(self) -> list[web.RouteDef]:
        return [web.post("/api/v1/notify", self.notify)]

    async def notify(self, request: web.Request) -> web.Response:
        """Answers once the message is delivered. Raises UsageError, NotFound, MountdError: it was not."""
        body = await read_body(request, {"target": str})
        if "target" not in body:
            raise UsageError("cannot notify: no target given")
        if self._send is None:
            raise NotFound(f"cannot notify {body['target']!r}: no such target", hint="add one under `notify:`")
        await self._send(body["target"], await self._operator())
        return answer(NotifySentDocument(schema=SCHEMA, target=body["target"]))
