"""Gates against real programs and real HTTP: what passes, what fails with which words, and that none overstays."""

import asyncio
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mountd.app import ready
from mountd.errors import GateFailed
from mountd.operation import gates
from mountd.process.child import User
from mountd.settings.gates import GateSettings
from tests.support.tls import make_certificate
from tests.support.wait import until

ENVIRONMENT = {"PATH": os.environ["PATH"], "A": "of the app"}


async def ask(user: User | None = None, directory: str = "/", **gate: Any) -> None:
    await gates.check(
        GateSettings(**gate),
        number=2,
        model="hub",
        version="v23",
        environment=ENVIRONMENT,
        directory=directory,
        user=user,
    )


async def failure(**gate: Any) -> GateFailed:
    with pytest.raises(GateFailed) as caught:
        await ask(**gate)
    assert "gate 2" in caught.value.text
    return caught.value


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


# commands -------------------------------------------------------------------------------------------------------------


async def test_a_command_knows_the_version_and_runs_as_the_app_does(tmp_path: Path) -> None:
    code = "import os; e = os.environ; open('seen', 'w').write(f\"{e['MOUNTD_MODEL']} {e['MOUNTD_VERSION']} {e['A']}\")"
    await ask(command=python(code), directory=str(tmp_path))
    assert (tmp_path / "seen").read_text() == "hub v23 of the app"


@pytest.mark.root
async def test_a_command_runs_as_the_apps_user() -> None:
    nobody = User("nobody", 65534, 65534, (), "/nonexistent")
    await ask(nobody, command=["/bin/sh", "-c", 'test "$(id -u)" = 65534'])


@pytest.mark.parametrize(
    ("command", "text", "code"),
    [
        (["sh", "-c", "echo one; echo two >&2; echo; exit 3"], "3: two", "gate-failed"),
        (["false"], "1", "gate-failed"),
        (["sh", "-c", "kill -SEGV $$"], "SIGSEGV", "gate-failed"),
        (["sh", "-c", r"printf '\033[2J'; exit 1"], "1: \N{REPLACEMENT CHARACTER}[2J", "gate-failed"),
        (["no-such-program"], "no-such-program", "gate-unanswered"),
    ],
    ids=str,
)
async def test_a_command_that_fails(command: list[str], text: str, code: str) -> None:
    failed = await failure(command=command)
    assert failed.text.endswith(text)
    assert (failed.code, failed.retryable) == (code, False)


async def test_a_command_that_does_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    script = "echo $$ > pid; trap '' TERM; sleep 60 & echo $! > child; echo loading; wait"
    failed = asyncio.create_task(failure(command=["sh", "-c", script], timeout=3.0, directory=str(tmp_path)))
    assert (await failed).text.endswith(": loading"), "what it said last"
    assert time.monotonic() - began < 30
    for name in ("pid", "child"):
        pid = (tmp_path / name).read_text().strip()
        until(partial(gone, pid), 60, f"the end of {name} {pid}")


