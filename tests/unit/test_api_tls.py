"""TLS on the TCP port: a real certificate, one that is exchanged, clients that never speak it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mountd.api import connections
from mountd.api.server import Admission
from mountd.settings.http import HttpSettings
from mountd.tls import BadPair, server_context
from tests.support.admitted import ADMISSION, HERE, OPERATOR, Admitting, admitting
from tests.support.shelf import until
from tests.support.tls import make_certificate
from tests.unit.test_api_tcp import free_port

SOON_S = 60.0


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    directory = tmp_path_factory.mktemp("tls")
    return {name: make_certificate(directory, name) for name in ("old", "new")}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Admitting]:
    async with admitting(tmp_path) as found:
        yield found


def context_of(pair: tuple[Path, Path]) -> ssl.SSLContext:
    return server_context(pair[0].read_text(), pair[1].read_text())


def admission_of(pair: tuple[Path, Path]) -> Admission:
    return Admission(ADMISSION.tokens, context_of(pair))


def trusting(pair: tuple[Path, Path]) -> ssl.SSLContext:
    """A client that trusts this certificate alone."""
    return ssl.create_default_context(cafile=str(pair[0]))


async def ask(port: int, context: ssl.SSLContext | None, request: str = "GET /healthz HTTP/1.0\r\n\r\n") -> bytes:
    """The first line of the answer."""
    name = "127.0.0.1" if context else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        writer.write(request.encode())  # at once, so that it may come with the end of the handshake
        return await asyncio.wait_for(reader.readline(), SOON_S)
    finally:
        writer.transport.abort()


async def test_it_speaks_tls_and_nothing_else(api: Admitting, pairs: dict[str, tuple[Path, Path]]) -> None:
    await api.listen(admission_of(pairs["old"]))
    assert (await ask(api.port, trusting(pairs["old"]))).split()[1] == b"200"
    body = '{"reason": "night"}'
    request = f"POST /api/v1/pause HTTP/1.0\r\nAuthorization: Bearer {OPERATOR}\r\nContent-Length: {len(body)}\r\n\r\n"
    assert (await ask(api.port, trusting(pairs["old"]), request + body)).split()[1] == b"200"
    assert api.hub.model.committed.suspended == "token ci: night"
    with pytest.raises(ssl.SSLCertVerificationError):
        await ask(api.port, trusting(pairs["new"]))
    try:
        answer = await ask(api.port, None)
    except ConnectionError:
        answer = b""
    assert b"HTTP" not in answer
    old = trusting(pairs["old"])
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert (await ask(api.port, old)).split()[1] == b"200"


async def test_a_new_certificate_is_that_of_new_connections_and_streams_go_on(
    api: Admitting, pairs: dict[str, tuple[Path, Path]]
) -> None:
    http = await api.listen(admission_of(pairs["old"]))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", api.port, ssl=trusting(pairs["old"]), server_hostname="127.0.0.1"
    )
    writer.write(b"GET /api/v1/events?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await asyncio.wait_for(reader.readline(), SOON_S)).split()[1] == b"200"
    port = api.port
    api.server.admit(http, admission_of(pairs["new"]))
    assert (await ask(port, trusting(pairs["new"]))).split()[1] == b"200"
    with pytest.raises(ssl.SSLCertVerificationError):
        await ask(port, trusting(pairs["old"]))
    await api.hub.journal.event("ready", "hub", "still here")
    async with asyncio.timeout(SOON_S):
        while b"still here" not in await reader.readline():
            assert not reader.at_eof()
    writer.transport.abort()


async def test_it_begins_and_ends_to_speak_tls_at_the_same_address(
    api: Admitting, pairs: dict[str, tuple[Path, Path]]
) -> None:
    port = free_port()
    await api.listen(listen=f"127.0.0.1:{port}")
    for pair in (pairs["old"], None, pairs["new"]):
        admission = ADMISSION if pair is None else admission_of(pair)
        await api.server.listen_tcp(HttpSettings(listen=f"127.0.0.1:{port}"), admission)
        assert (await ask(port, trusting(pair) if pair else None)).split()[1] == b"200"


async def test_connections_that_never_speak_it_are_few_and_others_get_in(
    api: Admitting, pairs: dict[str, tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    await api.listen(admission_of(pairs["old"]), listen=HERE)
    held = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", api.port) for _ in range(60)))
    await until(lambda: sum(not reader.at_eof() for reader, _ in held) <= 20, "the oldest to be cut off")
    assert (await ask(api.port, trusting(pairs["old"]))).split()[1] == b"200"
    assert not held[-1][0].at_eof(), "the newest stays"
    assert api.server._tcp is not None
    handshakes = api.server._tcp.handshakes
    assert handshakes is not None
    await api.server.close()
    await until(lambda: not handshakes._pending, "those that are left to be closed")
    for _, writer in held:
        writer.close()


def test_what_does_not_belong_together_is_refused(pairs: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    certificate, key = pairs["old"]
    for first, second in (
        (certificate.read_text(), pairs["new"][1].read_text()),
        (key.read_text(), certificate.read_text()),
        (certificate.read_text(), ""),
        ("", key.read_text()),
        (certificate.read_text()[:200], key.read_text()),
        (certificate.read_text(), "声" * 100),
    ):
        with pytest.raises(BadPair) as refused:
            server_context(first, second)
        assert "PRIVATE" not in str(refused.value)
    certificate, locked = make_certificate(tmp_path, "locked", password="secret-0123456789")
    with pytest.raises(BadPair):
        server_context(certificate.read_text(), locked.read_text())
