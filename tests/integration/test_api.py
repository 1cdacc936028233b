"""The HTTP interface, over TCP and over the control socket, as probes, Prometheus, scripts and strangers use it."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.daemon import Daemon
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

OPERATION = {
    "id", "kind", "model", "from", "to", "operator", "source", "step", "percent", "eta_s", "started",
}  # fmt: skip
HISTORY = OPERATION | {"finished", "result", "reason", "duration_s", "cause"}


class OverUnix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


class Answer:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.kind = answer.headers.get_content_type()
        self.text = answer.read().decode()

    @property
    def json(self) -> Any:
        assert self.kind == "application/json", self.text
        document = json.loads(self.text)
        assert document["schema"] == 1
        return document

    @property
    def error(self) -> dict[str, Any]:
        """The error of an error document."""
        document = self.json
        assert set(document) == {"schema", "error"}
        error: dict[str, Any] = document["error"]
        assert set(error) == {"exit", "text", "hint", "holder"}
        assert error["text"]
        return error


def ask(
    to: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    try:
        to.request(method, path, body, dict(headers or {}))
        return Answer(to.getresponse())
    finally:
        to.close()


class Asking:
    """A ready daemon, asked over TCP and over its socket."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def tcp(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return ask(
            http.client.HTTPConnection("127.0.0.1", self.daemon.http_port, timeout=30), method, path, body, headers
        )

    def unix(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return ask(OverUnix(self.daemon.socket), method, path, body, headers)

    def post(self, path: str, **body: object) -> Answer:
        return self.unix("POST", path, json.dumps(body))

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.daemon.http_port), timeout=30) as connection:
            connection.sendall(request)
            return connection.makefile("rb").readline()


@pytest.fixture
def asking(daemon: Daemon) -> Asking:
    daemon.start_ready()
    return Asking(daemon)


def metrics(asking: Asking) -> dict[tuple[str, str], float]:
    """(name, mount) → value, as Prometheus reads it."""
    answer = asking.tcp("GET", "/metrics")
    assert (answer.status, answer.kind) == (200, "text/plain")
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.documentation for family in families)
    return {(s.name, s.labels.get("mount", "")): s.value for family in families for s in family.samples}


# -- probes -----------------------------------------------------------------------------------------------------------


def test_probes_while_it_is_not_ready_and_when_it_is(make_daemon: Callable[..., Daemon], proxy: Proxy) -> None:
    daemon = make_daemon(endpoint=proxy.endpoint)
    asking = Asking(daemon)
    proxy.down()
    daemon.start()
    daemon.until_reason("waiting-for-mount")
    assert asking.tcp("GET", "/healthz").status == 200
    answer = asking.tcp("GET", "/readyz")
    assert (answer.status, answer.json["ready"]) == (503, False)
    for reason in answer.json["reasons"]:
        assert set(reason) == {"code", "text", "layer", "object", "hint"}
    assert metrics(asking)["mountd_ready", ""] == 0
    assert metrics(asking)["mountd_mount_up", "storage"] == 0

    proxy.up()
    daemon.until_ready()
    for answer in (asking.tcp("GET", "/healthz"), asking.unix("GET", "/healthz")):
        assert answer.status == 200
        assert answer.json
    answer = asking.tcp("GET", "/readyz")
    assert (answer.status, answer.json) == (200, {"schema": 1, "ready": True, "reasons": []})
    assert metrics(asking)["mountd_ready", ""] == 1
    assert metrics(asking)["mountd_mount_up", "storage"] == 1
    assert daemon.stop() == 0


# -- over TCP ---------------------------------------------------------------------------------------------------------