def gone(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


# HTTP -----------------------------------------------------------------------------------------------------------------


class Server:
    """One address whose answers a test sets: path → status, body; counts what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[web.BaseRequest] = []
        self.url = ""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request)
        if request.path == "/silent":
            await asyncio.sleep(60)
        if request.path == "/endless":
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b"x" * 65536)
        if request.path == "/moved":
            raise web.HTTPFound("/bad")
        status, body = self.answers[request.path]
        return web.Response(status=status, body=body)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    runner = web.ServerRunner(web.Server(made.answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def test_http(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.answers = {"/good": (200, b"x"), "/bad": (503, b"loading")}
    await ask(http=f"{server.url}/good")
    await ask(http=f"{server.url}/moved")  # below 400, and where it points to is not asked
    await ask(http=f"{server.url}/endless", timeout=5.0)
    failed = await failure(http=f"{server.url}/bad")
    assert f"{server.url}/bad" in failed.text
    assert "503" in failed.text
    assert (failed.code, failed.retryable) == ("gate-failed", False)
    assert (await failure(http=f"{server.url}/silent", timeout=2.0)).code == "gate-failed"
    assert len(server.asked) == 5


async def test_http_that_is_no_answer(server: Server, tmp_path: Path) -> None:
    assert (await failure(http="http://127.0.0.1:1/")).code == "gate-failed"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificate(tmp_path, "stranger"))
    unknown = await failure(http="http://no-such-host.invalid/")
    assert (unknown.code, unknown.retryable) == ("gate-unanswered", True), "no fault of a version"

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    for scheme, tls, code in (("http", None, "gate-failed"), ("https", context, "gate-unanswered")):
        async with await asyncio.start_server(close, "127.0.0.1", 0, ssl=tls) as listening:
            port = listening.sockets[0].getsockname()[1]
            failed = await failure(http=f"{scheme}://127.0.0.1:{port}/")
            assert failed.code == code


async def test_an_authority_that_came_after_the_start_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path, "authority")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    page = web.Application()
    page.router.add_get("/", _answer)
    runner = web.AppRunner(page)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}/"
        for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            monkeypatch.setenv(variable, str(tmp_path / "none"))
        assert (await failure(http=url)).code == "gate-unanswered"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        await ask(http=url)
        assert await ready._http(url) == ""
    finally:
        await runner.cleanup()


async def _answer(_: web.Request) -> web.Response:
    return web.Response()


# Prometheus -----------------------------------------------------------------------------------------------------------

QUERY = 'histogram_quantile(0.99, sum by (le) (rate(x{a="b+c & d"}[1m])))'


async def measured(server: Server, body: bytes, status: int = 200, max_: float = 3.0) -> GateFailed | None:
    server.answers = {"/prom/api/v1/query": (status, body)}
    try:
        await ask(prometheus=f"{server.url}/prom/", query=QUERY, max=max_)
    except GateFailed as error:
        return error
    return None


def vector(*values: str) -> bytes:
    samples = ",".join(f'{{"metric":{{}},"value":[1700000000.1,"{value}"]}}' for value in values)
    return f'{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}'.encode()


async def test_prometheus_passes_up_to_the_limit(server: Server) -> None:
    for value in ("2.5", "3"):
        assert await measured(server, vector(value)) is None
    assert server.asked[0].query == {"query": QUERY}
    over = await measured(server, vector("3.001"))
    assert over
    assert QUERY in over.text
    assert "3.001" in over.text
    assert (over.code, over.retryable) == ("gate-failed", False)
    infinite = await measured(server, vector("+Inf"))
    assert infinite
    assert infinite.code == "gate-failed"


@pytest.mark.parametrize(
    ("body", "status", "text", "retryable"),
    [
        (vector(), 200, "no sample", False),
        (vector("1", "2"), 200, "2 samples", False),
        (vector("NaN"), 200, "NaN", False),
        (b'{"status":"error","errorType":"bad_data","error":"1:5: parse"}', 400, "1:5: parse (HTTP 400)", False),
        (b"Service Unavailable", 503, "no Prometheus (HTTP 503)", True),
        (b" " * (2 << 20), 200, "over 1 MiB", False),
    ],
    ids=["empty", "two", "NaN", "bad query", "503", "too much"],
)  # fmt: skip
async def test_prometheus_without_a_figure(
    server: Server, body: bytes, status: int, text: str, retryable: bool
) -> None:
    failed = await measured(server, body, status)
    assert failed
    assert text in failed.text
    assert (failed.code, failed.retryable) == ("gate-unanswered", retryable)


async def test_a_prometheus_that_is_away_can_be_asked_again() -> None:
    failed = await failure(prometheus="http://127.0.0.1:1", query="up", max=1)
    assert "http://127.0.0.1:1" in failed.text
    assert (failed.code, failed.retryable) == ("gate-unanswered", True)
