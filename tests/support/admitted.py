"""Tokens for tests, and an API that lets their holders in over TCP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from mountd.api.server import Admission, Server
from mountd.settings import tokens
from mountd.settings.http import HttpSettings
from tests.support.shelf import Shelf, shelf

READER, OPERATOR = "reader-0123456789abcdef", "operator-0123456789abcdef"
LINES = f"# of tests\nreader ann {READER}\n\noperator ci {OPERATOR}\n"
ADMISSION = Admission(tokens.parse(LINES))
HERE, EVERYWHERE = "127.0.0.1:0", ":0"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error


@dataclass(frozen=True, slots=True)
class Admitting:
    """An API on a port of its own."""

    hub: Shelf
    server: Server

    async def listen(self, admission: Admission = ADMISSION, **http: Any) -> HttpSettings:
        settings = HttpSettings.model_validate({"listen": HERE, **http})
        await self.server.listen_tcp(settings, admission)
        return settings

    @property
    def port(self) -> int:
        assert self.server._tcp is not None
        port: int = self.server._tcp.listener.sockets[0].getsockname()[1]
        return port

    async def ask(
        self, path: str, token: str | None = None, *, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> Answered:
        """`headers`: names with `_` for `-`. Of a stream only the beginning is awaited."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given |= bearer(token) if token is not None else {}
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{self.port}{path}"
            async with session.request(method, url, headers=given, data=body) as answer:
                is_stream = answer.headers.get("Content-Type", "").startswith("text/event-stream")
                return Answered(answer.status, answer.headers, "" if is_stream else await answer.text())

    async def post(self, path: str, token: str | None = None, **body: Any) -> Answered:
        return await self.ask(path, token, method="POST", body=json.dumps(body).encode())


@asynccontextmanager
async def admitting(root: Path) -> AsyncIterator[Admitting]:
    """It listens nowhere yet; its model is at v22."""
    async with shelf(root) as hub, hub.running():
        server = hub.server()
        try:
            yield Admitting(hub, server)
        finally:
            await server.close()