def test_over_tcp_reads_are_open_on_loopback_and_writes_are_refused(asking: Asking) -> None:
    assert asking.tcp("GET", "/api/v1/status").json["ready"] is True
    assert len(asking.tcp("GET", "/api/v1/versions").json["versions"]) == 2
    assert asking.tcp("GET", "/api/v1/logs?name=webui").json["logs"]
    for path in ("switch", "rollback", "restart", "nothing"):
        answer = asking.tcp("POST", f"/api/v1/{path}", '{"version": "v22"}')
        assert (answer.status, answer.error["exit"]) == (403, 2)
        assert "socket" in answer.error["hint"]
    for method in ("PUT", "DELETE", "PATCH"):
        assert asking.tcp(method, "/api/v1/status").status == 403
    assert asking.daemon.page()["version"] == "v23"
    assert asking.daemon.status()["operation"] is None


def test_over_tcp_a_strange_host_is_refused_on_every_path(asking: Asking) -> None:
    """So that a page in a browser cannot read it under a name of its own (DNS rebinding)."""
    port = asking.daemon.http_port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "[::2]", "localhost.evil", ""):
        for path in ("/api/v1/status", "/metrics", "/readyz"):
            answer = asking.tcp("GET", path, headers={"Host": host})
            assert (answer.status, answer.error["exit"]) == (400, 2), host
    for host in (
        "localhost",
        f"localhost:{port}",
        f"127.0.0.1:{port}",
        "127.0.0.1",
        "[::1]",
        f"[::1]:{port}",
        "LocalHost",
    ):
        assert asking.tcp("GET", "/readyz", headers={"Host": host}).status == 200, host
    # Old probes speak HTTP/1.0 and send none; a browser cannot be made to.
    assert asking.raw(b"GET /readyz HTTP/1.0\r\n\r\n").split()[1] == b"200"
    assert asking.raw(b"nonsense\r\n\r\n").split()[1] == b"400"


# -- requests that cannot be answered ---------------------------------------------------------------------------------


def test_what_does_not_exist_is_a_document_too(asking: Asking) -> None:
    for way in (asking.tcp, asking.unix):
        for path in ("/", "/api", "/api/v1/nothing", "/api/v2/status", "/%2e%2e/etc/passwd"):
            answer = way("GET", path)
            assert (answer.status, answer.error["exit"]) == (404, 3), path
    assert asking.unix("GET", "/api/v1/switch").error["exit"] == 2  # POST is its method
    assert asking.unix("GET", "/api/v1/switch").status == 405
    for path in ("/api/v1/logs?name=nothing", "/api/v1/operations/4711", "/api/v1/versions?model=%ff"):
        answer = asking.unix("GET", path)
        assert (answer.status, answer.error["exit"]) == (404, 3), path
    for path in (
        "/api/v1/logs?lines=many",
        "/api/v1/operations/x",
        f"/api/v1/operations/{10**20}",
        "/api/v1/status?for=lunch",
        "/api/v1/status?for=ready&wait=x",
    ):
        answer = asking.unix("GET", path)
        assert (answer.status, answer.error["exit"]) == (400, 2), path


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"version=v22", b"\xff\xfe", b"[]", b'"v22"', b"null", b"{}", b'{"version": 22}', b'{"version": ""}',
        b'{"version": "v22", "force": "yes"}', b'{"version": "v22", "forced": true}',
        b'{"version": ["v22"]}', b'{"version": "../v22"}',
        b'{"version": "latest"}', b'{"version": "v22", "model": {}}', b"[" * 50_000,
        b'{"version": "v22", "reason": "\\ud800"}',
    ],
    ids=lambda body: body[:24].decode(errors="replace"),
)  # fmt: skip
def test_a_body_that_cannot_be_understood_changes_nothing(shared: Asking, body: bytes) -> None:
    answer = shared.unix("POST", "/api/v1/switch", body)
    assert (answer.status, answer.error["exit"]) == (400, 2)
    assert shared.unix("GET", "/api/v1/status").json["operation"] is None


