"""What a real daemon answers is what its OpenAPI document says, for every route and every way to succeed."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mountd.settings.http import HttpSettings
from tests.support.admitted import LINES, OPERATOR, READER, bearer
from tests.support.asking import Asking
from tests.support.daemon import Daemon
from tests.support.described import Described
from tests.support.proxy import Proxy
from tests.support.receiver import Receiver
from tests.support.shelf import Shelf, shelf
from tests.support.tasks import tasks_of
from tests.support.wait import until
from tests.unit.test_api_tcp import port_of

LIMIT_S = 60.0
WEBHOOK = "/api/v1/webhook/{model}"
EVENT_STREAM, JSON_LINES = "text/event-stream", "application/x-ndjson"
# The product goes on for ten seconds after the app is ready, and its drills leave a busy machine less time.
SOON_RECORDED = """
import sys
from mountd.cli.main import main
from mountd.daemon import access_recorder
from mountd.operation import drill_plan
drill_plan.MARGIN_S = drill_plan.REPAIR_S = drill_plan.RETURN_S = 20.0
access_recorder.LAZY_S, access_recorder.BEGIN_LIMIT_S = 0.5, 10.0
sys.exit(main())
"""


class Judging:
    """A daemon, each of whose answers is judged."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._asking = Asking(daemon)
        self.described = Described(json.loads(self._asking.unix("GET", "/api/v1/openapi.json").text))

    def ask(self, method: str, path: str, status: int, /, **body: object) -> Any:
        answer = self._asking.unix(method, path, json.dumps(body) if method == "POST" else None)
        assert answer.status == status, (path, answer.text)
        return self.described.judge(method, path, answer.status, answer.kind, answer.text)

    def get(self, path: str, status: int = 200) -> Any:
        return self.ask("GET", path, status)

    def post(self, route: str, status: int, /, **body: object) -> Any:
        return self.ask("POST", f"/api/v1/{route}", status, **body)

    def tcp(self, method: str, path: str, status: int, headers: dict[str, str], /, **body: object) -> None:
        answer = self._asking.tcp(method, path, json.dumps(body) if method == "POST" else None, headers)
        assert answer.status == status
        self.described.judge(method, path, answer.status, answer.kind, answer.text)

    def first_of_stream(self, path: str, media: str, prefix: str) -> None:
        """The first line with `prefix` that a stream sends, judged as an answer of its kind."""
        with socket.create_connection(("127.0.0.1", self.daemon.http_port), LIMIT_S) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
            file = connection.makefile("r", encoding="utf-8", newline="\n")
            head = [*iter(file.readline, "\r\n")]
            assert head[0].split()[1] == "200"
            assert any(line.lower().startswith(f"content-type: {media}") for line in head), head
            line = next(line for line in file if line.startswith(prefix))
        self.described.judge("GET", path, 200, media, line)

    def finished(self, begun: Any) -> dict[str, Any]:
        """The operation, once it has ended; with each answer on the way."""
        found: dict[str, Any] = {}

        def has_ended() -> bool:
            found.update(self.get(f"/api/v1/operations/{begun['operation']['id']}?wait=5&step={found.get('step', '')}"))
            return found["finished"] is not None

        until(has_ended, LIMIT_S, "the operation to end")
        self.get(f"/api/v1/history/{begun['operation']['id']}")
        return found

    def until_state(self, name: str, state: str) -> None:
        until(lambda: self.daemon.status()["apps"][name]["state"] == state, LIMIT_S, f"{name} to be {state}")


@pytest.mark.fuse
def test_every_answer_of_a_daemon_is_as_its_document_says(make_daemon: Callable[..., Daemon], proxy: Proxy) -> None:
    daemon = make_daemon(endpoint=proxy.endpoint)
    daemon.program = (sys.executable, "-c", SOON_RECORDED)
    tokens = daemon.root / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(LINES)
    daemon.config["http"]["tokens"] = {"file": str(tokens)}
    address = daemon.root / "receiver"
    with Receiver() as receiver:
        address.write_text(receiver.url)
        daemon.config["notify"] = {"ops": {"webhook": {"file": str(address)}}}
        judge_all(daemon, proxy)


def judge_all(daemon: Daemon, proxy: Proxy) -> None:
    proxy.down()
    daemon.start()
    daemon.until_reason("waiting-for-mount")
    judging = Judging(daemon)
    judging.get("/readyz", 503)
    judging.get("/api/v1/versions", 503)
    proxy.up()
    daemon.until_ready()
    until(lambda: daemon.status()["health"] == "Healthy", LIMIT_S, "all to be well")
    _read_all(judging)
    _page(judging)
    judging.post("notify", 200, target="ops")
    _switch(judging)
    _break_and_restart(judging)
    _fail(judging)
    expected = {each for each in judging.described.declared() if each[1] != WEBHOOK}
    assert expected - judging.described.seen == set()
    assert "Traceback" not in daemon.own_log_text()
    assert daemon.stop() == 0


def _read_all(judging: Judging) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        judging.get(path)
    for name in ("openapi.json", "status", "status?for=ready&wait=1", "versions", "logs", "logs?previous=true", "diff"):
        judging.get(f"/api/v1/{name}")
    for name in ("logs?name=webui&lines=5&since=1000", "history?limit=5", "events?after=0&limit=1000"):
        judging.get(f"/api/v1/{name}")
    judging.first_of_stream("/api/v1/logs?follow=1", JSON_LINES, "{")
    judging.first_of_stream("/api/v1/events?follow=true&limit=1", EVENT_STREAM, "id: ")
    profile = until(lambda: _recorded(judging), LIMIT_S, "the app's start to be recorded")
    assert profile["files"]
    judging.post("profile/forget", 200)


