"""What is served over TCP and to whom, and how the API moves to another address."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mountd.api.server import Server
from mountd.errors import MountdError
from mountd.settings.http import HttpSettings
from tests.support.shelf import shelf


@asynccontextmanager
async def serving(root: Path) -> AsyncIterator[Server]:
    """An API that listens nowhere yet."""
    async with shelf(root) as hub:
        await hub.desired.load("hub")
        found = hub.server()
        try:
            yield found
        finally:
            await found.close()


def port_of(found: Server) -> int:
    assert found._tcp is not None
    port: int = found._tcp.listener.sockets[0].getsockname()[1]
    return port


def free_port() -> int:
    """Of those that the kernel gives nobody by itself: it is free a moment later, too."""
    for port in random.sample(range(10_000, 30_000), 100):
        with contextlib.suppress(OSError), closing(socket.create_server(("127.0.0.1", port))):
            return port
    raise AssertionError("no free port")


async def ask(port: int, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}{path}"
        async with session.request(method, url, headers={"Host": host}) as answer:
            return answer.status, None if method == "HEAD" else await answer.json()


@pytest.mark.parametrize(
    ("method", "path", "host", "loopback", "other"),
    [
        ("GET", "/healthz", "127.0.0.1", 200, 200),
        ("HEAD", "/healthz", "127.0.0.1", 200, 200),
        ("GET", "/api/v1/status", "127.0.0.1", 200, 403),
        ("HEAD", "/api/v1/status", "127.0.0.1", 200, 403),
        ("GET", "/api/v1/history", "127.0.0.1", 200, 403),
        ("POST", "/api/v1/reload", "127.0.0.1", 403, 403),
        ("PUT", "/healthz", "127.0.0.1", 403, 403),
        ("OPTIONS", "/healthz", "127.0.0.1", 403, 403),
        ("GET", "/healthz", "127.0.0.1:8780", 200, 200),
        ("GET", "/healthz", "LOCALHOST:8780", 200, 200),
        ("GET", "/healthz", "[::1]", 200, 200),
        ("GET", "/healthz", "[::1]:8780", 200, 200),
        ("GET", "/healthz", "evil.example", 400, 200),
        ("GET", "/healthz", "evil.example:8780", 400, 200),
        ("POST", "/api/v1/reload", "evil.example", 400, 403),
        ("GET", "/nothing", "127.0.0.1", 404, 403),
    ],
)
async def test_who_gets_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str, host: str, loopback: int, other: int
) -> None:
    async with serving(tmp_path) as found:
        for listen, expected in (("127.0.0.1:0", loopback), (":0", other)):
            await found.listen_tcp(HttpSettings(listen=listen))
            status, document = await ask(port_of(found), path, method, host)
            assert status == expected, listen
            if status >= 400 and document is not None:
                assert document["error"]["exit"] == (3 if status == 404 else 2)


async def test_a_request_without_a_host_is_answered(tmp_path: Path) -> None:
    """As probes with HTTP/1.0 send it."""
    async with serving(tmp_path) as found:
        await found.listen_tcp(HttpSettings(listen="127.0.0.1:0"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(found))
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"200"
        writer.close()


async def test_the_new_address_answers_and_the_old_one_no_more(tmp_path: Path) -> None:
    async with serving(tmp_path) as found:
        await found.listen_tcp(HttpSettings(listen="127.0.0.1:0"))
        before = port_of(found)
        await found.listen_tcp(HttpSettings(listen="127.0.0.1:0"))
        assert port_of(found) != before
        assert (await ask(port_of(found), "/healthz"))[0] == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask(before, "/healthz")
        after = port_of(found)
    with pytest.raises(aiohttp.ClientConnectorError):
        await ask(after, "/healthz")


@pytest.mark.parametrize("is_first", [True, False])
async def test_an_address_that_is_taken_is_refused_and_the_old_one_stays(tmp_path: Path, is_first: bool) -> None:
    async with serving(tmp_path) as found:
        if not is_first:
            await found.listen_tcp(HttpSettings(listen=f"127.0.0.1:{free_port()}"))
        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(MountdError) as refused:
                await found.listen_tcp(HttpSettings(listen=f"127.0.0.1:{port}"))
        assert f"127.0.0.1:{port}: " in refused.value.text
        assert str(os.getpid()) in refused.value.text, "who has it"
        assert "http.listen" in refused.value.hint
        if not is_first:
            assert (await ask(port_of(found), "/healthz"))[0] == 200


async def test_another_address_of_the_same_port_is_taken_over(tmp_path: Path) -> None:
    """Every address of the machine, where one of them is the old one."""
    port = free_port()
    async with serving(tmp_path) as found:
        for listen in (f"127.0.0.1:{port}", f":{port}", f"127.0.0.1:{port}"):
            await found.listen_tcp(HttpSettings(listen=listen))
            assert port_of(found) == port
            assert (await ask(port, "/healthz"))[0] == 200
        assert (await ask(port, "/api/v1/status"))[0] == 200, "reads are served on loopback again"


async def test_what_cannot_be_taken_over_leaves_the_old_address_as_it_was(tmp_path: Path) -> None:
    port = free_port()
    async with serving(tmp_path) as found:
        await found.listen_tcp(HttpSettings(listen=f"127.0.0.1:{port}"))
        with closing(socket.create_server(("127.0.0.2", port))), pytest.raises(MountdError):
            await found.listen_tcp(HttpSettings(listen=f":{port}"))
        assert (await ask(port, "/api/v1/status"))[0] == 200
