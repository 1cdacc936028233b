"""Logging in over real connections: cookies, proofs, and everybody who must not get through."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path

import aiohttp
import pytest

from mountd.api.server import NOBODY, Admission
from mountd.api.wrong_tokens import AT_ONCE
from mountd.settings import tokens
from mountd.settings.schema import ControlSettings
from mountd.settings.tokens import Tokens
from tests.support.admitted import ADMISSION, EVERYWHERE, HERE, OPERATOR, READER, Admitting, Answered, admitting

WRONG = "wrong-0123456789abcdef"
PAUSE, RESUME, STATUS = "/api/v1/pause", "/api/v1/resume", "/api/v1/status"
LOGIN, LOGOUT, SESSION, STREAM = "/api/v1/login", "/api/v1/logout", "/api/v1/session", "/api/v1/stream"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Admitting]:
    async with admitting(tmp_path) as found:
        yield found


@dataclass(frozen=True, slots=True)
class Browser:
    """What a browser sends for a page of this API once somebody has logged in there."""

    api: Admitting
    cookie: str
    proof: str

    def headers(self, **others: str | None) -> dict[str, str]:
        """`None`: without it."""
        given = {
            "Cookie": self.cookie,
            "Origin": f"http://127.0.0.1:{self.api.port}",
            "Sec_Fetch_Site": "same-origin",
            "X_Mountd_CSRF": self.proof,
            **others,
        }
        return {name: value for name, value in given.items() if value is not None}

    async def post(self, path: str, body: Mapping[str, object] | None = None, **others: str | None) -> Answered:
        data = json.dumps(body or {}).encode()
        return await self.api.ask(path, method="POST", body=data, **self.headers(**others))

    async def get(self, path: str) -> Answered:
        return await self.api.ask(path, Cookie=self.cookie)


async def try_login(api: Admitting, token: str, **headers: str) -> Answered:
    given = {"Origin": f"http://127.0.0.1:{api.port}", **headers}
    return await api.ask(LOGIN, method="POST", body=json.dumps({"token": token}).encode(), **given)


def cookie_in(answer: Answered) -> tuple[str, SimpleCookie]:
    """As it is sent back, and as it was set."""
    jar = SimpleCookie(answer.headers["Set-Cookie"])
    ((name, morsel),) = jar.items()
    return f"{name}={morsel.value}", jar


async def logged_in(api: Admitting, token: str = OPERATOR, **headers: str) -> Browser:
    answer = await try_login(api, token, **headers)
    assert answer.status == 200, answer.text
    return Browser(api, cookie_in(answer)[0], answer.json["csrf"])


@pytest.mark.parametrize("listen", [HERE, EVERYWHERE])
async def test_an_operator_who_logged_in_may_write_and_is_named(api: Admitting, listen: str) -> None:
    await api.listen(listen=listen)
    browser = await logged_in(api)
    assert (await browser.post(PAUSE, {"reason": "night"})).status == 200
    assert api.hub.model.committed.suspended == "token ci: night"
    assert (await browser.get(STATUS)).status == 200
    said = (await browser.get(SESSION)).json
    assert (said["name"], said["role"], said["login"]) == ("ci", "operator", True)
    assert browser.proof not in json.dumps(said)


@pytest.mark.parametrize("listen", [HERE, EVERYWHERE])
async def test_a_reader_who_logged_in_reads_and_changes_nothing(api: Admitting, listen: str) -> None:
    await api.listen(listen=listen)
    browser = await logged_in(api, READER)
    assert (await browser.get(STATUS)).status == 200
    assert (await browser.post(PAUSE)).status == 403
    assert api.hub.model.committed.suspended is None


@pytest.mark.parametrize(
    "others",
    [
        {"X_Mountd_CSRF": None},
        {"X_Mountd_CSRF": "guessed"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": None, "Sec_Fetch_Site": None},
        {"Origin": "http://127.0.0.1:7860"},
    ],
)
@pytest.mark.parametrize("listen", [HERE, EVERYWHERE])
async def test_a_page_of_another_site_changes_nothing(
    api: Admitting, listen: str, others: dict[str, str | None]
) -> None:
    """The app of the same host among them, which gets the cookie as well."""
    await api.listen(listen=listen)
    browser = await logged_in(api)
    assert (await browser.post(PAUSE, None, **others)).status == 403
    assert (await browser.post("/api/v1/nothing", None, **others)).status == 403
    assert api.hub.model.committed.suspended is None
    assert (await browser.post(LOGOUT, None, **others)).status == 403
    assert (await browser.post(PAUSE)).status == 200, "it is still logged in"


async def test_the_proof_of_another_session_is_none(api: Admitting) -> None:
    await api.listen()
    one, other = await logged_in(api), await logged_in(api)
    assert (await one.post(PAUSE, X_Mountd_CSRF=other.proof)).status == 403
    assert api.hub.model.committed.suspended is None


async def test_a_token_in_the_header_needs_no_proof_and_counts_alone(api: Admitting) -> None:
    await api.listen()
    browser = await logged_in(api)
    assert (await api.post(PAUSE, OPERATOR)).status == 200
    answer = await browser.post(RESUME, Authorization=f"Bearer {READER}")
    assert answer.status == 403, "whatever cookie comes along"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 400),
    ],
)
async def test_nobody_is_made_to_log_in_by_another_site(api: Admitting, headers: dict[str, str], status: int) -> None:
    """The last one is that of DNS rebinding."""
    await api.listen()
    answer = await try_login(api, OPERATOR, **headers)
    assert answer.status == status
    assert "Set-Cookie" not in answer.headers


async def test_a_strange_host_reaches_no_page_no_stream_and_no_session(api: Admitting) -> None:
    await api.listen()
    browser = await logged_in(api)
    for path in ("/", "/dashboard/app.js", SESSION, STREAM, STATUS):
        answer = await api.ask(path, Cookie=browser.cookie, Host="evil.example:8780")
        assert answer.status == 400, path
    answer = await browser.post(PAUSE, Host="evil.example", Origin="http://evil.example")
    assert answer.status == 400
    assert api.hub.model.committed.suspended is None


async def test_wrong_tokens_of_logins_count_as_all_others(api: Admitting) -> None:
    await api.listen(listen=EVERYWHERE)
    for number in range(AT_ONCE):
        if number % 2:
            assert (await api.ask(STATUS, WRONG)).status == 401
        else:
            assert (await try_login(api, WRONG)).status == 401
    for token in (WRONG, OPERATOR):
        answer = await try_login(api, token)
        assert (answer.status, "Retry-After" in answer.headers) == (429, True)
    assert (await api.ask(STATUS, OPERATOR)).status == 429


async def test_cookies_are_for_the_browser_alone(api: Admitting) -> None:
    await api.listen()
    _, jar = cookie_in(await try_login(api, OPERATOR))
    ((name, morsel),) = jar.items()
    assert name == f"mountd-{api.port}"
    assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "Strict", "/")
    assert (morsel["domain"], morsel["expires"], morsel["max-age"], morsel["secure"]) == ("", "", "", "")
    assert len(morsel.value) >= 40


async def test_behind_tls_a_browser_sends_the_cookie_over_tls_only(api: Admitting) -> None:
    await api.listen(behind_proxy=True)
    proxied = {"X_Forwarded_Proto": "https", "Host": "hub.example", "Origin": "https://hub.example"}
    answer = await try_login(api, OPERATOR, **proxied)
    cookie, jar = cookie_in(answer)
    ((name, morsel),) = jar.items()
    assert (name, morsel["secure"]) == ("__Host-mountd", True)
    browser = Browser(api, cookie, answer.json["csrf"])
    assert (await browser.post(PAUSE, None, **proxied)).status == 200
    assert (await browser.post(PAUSE)).status == 401, "without TLS it has another name"


async def test_what_somebody_else_has_set_never_becomes_a_session(api: Admitting) -> None:
    await api.listen(listen=EVERYWHERE)
    planted = f"mountd-{api.port}=planted-by-somebody-else-0123456789"
    browser = await logged_in(api, Cookie=planted)
    assert browser.cookie != planted
    assert (await api.ask(STATUS, Cookie=planted)).status == 401
    again = await logged_in(api, Cookie=browser.cookie)
    assert again.cookie != browser.cookie
    assert (await browser.get(STATUS)).status == 401, "a new login ends the session before"


async def test_a_session_ends_with_its_token_at_once(api: Admitting) -> None:
    http = await api.listen(listen=EVERYWHERE)
    operator, reader = await logged_in(api), await logged_in(api, READER)
    api.server.admit(http, Admission(tokens.parse(f"reader ann {READER}\n")))
    assert (await operator.post(PAUSE)).status == 401
    assert (await operator.get(STATUS)).status == 401
    assert (await reader.get(STATUS)).status == 200
    api.server.admit(http, Admission(Tokens(is_configured=True)))  # the file cannot be used
    assert (await reader.get(STATUS)).status == 401
    api.server.admit(http, ADMISSION)
    assert (await operator.post(PAUSE)).status == 401
    assert api.hub.model.committed.suspended is None


@pytest.mark.parametrize("by_cookie", [True, False])
@pytest.mark.parametrize("path", [STREAM, "/api/v1/events?follow=1", "/api/v1/logs?follow=1"])
async def test_a_stream_ends_with_the_token_that_opened_it(api: Admitting, path: str, by_cookie: bool) -> None:
    http = await api.listen(listen=EVERYWHERE)
    browser = await logged_in(api)
    proof = f"Cookie: {browser.cookie}" if by_cookie else f"Authorization: Bearer {OPERATOR}"
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost:{api.port}\r\n{proof}\r\n\r\n".encode())
    assert (await reader.readline()).split()[1] == b"200"
    api.server.admit(http, Admission(tokens.parse(f"reader ann {READER}\n")))
    async with asyncio.timeout(30.0):
        while not (await reader.readline()).startswith(b"0\r\n"):  # the last chunk
            pass
    writer.close()


async def test_logging_out_ends_the_session(api: Admitting) -> None:
    await api.listen(listen=EVERYWHERE)
    browser, other = await logged_in(api, READER), await logged_in(api, READER)
    answer = await browser.post(LOGOUT)
    assert answer.status == 200
    assert "mountd-" in answer.headers["Set-Cookie"]
    assert (await browser.get(STATUS)).status == 401
    assert (await other.get(STATUS)).status == 200
    assert (await api.post(LOGOUT)).status == 401, "nobody is logged in"


async def test_a_session_survives_the_move_to_another_address(api: Admitting) -> None:
    await api.listen()
    browser = await logged_in(api)
    await api.listen()
    moved = Browser(api, f"mountd-{api.port}={browser.cookie.partition('=')[2]}", browser.proof)
    assert (await moved.post(PAUSE)).status == 200


@pytest.mark.parametrize("listen", [HERE, EVERYWHERE])
async def test_without_tokens_nobody_logs_in(api: Admitting, listen: str) -> None:
    await api.listen(NOBODY, listen=listen)
    for token in ("", OPERATOR):
        assert (await try_login(api, token)).status == 403
    assert (await api.ask(SESSION)).status == (200 if listen == HERE else 403)
    if listen == HERE:
        assert (await api.ask(SESSION)).json["login"] is False


async def test_the_control_socket_accepts_no_login() -> None:
    with tempfile.TemporaryDirectory(prefix="mountd-t-") as root:  # tmp_path would not fit into a socket's address
        async with admitting(Path(root)) as found:
            path = Path(root) / "s"
            await found.server.listen_unix(ControlSettings(socket=path))
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
                async with session.get(f"http://localhost{SESSION}") as answer:
                    assert (answer.status, (await answer.json())["name"]) == (200, None)
                same = {"Origin": "http://localhost"}
                async with session.post(f"http://localhost{LOGIN}", json={"token": OPERATOR}, headers=same) as answer:
                    assert (answer.status, answer.headers.get("Set-Cookie")) == (401, None)


@pytest.mark.parametrize("body", [b"", b"[", b"{}", b'{"token": 1}', b'{"token": "", "x": ""}', b'"\xff"'])
async def test_a_login_that_says_nothing_useful_is_refused(api: Admitting, body: bytes) -> None:
    await api.listen()
    answer = await api.ask(LOGIN, method="POST", body=body, Origin=f"http://127.0.0.1:{api.port}")
    assert answer.status in (400, 401)
    assert "Set-Cookie" not in answer.headers


async def test_a_login_that_is_too_large_is_not_read(api: Admitting) -> None:
    await api.listen()
    body = b'{"token": "' + b"x" * 1_000_000 + b'"}'
    answer = await api.ask(LOGIN, method="POST", body=body, Origin=f"http://127.0.0.1:{api.port}")
    assert answer.status == 413
