"""Clients that hold on: bodies that do not come, and answers that nobody reads, on real connections."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from mountd.api import body, connections, history, login, shielded
from mountd.api.server import Admission
from mountd.process.child import Ring
from mountd.tls import server_context
from tests.support.admitted import ADMISSION, OPERATOR, Admitting, admitting, bearer
from tests.support.shelf import until
from tests.support.tls import make_certificate

SOON_S = 60.0
LOGIN, PAUSE, LOGS, EVENTS = "/api/v1/login", "/api/v1/pause", "/api/v1/logs?lines=2000", "/api/v1/events?limit=1000"
HALF = {"Content-Length": "9"}
"""Of a request whose body does not come."""
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Admitting]:
    async with admitting(tmp_path) as found:
        await found.listen()
        yield found


def own_page(api: Admitting) -> dict[str, str]:
    return {"Origin": f"http://127.0.0.1:{api.port}"}


async def begin(api: Admitting, method: str, path: str, headers: dict[str, str]) -> Connection:
    found = await asyncio.open_connection("127.0.0.1", api.port)
    head = {"Host": f"127.0.0.1:{api.port}", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    found[1].write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode())
    return found


def abort(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Who lets go of the reader before has the connection closed."""
    writer.transport.abort()


async def status_of(reader: asyncio.StreamReader) -> int:
    return int((await asyncio.wait_for(reader.readline(), SOON_S)).split()[1])


# -- bodies -----------------------------------------------------------------------------------------------------------


async def test_who_is_unknown_takes_no_room_from_who_changes_something(
    api: Admitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shielded, "AT_ONCE", 2)
    async with AsyncExitStack() as stack:
        for path in [LOGIN, "/api/v1/logout"] * 3:
            held = await begin(api, "POST", path, {**HALF, **own_page(api)})
            stack.callback(abort, *held)
        await until(lambda: len(connections_of(api)) == 6, "all to be connected")
        assert (await api.ask("/healthz")).status == 200
        assert (await api.post(PAUSE, OPERATOR, reason="night")).status == 200


async def test_a_body_that_does_not_come_is_not_waited_for(api: Admitting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_S", 0.2)
    for path, headers in ((PAUSE, bearer(OPERATOR)), (LOGIN, own_page(api))):
        reader, writer = await begin(api, "POST", path, {**HALF, **headers})
        assert await status_of(reader) == 400
        assert b"did not come within 0.2 s" in await asyncio.wait_for(reader.readuntil(b"0.2 s"), SOON_S)
        writer.transport.abort()


async def test_a_login_from_elsewhere_is_refused_before_its_body(api: Admitting) -> None:
    reader, writer = await begin(api, "POST", LOGIN, {**HALF, "Origin": "http://evil.example"})
    assert await status_of(reader) == 403
    writer.transport.abort()


async def test_logins_without_a_body_yield_to_others(api: Admitting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "AT_ONCE", 2)
    held = [await begin(api, "POST", LOGIN, {**HALF, **own_page(api)}) for _ in range(2)]
    await until(lambda: len(connections_of(api)) == 2, "both to be connected")
    await asyncio.sleep(0.1)
    held.append(await begin(api, "POST", LOGIN, {**HALF, **own_page(api)}))
    assert await asyncio.wait_for(held[0][0].read(), SOON_S) == b""
    data = json.dumps({"token": OPERATOR}).encode()
    assert (await api.ask(LOGIN, method="POST", body=data, **own_page(api))).status == 200
    for _, writer in held:
        writer.transport.abort()


# -- answers ----------------------------------------------------------------------------------------------------------


def connections_of(api: Admitting) -> list[Any]:
    assert api.server._tcp is not None
    served = api.server._tcp.runner.server
    assert served is not None
    return list(served.connections)


def unread_of(api: Admitting) -> connections.Unread:
    assert api.server._tcp is not None
    served = api.server._tcp.runner.server
    assert served is not None
    return connections._UNREAD[served]


def waiting(api: Admitting) -> int:
    """Bytes that no client has read."""
    return sum(connections._unread(transport) for transport, _, _ in unread_of(api)._open.values())


def talk(api: Admitting, mebibytes: int) -> None:
    ring = api.hub.rings["webui"] = Ring()
    for _ in range(mebibytes * 128):
        ring.append("x" * 8000)


async def ask_and_read_nothing(api: Admitting, stack: AsyncExitStack, path: str, times: int = 1) -> None:
    """The kernel keeps little for the client."""
    sock = stack.enter_context(closing(socket.socket()))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", api.port))
    await loop.sock_sendall(sock, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * times)


async def grown(api: Admitting) -> int:
    """What waits once it does not become more."""
    await until(lambda: waiting(api), "an answer to wait")
    before = -1
    while before != (before := waiting(api)):
        await asyncio.sleep(0.3)
    return before


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "ANSWER_BYTES", 16 << 20)


