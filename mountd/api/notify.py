"""The route of notifications: a message to a target, to see that it arrives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from mountd.api.documents import SCHEMA
from mountd.api.documents.notify import NotifySentDocument
from mountd.api.documents.requests import NotifyBody
from mountd.api.history import answer
from mountd.api.roles import Route
from mountd.api.route import post
from mountd.errors import NotFound

SendTest = Callable[[str, str], Awaitable[None]]
"""target, operator: sends one message now. Raises NotFound, MountdError."""


class NotifyRoutes:
    def __init__(self, send: SendTest | None, operator: Callable[[], Awaitable[str]]) -> None:
        """`send`: None where nobody is notified."""
        self._send = send
        self._operator = operator

    def writes(self) -> list[Route]:
        return [post("/api/v1/notify", self.notify, NotifyBody, {200: NotifySentDocument})]

    async def notify(self, _: web.Request, body: NotifyBody) -> web.Response:
        """Sends a message to a target, and answers once it is delivered."""
        target = body["target"]
        if self._send is None:
            raise NotFound(f"cannot notify {target!r}: no such target", hint="add one under `notify:`")
        await self._send(target, await self._operator())
        return answer(NotifySentDocument(schema=SCHEMA, target=target))
