"""The HTTP interface as probes, Prometheus, scripts and strangers use it: what it answers and what it refuses."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.asking import Asking
from tests.support.daemon import Daemon
from tests.support.explained import until_explained
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse


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
    explained = until_explained(daemon, "bucket-unreachable")
    assert daemon.cli("explain").code == 1
    chinese = asking.unix("GET", "/api/v1/explain?lang=zh_CN").json
    assert chinese["root"]["code"] == "bucket-unreachable"
    assert "无法连接" in chinese["root"]["text"]
    assert asking.unix("GET", "/api/v1/explain?lang=tlh").json["root"]["text"] == explained["root"]["text"]
    chain = [each["code"] for each in explained["chain"]]
    assert chain == ["not-ready", "waiting-for-mount", "mount-starting", "bucket-unreachable"]
    # The control socket, which that asks, is open a moment before the port.
    until(lambda: asking.tcp("GET", "/healthz").status == 200, 60.0, "the port to answer")
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
    assert daemon.cli("explain").code == 0
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
        for path in (
            "/nothing",
            "/dashboard/nothing",
            "/api",
            "/api/v1/nothing",
            "/api/v2/status",
            "/%2e%2e/etc/passwd",
        ):
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
        b'{"version": "v22", "reason": "\\ud800"}', b'{"version": "v22", "\\ud800": 1}', b'{"version": NaN}',
        b'{"version": "v21", "version": "v22"}', b'{"version": ' + b"9" * 5000 + b"}", b'{"version": 1e999}',
        b'{"' + b"k" * 50_000 + b'": 1}', '{"version": "v22 "}'.encode("utf-16"), b'{"version": "v22\\u0000"}',
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


BODY = b'{"version": "../v22"}'
BOMB = gzip.compress(b'{"version": "v22", "reason": "' + b"x" * 50_000_000 + b'"}')


CODED = [
    *((coding, BODY) for coding in ("gzip", "deflate", "br", "zstd", "gzip, gzip", "nonsense", "x" * 4000)),
    *((coding, b"") for coding in ("gzip", "deflate", "br", "zstd")),
    ("gzip", gzip.compress(BODY)[:-9]),
    ("gzip", gzip.compress(BODY) + b"more"),
    ("deflate", gzip.compress(BODY)),
    ("gzip", BOMB),
]


def test_a_body_that_is_not_coded_as_it_says(shared: Asking) -> None:
    for coding, body in CODED:
        for way, status in ((shared.unix, (400, 413)), (shared.tcp, (400, 403))):
            answer = way("POST", "/api/v1/switch", body, {"Content-Encoding": coding})
            assert answer.status in status, (coding[:20], body[:20], answer.text)
            if coding not in ("br", "zstd"):  # those aiohttp refuses before anything of ours is asked
                assert answer.error["exit"] == 2
    assert "request failed" not in shared.daemon.own_log_text()


def test_a_body_that_is_coded_as_it_says_is_read(shared: Asking) -> None:
    answer = shared.unix("POST", "/api/v1/switch", gzip.compress(b'{"version": "v23"}'), {"Content-Encoding": "gzip"})
    assert answer.json["unchanged"] is True


HOST = b" HTTP/1.1\r\nHost: 127.0.0.1\r\n"
PIECES = HOST + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
GARBAGE = [
    b"GARBAGE\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /healthz" + HOST + b"Content-Length: abc\r\n\r\n",
    b"GET /" + b"a" * 70_000 + HOST + b"\r\n",
    b"GET /healthz" + HOST + b" bad: x\r\n\r\n",
    b"GET /healthz" + HOST + b"X: \x00\x1b[31m\r\n\r\n",
    b"GET /\xff\xfe" + HOST + b"\r\n",
    b"GET http://[::1" + HOST + b"\r\n",
    b"CONNECT x:1" + HOST + b"\r\n",
    b"BREW /healthz" + HOST + b"\r\n",
    b"OPTIONS *" + HOST + b"\r\n",
    b"GET /healthz" + HOST + b"Expect: nonsense\r\n\r\n",
    b"GET /healthz" + HOST + b"Upgrade: h2c\r\nConnection: upgrade\r\n\r\nxx",
    b"POST /api/v1/switch" + PIECES + b"zz\r\nxx",
    b"POST /api/v1/switch" + PIECES + b"3\r\n{}}}}}}\r\n",
    b"POST /api/v1/switch" + PIECES + b"-5\r\n",
    b"GET /api/v1/status?for=ready&wait=nan" + HOST + b"\r\n",
    b"GET /api/v1/status?for=ready&wait=1e999" + HOST + b"\r\n",
    b"GET /api/v1/logs?lines=" + b"9" * 6000 + HOST + b"\r\n",
    b"GET /api/v1/versions?model=%ed%a0%80%00" + HOST + b"\r\n",
    b"GET /api/v1/events?after=-1&limit=%00" + HOST + b"Last-Event-ID: \xb2\r\n\r\n",
    b"GET /api/v1/history/%C2%B2" + HOST + b"\r\n",
]
"""What scanners, browsers, TLS clients and mistaken scripts send."""


def test_garbage_is_answered_and_its_reports_are_few_and_in_the_format_of_the_log(shared: Asking) -> None:
    before = len(shared.daemon.log_text())
    for _ in range(20):
        for request in GARBAGE:
            for family, address in (
                (socket.AF_INET, ("127.0.0.1", shared.daemon.http_port)),
                (socket.AF_UNIX, str(shared.daemon.socket)),
            ):
                with socket.socket(family) as connection, contextlib.suppress(ConnectionError):
                    connection.settimeout(30)
                    connection.connect(address)
                    connection.sendall(request)
                    connection.shutdown(socket.SHUT_WR)
                    first = connection.recv(100)
                    assert not first.startswith(b"HTTP/1.1 5"), (request[:80], first)
    assert shared.tcp("GET", "/healthz").status == 200
    said = shared.daemon.log_text()[before:]
    assert len(said) < 100_000
    for line in said.splitlines():
        assert line.startswith("{"), line[:200]
        assert isinstance(json.loads(line), dict)
    assert "request failed" not in said
    assert "Traceback" not in said


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