@pytest.mark.usefixtures("many")
async def test_an_answer_that_nobody_reads_is_dropped(api: Admitting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOOK_S", 0.05)
    monkeypatch.setattr(connections, "STALLED_S", 0.5)
    talk(api, 12)
    async with AsyncExitStack() as stack:
        await ask_and_read_nothing(api, stack, LOGS)
        await until(lambda: waiting(api), "the answer to wait")
        await until(lambda: not waiting(api), "it to be dropped")
        await until(lambda: not connections_of(api), "the connection to be closed")
    assert unread_of(api)._next is None, "without connections nothing is looked at"


@pytest.mark.usefixtures("many")
async def test_an_answer_that_is_read_slowly_comes_whole(api: Admitting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOOK_S", 0.05)
    monkeypatch.setattr(connections, "STALLED_S", 2.0)
    talk(api, 12)
    reader, writer = await begin(api, "GET", LOGS, {"Connection": "close"})
    size = 0
    while piece := await asyncio.wait_for(reader.read(200_000), SOON_S):
        size += len(piece)
        await asyncio.sleep(0.04)
    assert size > 12_000_000
    writer.close()


@pytest.mark.usefixtures("many")
async def test_all_answers_together_are_bounded_and_the_largest_goes(
    api: Admitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(api, 12)
    async with AsyncExitStack() as stack:
        await ask_and_read_nothing(api, stack, LOGS)
        one = await grown(api)
        monkeypatch.setattr(connections, "MOST_UNREAD", 2 * one)
        for _ in range(4):
            await ask_and_read_nothing(api, stack, LOGS)
            await grown(api)
        assert (await api.ask("/healthz")).status == 200
        assert waiting(api) <= 2 * one
        assert len(connections_of(api)) >= 2


async def test_requests_that_come_at_once_are_answered_as_they_are_read(api: Admitting) -> None:
    talk(api, 8)
    async with AsyncExitStack() as stack:
        await ask_and_read_nothing(api, stack, LOGS, times=20)
        assert await grown(api) < 2 * history.ANSWER_BYTES


async def test_what_waits_below_tls_counts(api: Admitting, tmp_path: Path) -> None:
    pair = make_certificate(tmp_path, "here")
    context = server_context(pair[0].read_text(), pair[1].read_text())
    await api.listen(Admission(ADMISSION.tokens, context))
    talk(api, 8)
    client = trusting(pair[0])
    _, writer = await asyncio.open_connection(
        "127.0.0.1", api.port, ssl=client, server_hostname="127.0.0.1", limit=4096
    )
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(f"GET {LOGS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 4)
    await grown(api)
    raw = sum(each.get_write_buffer_size() for each in connections._BELOW.values())
    assert raw > 0
    assert waiting(api) >= raw
    writer.transport.abort()


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


async def test_a_stream_sends_its_events_one_after_the_other(api: Admitting) -> None:
    for _ in range(history.STREAM_PAGE):
        await api.hub.journal.event("tested", "hub", "x" * 16_000, {"key": "y" * 16_000})
    async with AsyncExitStack() as stack:
        await ask_and_read_nothing(api, stack, "/api/v1/stream?after=0")
        assert await grown(api) < 200_000


async def test_a_reader_of_lines_that_takes_nothing_is_let_go(api: Admitting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "WRITE_LIMIT_S", 0.3)
    talk(api, 12)
    async with AsyncExitStack() as stack:
        await ask_and_read_nothing(api, stack, f"{LOGS}&follow=1")
        await until(lambda: connections_of(api), "it to be connected")
        await until(lambda: not connections_of(api), "it to be let go")


async def test_lines_and_events_of_one_answer_are_bounded(api: Admitting) -> None:
    ring = api.hub.rings["webui"] = Ring()
    for number in range(1000):
        ring.append(f"{number} " + "x" * 8000)
    lines = (await api.ask(LOGS)).json["logs"]
    assert 400 < len(lines) < 600
    assert lines[-1]["text"].startswith("999 ")
    for number in range(400):
        await api.hub.journal.event("tested", "hub", f"{number} " + "x" * 16_000)
    newest = await api.hub.journal.last_event()
    kept = (await api.ask(EVENTS)).json["events"]
    assert (200 < len(kept) < 300, kept[-1]["id"]) == (True, newest)
    seen = newest - 400
    while page := (await api.ask(f"{EVENTS}&after={seen}")).json["events"]:
        assert page[0]["id"] == seen + 1, "who goes on from the last one misses none"
        seen = page[-1]["id"]
    assert seen == newest


# -- what is kept by others -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/api/v1/status", "/api/v1/logs", "/nothing", EVENTS])
async def test_no_browser_keeps_an_answer(api: Admitting, path: str) -> None:
    assert (await api.ask(path)).headers["Cache-Control"] == "no-store"
    assert (await api.ask("/dashboard/app.js")).headers["Cache-Control"] == "no-cache"
