"""DNS rebinding: a page in a browser that reaches the loopback port under another name gets nothing, on any route."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mountd.api.roles import Route, RouteAccess
from tests.support.admitted import HERE, OPERATOR, Admitting, admitting
from tests.support.shelf import until

STRANGE = (
    "evil.example",
    "evil.example:8780",
    "127.0.0.1.evil.example",
    "127.0.0.1@evil.example",
    "localhost.evil.example:80",
    "localhost,evil.example",
    "127.0.0.1 evil.example",
    "127.1",
    "2130706433",
    "0.0.0.0",
    "[::ffff:127.0.0.1]",
    "[::1].evil.example",
    "[evil.example]",
    "",
)
LIMIT_S = 60.0


@pytest.fixture
async def api() -> AsyncIterator[Admitting]:
    root = Path(tempfile.mkdtemp(prefix="mountd-t-"))
    try:
        async with admitting(root) as found:
            await until(lambda: found.hub.status.linked, "v22 to be linked")
            await found.listen(listen=HERE)
            yield found
    finally:
        shutil.rmtree(root)


async def ask(api: Admitting, method: str, target: str, *headers: str) -> int:
    """The status of an answer to a head that no client library would send."""
    lines = [f"{method} {target} HTTP/1.1", *headers, f"Authorization: Bearer {OPERATOR}", "Connection: close"]
    lines += ["Content-Length: 1", "", "["] if method == "POST" else ["", ""]
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        writer.write("\r\n".join(lines).encode())
        async with asyncio.timeout(LIMIT_S):
            return int((await reader.readline()).split()[1])
    finally:
        writer.close()


def path(route: Route) -> str:
    return route.path.replace("{id}", "1").replace("{model}", "hub")


async def test_no_route_answers_to_another_name_also_to_who_has_a_token(api: Admitting) -> None:
    routes = [each for each in api.server._routes.table() if each.access is not RouteAccess.SIGNED]
    for route in routes:
        for host in STRANGE:
            status = await ask(api, route.method, path(route), f"Host: {host}")
            assert status == 400, (route.path, host)
        known = await ask(api, route.method, path(route), "Host: 127.0.0.1:8780")
        # A POST has a body that no route takes, and a login that no page sends is refused before it.
        expected = (403,) if route.access is RouteAccess.LOGIN else (400,) if route.method == "POST" else (200, 404)
        assert known in expected, (route.path, known)
    assert not api.hub.board.snapshot.operations


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("http://evil.example/api/v1/status", ["Host: evil.example"]),
        ("/api/v1/status", ["Host: evil.example", "Host: 127.0.0.1"]),
        ("/api/v1/status", ["Host: 127.0.0.1", "Host: evil.example"]),
        ("/api/v1/status", ["Host: evil.example", "X-Forwarded-Host: 127.0.0.1", "Forwarded: host=127.0.0.1"]),
    ],
)
async def test_no_route_answers_to_a_name_that_another_hides(api: Admitting, target: str, headers: list[str]) -> None:
    assert await ask(api, "GET", target, *headers) == 400