def test_a_body_that_is_too_large_is_refused(shared: Asking) -> None:
    answer = shared.unix("POST", "/api/v1/switch", json.dumps({"version": "v22", "reason": "x" * 100_000}))
    assert answer.status == 413
    assert answer.error["exit"] == 2
    assert shared.unix("GET", "/api/v1/status").json["operation"] is None
    assert "Traceback" not in shared.daemon.own_log_text()


@pytest.fixture(scope="module")
def shared(hub_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    """A ready daemon for all tests that change nothing."""
    root = tmp_path_factory.mktemp("shared") / "store"
    shutil.copytree(hub_directory, root)
    with (
        RcloneS3(root) as store,
        Daemon(store.endpoint, store.access_key_id, store.secret_access_key) as daemon,
    ):
        daemon.start_ready()
        yield Asking(daemon)


# -- the control socket -----------------------------------------------------------------------------------------------


def test_the_socket_is_for_its_owner_and_group_and_operations_name_the_peer(daemon: Daemon) -> None:
    hold, asking = daemon.root / "hold", Asking(daemon)
    gate = {"command": ["sh", "-c", f"while test -e '{hold}'; do sleep 0.05; done"], "timeout": "60s"}
    daemon.config["models"]["cache_hub"]["gates"] = [gate]
    daemon.start_ready()
    hold.touch()
    info = asking.daemon.socket.stat()
    assert stat.S_ISSOCK(info.st_mode)
    assert stat.S_IMODE(info.st_mode) == 0o660
    assert info.st_uid == os.geteuid()
    assert stat.S_IMODE(asking.daemon.socket.parent.stat().st_mode) == 0o755

    answer = asking.post("/api/v1/switch", version="v22", reason="to see")
    assert answer.status == 202
    begun = answer.json["operation"]
    assert set(begun) >= OPERATION
    me = pwd.getpwuid(os.geteuid()).pw_name
    # With a login behind sudo it is `alice (as root)`.
    assert begun["operator"] == me or begun["operator"].endswith(f"(as {me})")
    assert (begun["kind"], begun["model"], begun["from"], begun["to"]) == ("switch", "cache_hub", "v23", "v22")
    assert (begun["reason"], begun["source"], begun["finished"]) == ("to see", "api", None)

    busy = asking.post("/api/v1/switch", version="v23")
    assert (busy.status, busy.error["exit"]) == (409, 6)
    assert begun["operator"] in busy.error["holder"]
    assert "v22" in busy.error["holder"]
    now = asking.unix("GET", "/api/v1/status").json["operation"]
    assert set(now) == OPERATION

    hold.unlink()
    ended = finished(asking, begun["id"])
    assert set(ended) >= HISTORY
    assert (ended["result"], ended["operator"], ended["duration_s"] > 0) == ("committed", begun["operator"], True)
    again = asking.post("/api/v1/switch", version="v22")
    assert again.json["unchanged"] is True
    refused = asking.post("/api/v1/switch", version="v99")
    ended = finished(asking, refused.json["operation"]["id"])
    assert (ended["result"], ended["error"]["exit"]) == ("refused", 3)


def finished(asking: Asking, id_: int) -> dict[str, Any]:
    """The operation, once it has ended."""
    ended: dict[str, Any] = {}

    def has_ended() -> bool:
        ended.update(asking.unix("GET", f"/api/v1/operations/{id_}?wait=5").json)
        return ended["finished"] is not None

    until(has_ended, 30, "the operation to end")
    return ended


@pytest.mark.root
def test_a_member_of_the_group_may_and_is_named_others_may_not(daemon: Daemon) -> None:
    import grp

    nobody = pwd.getpwnam("nobody")
    daemon.config["control"]["group"] = grp.getgrgid(nobody.pw_gid).gr_name
    daemon.root.chmod(0o755)
    daemon.start_ready()
    info = daemon.socket.stat()
    assert (stat.S_IMODE(info.st_mode), info.st_gid) == (0o660, nobody.pw_gid)

    outsider = _switch_as(daemon, nobody.pw_uid, 54321)
    assert outsider == "PermissionError"
    member = json.loads(_switch_as(daemon, nobody.pw_uid, nobody.pw_gid))["operation"]
    assert member["operator"] == "nobody" or member["operator"].endswith("(as nobody)")
    assert daemon.cli("wait", "--for", "version=v22", "--timeout", "30s").code == 0


def _switch_as(daemon: Daemon, uid: int, gid: int) -> str:
    """What the daemon answers to another user who asks for v22; the interpreter may be out of that user's reach, so it
    is already running when it changes users."""
    code = f"""
import http.client, os, socket
os.setgroups([]); os.setresgid({gid}, {gid}, {gid}); os.setresuid({uid}, {uid}, {uid})
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
try:
    connection.sock.connect({str(daemon.socket)!r})
    connection.request("POST", "/api/v1/switch", '{{"version": "v22"}}')
    print(connection.getresponse().read().decode())
except OSError as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


# -- waiting and following --------------------------------------------------------------------------------------------


def test_status_waits_for_a_version(asking: Asking) -> None:
    began = time.monotonic()
    answer = asking.unix("GET", "/api/v1/status?wait=0.3&for=version=v22")
    assert time.monotonic() - began >= 0.3
    assert answer.json["models"]["cache_hub"]["current"] == "v23"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(asking.unix, "GET", "/api/v1/status?wait=30&for=version=v22")
        began = time.monotonic()
        assert asking.post("/api/v1/switch", version="v22").status == 202
        status = waiting.result(30).json
    assert (status["models"]["cache_hub"]["current"], status["operation"]) == ("v22", None)
    assert time.monotonic() - began < 20
    assert asking.unix("GET", "/api/v1/status?wait=30&for=ready").json["ready"] is True


@contextmanager
def following(daemon: Daemon, *words: str, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = ["env", "--default-signal=INT"]  # it is ignored when the tests run as a background job
    argv += [sys.executable, "-m", "mountd", "--socket", str(daemon.socket), "logs", "--follow", *words]
    with out.open("wb") as file:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def speak(daemon: Daemon, count: int) -> None:
    """Make the stand-in say `>> spoke N characters …`."""
    body = json.dumps({"text": "a" * count}).encode()
    urllib.request.urlopen(f"http://127.0.0.1:{daemon.web_port}/tts", body, timeout=10).read()


def test_logs_are_shown_and_followed(asking: Asking, tmp_path: Path) -> None:
    daemon = asking.daemon
    shown = daemon.cli("logs", "webui")
    assert shown.code == 0
    assert ">> model v23" in shown.out
    lines = daemon.cli("logs", "webui", "-n", "2", "-o", "json").json["logs"]
    assert [set(line) for line in lines] == [{"name", "time", "text"}] * 2
    assert "Running on local URL" in lines[-1]["text"]
    assert {line["name"] for line in asking.unix("GET", "/api/v1/logs").json["logs"]} == {"storage", "webui"}
    assert asking.unix("GET", "/api/v1/logs?lines=0").json["logs"] == []

    out, other = tmp_path / "followed", tmp_path / "other"
    with following(daemon, "webui", "-n", "1", out=out) as follower, following(daemon, "storage", out=other) as second:
        until(lambda: "Running on local URL" in out.read_text(), 10, "the last line")
        until(other.read_text, 10, "the log of rclone")
        for count in (7, 8):
            speak(daemon, count)
            until(lambda count=count: f"spoke {count} characters" in out.read_text(), 10, "the new line")  # type: ignore[misc]
        assert len(out.read_text().splitlines()) == 3
        assert "spoke" not in other.read_text()
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 130
        speak(daemon, 9)  # a follower that went away hurts nobody
        assert asking.unix("GET", "/healthz").status == 200
        assert daemon.stop() == 0
        second.wait(10)  # and one that stays does not hold up the end
    assert "Traceback" not in out.read_text() + other.read_text() + daemon.own_log_text()
