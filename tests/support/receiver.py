"""A receiver of webhooks: a real aiohttp server on a thread of its own, which answers as it is asked to."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.support.wait import until

SOON_S = 60.0


@dataclass(frozen=True, slots=True)
class Posted:
    """A request as it came; `at`: monotonic."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Says:
    """An answer. `slow_s`: comes so late; `closes`: none, the connection is closed."""

    status: int = 204
    headers: Mapping[str, str] | None = None
    slow_s: float = 0.0
    closes: bool = False


class Receiver:
    """`answers` are given one after the other; then `otherwise`."""

    def __init__(self, *answers: Says, otherwise: Says | None = None, tls: tuple[str, str] | None = None) -> None:
        self.got: list[Posted] = []
        self.answers = deque(answers)
        self.otherwise = otherwise or Says()
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def ids(self) -> list[str]:
        return [each.headers["webhook-id"] for each in self.got]

    @property
    def types(self) -> list[str]:
        """Of the CloudEvents, in the order of their arrival."""
        return [each.json["type"] for each in self.got]

    def until(self, count: int, timeout_s: float = SOON_S) -> list[Posted]:
        """All that came, once there are `count`."""
        until(lambda: len(self.got) >= count, timeout_s, f"{count} requests")
        return self.got

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(SOON_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SOON_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _listen(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        context = None
        if self._tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*self._tls)
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        said = self.answers.popleft() if self.answers else self.otherwise
        self.got.append(Posted(request.path_qs, dict(request.headers), body, time.monotonic()))
        if said.slow_s:
            await asyncio.sleep(said.slow_s)
        if said.closes:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=said.status, headers=said.headers)
