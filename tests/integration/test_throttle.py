"""The throttling proxy, alone: who may use it, what it delays and cuts, and what is left when its owner dies."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mountd.process.throttle import PROXY, Throttle
from tests.support.tls import make_certificate
from tests.support.wait import until

DELAY_S = 0.5
BODY = os.urandom(300_000)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.address = f"127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def handle_error(self, *_: object) -> None:
        pass  # a cut connection is what is tested


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made
        made.shutdown()


@pytest.fixture
async def throttle() -> AsyncIterator[Throttle]:
    made = await Throttle.start({"MOUNTD_INSTANCE": "test"})
    yield made
    await made.close()


class Client:
    """As rclone uses a proxy: the whole address for plain HTTP, a tunnel for TLS."""

    def __init__(self, throttle: Throttle, address: str, context: ssl.SSLContext | None = None) -> None:
        url = urlsplit(throttle.url)
        assert url.hostname
        self.given = {"Proxy-Authorization": "Basic " + b64encode(f"mountd:{url.password}".encode()).decode()}
        self.address, self.tunnel = address, context is not None
        if context is not None:
            connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=70, context=context)
            connection.set_tunnel(address, headers=self.given)
            self.connection: http.client.HTTPConnection = connection
        else:
            self.connection = http.client.HTTPConnection(url.hostname, url.port, timeout=70)

    async def get(self, path: str = "/a?b=c") -> float:
        """How long it took, in seconds; the body must be whole."""
        return await asyncio.to_thread(self._get, path)

    def _get(self, path: str) -> float:
        began = time.monotonic()
        if self.tunnel:
            self.connection.request("GET", path)
        else:
            self.connection.request("GET", f"http://{self.address}{path}", headers={**self.given, "Host": self.address})
        answer = self.connection.getresponse()
        assert (answer.status, answer.read()) == (200, BODY)
        return time.monotonic() - began


async def quick_once(client: Client, limit_s: float) -> float:
    """The shortest of five: a busy machine may make some of them slow."""
    took_s = [await client.get()]
    while min(took_s) >= limit_s and len(took_s) < 5:
        took_s.append(await client.get())
    assert min(took_s) < limit_s
    return min(took_s)


async def test_the_server_sees_a_request_like_any_other(throttle: Throttle, server: Server) -> None:
    client = Client(throttle, server.address)
    for _ in range(3):
        await client.get()
    path, headers = server.seen[0]
    assert path == "/a?b=c"
    assert headers["Host"] == server.address
    assert not [name for name in headers if name.lower().startswith("proxy-")]
    assert await throttle.requests() == 3


async def test_nobody_else_may_use_it(throttle: Throttle, server: Server) -> None:
    client = Client(throttle, server.address)
    client.given = {"Proxy-Authorization": "Basic " + b64encode(b"mountd:guess").decode()}
    with pytest.raises(AssertionError, match="407"):
        await client.get()
    assert not server.seen
    assert await throttle.requests() == 0


async def test_slow_is_slow_for_each_request_and_no_longer_than_asked(throttle: Throttle, server: Server) -> None:
    client = Client(throttle, server.address)
    await quick_once(client, DELAY_S)
    await throttle.set("slow", delay_s=DELAY_S)
    for _ in range(2):
        assert await quick_once(client, 4 * DELAY_S) >= DELAY_S
    await throttle.set("slow", delay_s=60.0)
    waiting = asyncio.create_task(client.get())
    await asyncio.sleep(DELAY_S)
    assert not waiting.done()
    await throttle.set("none")
    assert await waiting < 60, "it goes on when the fault ends"


async def test_slow_in_a_tunnel(throttle: Throttle, server: Server, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "server")
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(certificate, key)
    server.socket = theirs.wrap_socket(server.socket, server_side=True)
    client = Client(throttle, server.address, ssl.create_default_context(cafile=str(certificate)))
    await client.get()
    await throttle.set("slow", delay_s=DELAY_S)
    for _ in range(2):
        assert await quick_once(client, 4 * DELAY_S) >= DELAY_S
    await throttle.set("none")
    await quick_once(client, DELAY_S)


async def test_offline_cuts_what_is_open_and_refuses_what_is_new(throttle: Throttle, server: Server) -> None:
    url = urlsplit(throttle.url)
    await throttle.set("slow", delay_s=60.0)
    waiting = asyncio.create_task(Client(throttle, server.address).get())
    async with asyncio.timeout(60):
        while not await throttle.requests():
            await asyncio.sleep(0.01)
    await throttle.set("offline")
    with pytest.raises((OSError, http.client.HTTPException)):
        await waiting
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((url.hostname, url.port), timeout=30)
    assert not server.seen
    await throttle.set("none")
    await Client(throttle, server.address).get()  # on the same port


async def test_it_ends_when_it_is_closed() -> None:
    throttle = await Throttle.start({"MOUNTD_INSTANCE": "test"})
    await throttle.close()
    with pytest.raises(ProcessLookupError):
        os.kill(throttle.pid, 0)


def test_an_owner_that_dies_leaves_no_fault(server: Server) -> None:
    """It goes on, without the fault, as long as who uses it lives."""
    user = subprocess.Popen(["sleep", "60"])
    ours, theirs = socket.socketpair()
    with theirs:
        proxy = subprocess.Popen([sys.executable, "-I", "-S", str(PROXY)], stdin=theirs.fileno())
    try:
        with ours, ours.makefile("rw") as control:

            def ask(request: dict[str, object]) -> dict[str, int]:
                control.write(json.dumps(request) + "\n")
                control.flush()
                answer: dict[str, int] = json.loads(control.readline())
                return answer

            port = ask({"password": "known"})["port"]
            ask({"client": user.pid})
            ask({"fault": "offline"})
        given = {"Proxy-Authorization": "Basic " + b64encode(b"mountd:known").decode(), "Host": server.address}

        def passes() -> bool:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=70)
            connection.request("GET", f"http://{server.address}/", headers=given)
            with contextlib.closing(connection):
                return connection.getresponse().status == 200

        until(passes, 60, "the way to be free again")
        assert proxy.poll() is None
        user.send_signal(signal.SIGKILL)
        user.wait()
        assert proxy.wait(60) == 0
    finally:
        for process in (user, proxy):
            process.kill()
            process.wait()
