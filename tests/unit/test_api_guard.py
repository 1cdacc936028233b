"""Tokens on the TCP port, over real connections: right, wrong, too many, changed; behind a proxy; signed routes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from mountd.api import guard
from mountd.api.guard import Guard
from mountd.api.roles import Route, RouteAccess, needed
from mountd.api.server import NOBODY, Admission
from mountd.api.wrong_tokens import AT_ONCE
from mountd.settings import tokens
from mountd.settings.http import HttpSettings
from mountd.settings.tokens import Tokens
from tests.support.admitted import ADMISSION, EVERYWHERE, HERE, OPERATOR, READER, Admitting, admitting
from tests.support.shelf import until

EXPOSED = HttpSettings.model_validate({"listen": EVERYWHERE})
WRONG = "wrong-0123456789abcdef"
STATUS, PAUSE = "/api/v1/status", "/api/v1/pause"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Admitting]:
    async with admitting(tmp_path) as found:
        yield found


@pytest.mark.parametrize("listen", [HERE, EVERYWHERE])
async def test_a_write_needs_an_operator_and_is_refused_where_no_tokens_are(api: Admitting, listen: str) -> None:
    await api.listen(NOBODY, listen=listen)
    for token in (None, OPERATOR):
        answer = await api.post(PAUSE, token)
        assert (answer.status, answer.error["exit"]) == (403 if token is None else 401, 2)
    await api.listen(listen=listen)
    answer = await api.post(PAUSE)
    assert (answer.status, answer.headers["WWW-Authenticate"], answer.error["exit"]) == (401, "Bearer", 2)
    assert (await api.post(PAUSE, READER)).status == 403
    assert api.hub.model.committed.suspended is None
    assert (await api.post(PAUSE, OPERATOR, reason="night")).status == 200
    assert api.hub.model.committed.suspended == "token ci: night"


async def test_the_history_names_the_token_and_not_what_the_client_says_of_itself(api: Admitting) -> None:
    await api.listen()
    await until(lambda: api.hub.status.linked, "v22 to be linked")
    answer = await api.ask(
        "/api/v1/switch", OPERATOR, method="POST", body=b'{"version": "v23"}', User_Agent="mountd/9.9.9"
    )
    assert answer.status == 202
    assert (answer.json["operation"]["operator"], answer.json["operation"]["source"]) == ("token ci", "api")
    await until(lambda: api.hub.model.committed.current == "v23", "the switch")
    (operation,) = (await api.ask("/api/v1/history")).json["history"]
    assert (operation["operator"], operation["source"], operation["to"]) == ("token ci", "api", "v23")


async def test_what_is_no_operation_is_an_event_that_says_who(api: Admitting) -> None:
    await api.listen()
    assert (await api.post("/api/v1/reload", OPERATOR)).status == 200
    assert (await api.post(PAUSE, OPERATOR)).status == 200
    events = {each.code: each.text for each in await api.hub.journal.events(limit=20)}
    for code in ("reload-requested", "suspended"):
        assert "token ci" in events[code]


async def test_a_wrong_token_is_wrong_also_where_none_is_needed_but_not_for_probes(api: Admitting) -> None:
    await api.listen()
    assert (await api.ask(STATUS)).status == 200
    assert (await api.ask(STATUS, WRONG)).status == 401
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await api.ask(path, WRONG)).status in (200, 503)
    for scheme in ("Basic YTpi", "Bearer", WRONG):  # a proxy may pass on what it has asked for
        assert (await api.ask(STATUS, Authorization=scheme)).status == (401 if scheme == "Bearer" else 200)


async def test_who_sends_too_many_wrong_tokens_waits_and_others_do_not(
    api: Admitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: now[0]))
    await api.listen(listen=EVERYWHERE)
    for _ in range(AT_ONCE):
        assert (await api.ask(STATUS, WRONG)).status == 401
    for token in (WRONG, OPERATOR, READER):  # guessing goes on for nobody
        answer = await api.post(PAUSE, token)
        assert (answer.status, answer.headers["Retry-After"], answer.error["exit"]) == (429, "6", 2)
    assert api.hub.model.committed.suspended is None
    assert (await api.ask("/healthz", WRONG)).status == 200
    assert (await api.ask(STATUS)).status == 401, "who sends none is only told so"
    with socket.socket() as other:  # from another address of this machine
        other.bind(("127.0.0.9", 0))
        other.setblocking(False)
        await asyncio.get_running_loop().sock_connect(other, ("127.0.0.1", api.port))
        reader, writer = await asyncio.open_connection(sock=other)
        writer.write(f"GET {STATUS} HTTP/1.0\r\nAuthorization: Bearer {READER}\r\n\r\n".encode())
        assert (await reader.readline()).split()[1] == b"200"
        writer.close()
    now[0] += 6.0
    assert (await api.ask(STATUS, READER)).status == 200


async def test_on_loopback_no_user_shuts_out_the_others_with_wrong_tokens(api: Admitting) -> None:
    await api.listen()
    for _ in range(AT_ONCE + 1):
        assert (await api.ask(STATUS, WRONG)).status == 401
    assert (await api.post(PAUSE, OPERATOR)).status == 200
    for _ in range(AT_ONCE):  # what comes through a proxy is from elsewhere, and waits
        assert (await api.ask(STATUS, WRONG, Via="1.1 proxy")).status == 401
    assert (await api.ask(STATUS, READER, Via="1.1 proxy")).status == 429
    assert (await api.ask(STATUS, READER)).status == 200


async def test_other_tokens_are_valid_from_the_next_request_on(api: Admitting) -> None:
    """On connections that are open, too."""
    http = await api.listen(listen=EVERYWHERE)
    new = "operator-new-0123456789"
    assert (await api.ask(STATUS, OPERATOR)).status == 200
    api.server.admit(http, Admission(tokens.parse(f"operator ci {new}\n")))
    assert (await api.ask(STATUS, OPERATOR)).status == 401
    assert (await api.ask(STATUS, new)).status == 200
    api.server.admit(http, Admission(Tokens(is_configured=True)))  # the file cannot be used
    for token in (new, None):
        assert (await api.ask(STATUS, token)).status == 401


async def test_a_token_is_that_of_its_request_alone(api: Admitting) -> None:
    await api.listen()
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    statuses = []
    for authorization in (f"Authorization: Bearer {OPERATOR}\r\n", ""):
        head = f"POST {PAUSE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n{authorization}\r\n{{}}"
        writer.write(head.encode())
        status, length = (await reader.readline()).split()[1], 0
        while (line := await reader.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        await reader.readexactly(length)
        statuses.append(status)
    writer.close()
    assert statuses == [b"200", b"401"]


async def test_behind_a_proxy_nobody_reads_without_a_token_and_each_client_counts_for_itself(api: Admitting) -> None:
    await api.listen(behind_proxy=True)
    for host in ("hub.example.com", "127.0.0.1"):
        assert (await api.ask("/healthz", Host=host)).status == 200
        assert (await api.ask(STATUS, Host=host)).status == 401
        assert (await api.ask(STATUS, READER, Host=host)).status == 200
    for _ in range(AT_ONCE + 1):
        answer = await api.ask(STATUS, WRONG, X_Forwarded_For="10.0.0.2, 10.0.0.1")
    assert answer.status == 429
    assert (await api.ask(STATUS, READER, X_Forwarded_For="10.0.0.1, 10.0.0.2")).status == 200
    assert (await api.ask(STATUS, READER, X_Forwarded_For="10.0.0.1")).status == 429
    assert (await api.ask(STATUS, READER)).status == 200


async def test_what_a_proxy_passes_on_is_not_local_also_where_nobody_has_said_so(api: Admitting) -> None:
    await api.listen()
    for token, path, status in ((None, STATUS, 401), (READER, STATUS, 200), (None, "/healthz", 200)):
        assert (await api.ask(path, token, Forwarded="for=10.0.0.1")).status == status
        assert (await api.ask(path, token, X_Forwarded_For="10.0.0.1")).status == status
        assert (await api.ask(path, token, Via="1.1 proxy")).status == status


async def test_what_a_client_says_of_its_address_counts_only_behind_a_proxy(api: Admitting) -> None:
    await api.listen()
    for number in range(AT_ONCE):
        assert (await api.ask(STATUS, WRONG, X_Forwarded_For=f"10.0.0.{number}")).status == 401
    assert (await api.ask(STATUS, WRONG, X_Forwarded_For="10.9.9.9")).status == 429


async def test_a_large_body_is_not_read_for_somebody_who_may_not_write(api: Admitting) -> None:
    await api.listen()
    body = b'{"reason": "' + b"x" * 5_000_000 + b'"}'
    with contextlib.suppress(ConnectionError):  # an answer comes first, and then the connection is closed
        assert (await api.ask(PAUSE, method="POST", body=body)).status == 401
    with contextlib.suppress(ConnectionError):
        assert (await api.ask(PAUSE, OPERATOR, method="POST", body=body)).status == 413


async def test_a_signed_route_checks_itself_and_its_refusals_count() -> None:
    async def hook(request: web.Request) -> web.Response:
        return web.Response(status=202 if request.headers.get("X-Signature") == "good" else 401)

    door = Guard(needed([Route(web.post("/hook", hook), RouteAccess.SIGNED)]), EXPOSED, ADMISSION.tokens)
    app = web.Application(middlewares=[door.middleware])
    app.add_routes([web.post("/hook", hook)])
    runner = web.AppRunner(app)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        await web.SockSite(runner, sock).start()
        port = sock.getsockname()[1]

        async def ask(signature: str) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = "POST /hook HTTP/1.0\r\nHost: hub.example.com\r\n"
            head += f"Authorization: Bearer {WRONG}\r\nX-Signature: {signature}\r\n\r\n"
            writer.write(head.encode())
            status = (await reader.readline()).split()[1]
            writer.close()
            return status

        try:
            assert await ask("good") == b"202"
            assert [await ask("bad") for _ in range(AT_ONCE)] == [b"401"] * AT_ONCE
            assert await ask("good") == b"429"
        finally:
            await runner.cleanup()