def _page(judging: Judging) -> None:
    for path in (
        "/",
        *(f"/dashboard/{name}" for name in ("index.html", "app.js", "style.css", "icon.svg", "zh_CN.json")),
    ):
        judging.get(path)
    for name in ("session", "traffic", "explain", "explain?lang=zh_CN"):
        judging.get(f"/api/v1/{name}")
    judging.first_of_stream("/api/v1/stream?after=0", EVENT_STREAM, "event: ")
    origin = {"Origin": f"http://127.0.0.1:{judging.daemon.http_port}"}
    judging.tcp("POST", "/api/v1/login", 200, origin, token=OPERATOR)
    judging.post("logout", 200)


def _recorded(judging: Judging) -> Any:
    answer = Asking(judging.daemon).unix("GET", "/api/v1/profile")
    return judging.get("/api/v1/profile") if answer.status == 200 else None


def _switch(judging: Judging) -> None:
    assert judging.post("switch", 200, version="v22", dry_run=True, reason=None)["plan"]["to"] == "v22"
    assert judging.finished(judging.post("switch", 202, version="v22", reason="to see"))["result"] == "committed"
    assert judging.post("switch", 200, version="v22")["unchanged"] is True
    waits = judging.post("switch", 202, version="v23", at="+1h")["operation"]
    judging.get(f"/api/v1/operations/{waits['id']}")
    judging.get("/api/v1/status")
    judging.post("cancel", 202, id=waits["id"])
    judging.post("rollback", 200, dry_run=True)
    assert judging.finished(judging.post("rollback", 202))["result"] == "committed"
    judging.finished(judging.post("warm", 202, version="v22", level="metadata"))
    judging.post("pause", 200, reason="night")
    judging.get("/api/v1/diff")
    judging.post("resume", 200, model="cache_hub")
    judging.post("reload", 200)


def _break_and_restart(judging: Judging) -> None:
    judging.post("drill", 200, kind="slow", dry_run=True)
    ended = judging.finished(judging.post("drill", 202, kind="kill", reason="a rehearsal"))
    assert (ended["result"], ended["drill"]["kind"]) == ("passed", "kill")
    judging.get("/api/v1/history")
    judging.daemon.until_ready()
    judging.post("signal", 200, name="webui", signal="WINCH")
    for changed in (202, 200):
        judging.post("stop", changed, name="webui", reason="maintenance")
    judging.until_state("webui", "stopped")
    judging.post("signal", 422, name="webui", signal="HUP")
    judging.get("/api/v1/status")
    judging.get("/readyz", 503)
    for changed in (202, 200):
        judging.post("start", changed, name="webui")
    judging.daemon.until_ready()
    judging.post("restart", 202, name="webui")


def _fail(judging: Judging) -> None:
    """Each way to fail that all routes have in common."""
    for path in ("status?for=lunch", "operations/x", "logs?lines=many", "history?limit=-1", "logs?follow=maybe"):
        judging.get(f"/api/v1/{path}", 400)
    for path in ("operations/4711", "logs?name=nothing", "versions?model=nothing"):
        judging.get(f"/api/v1/{path}", 404)
    judging.post("switch", 400)
    judging.post("switch", 400, version="v22", surprise=1)
    judging.post("switch", 404, version="v22", model="nothing")
    judging.post("switch", 413, version="v22", reason="x" * 100_000)
    judging.post("signal", 400, name="webui", signal="SIGSTOP")
    judging.tcp("POST", "/api/v1/reload", 401, {})
    judging.tcp("POST", "/api/v1/reload", 403, bearer(READER))
    judging.tcp("GET", "/api/v1/status", 401, bearer("guessed-0123456789abcdef"))
    judging.tcp("GET", "/healthz", 400, {"Host": "evil.example"})


# -- the webhook, whose repository is elsewhere -----------------------------------------------------------------------

SECRET = "It's a Secret to Everybody"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Shelf]:
    (tmp_path / "secret").write_text(SECRET)
    webhook = {"secret": {"file": str(tmp_path / "secret")}}
    git = {"url": "https://git.example.com/deploy.git", "path": "version", "webhook": webhook}
    async with shelf(tmp_path, desired={"git": git}) as found, found.running(), tasks_of(found.board) as group:
        found.source.prepares("v22")
        found.desired.begin(group)
        yield found
        found.desired.drop("hub")


async def test_the_answers_to_webhooks_are_as_the_document_says(hub: Shelf) -> None:
    server, body = hub.server(), b"{}"
    await server.listen_tcp(HttpSettings(listen="127.0.0.1:0"))
    try:
        address = f"http://127.0.0.1:{port_of(server)}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{address}/api/v1/openapi.json") as answer:
                described = Described(await answer.json())
            signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
            for headers, status in (({"X-Gitea-Signature": signature}, 202), ({"X-Gitlab-Token": "guessed"}, 401)):
                path = WEBHOOK.replace("{model}", "hub")
                async with session.post(address + path, data=body, headers=headers) as answer:
                    assert answer.status == status
                    described.judge("POST", path, answer.status, answer.content_type, await answer.text())
    finally:
        await server.close()
    assert {each for each in described.declared() if each[1] == WEBHOOK} <= described.seen
