"""Drills on a real daemon: each fault is made, found, repaired, measured and journaled, and stops with the drill."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import sys
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mountd.client.api import get
from tests.support.daemon import ANSWER_S, BUNDLED_RCLONE, Daemon
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.tls import TlsS3, make_certificate
from tests.support.wait import until, until_gone

pytestmark = pytest.mark.fuse

SOON_S = 60.0
FOR_S = 15
"""Long enough for a question each 2 s that takes 5 s more, also on a busy machine."""
# The product's limits are for a machine that does nothing else.
PATIENT = """
import sys
from mountd.cli.main import main
from mountd.operation import drill_plan
drill_plan.MARGIN_S = drill_plan.REPAIR_S = drill_plan.RETURN_S = 20.0
sys.exit(main())
"""
Made = Callable[..., Daemon]


@pytest.fixture
def quick(make_daemon: Made) -> Made:
    """Daemons that ask the bucket often."""

    def make(**changes: Any) -> Daemon:
        daemon = patient(make_daemon(**changes))
        daemon.config["mounts"]["storage"]["health"] = {"backend": "2s"}
        return daemon

    return make


def patient(daemon: Daemon) -> Daemon:
    daemon.program = (sys.executable, "-c", PATIENT)
    return daemon


def drill(daemon: Daemon, *words: str) -> dict[str, Any]:
    """The document of a drill that has passed."""
    done = daemon.cli("drill", *words, "--yes", "-o", "json")
    assert done.code == 0, done.err
    document = done.json
    assert document["schema"] == 1
    found: dict[str, Any] = document["drill"]
    assert found["passed"], found
    for key in ("detected_s", "serving_again_s", "ready_again_s"):
        assert 0 <= found[key] <= found["limits"][key]
    assert found["serving_again_s"] <= found["ready_again_s"]
    return found


def journaled(daemon: Daemon) -> list[dict[str, Any]]:
    """Operations, with what was measured."""
    with closing(sqlite3.connect(daemon.root / "state" / "mountd.db", timeout=30)) as db:
        db.row_factory = sqlite3.Row
        sql = "SELECT o.*, d.detected_s, d.serving_again_s, d.ready_again_s, d.passed FROM operations o"
        return [dict(row) for row in db.execute(f"{sql} LEFT JOIN drills d ON d.operation = o.id ORDER BY o.id")]


def begin(daemon: Daemon, *words: str) -> None:
    """Begins a drill and waits until its fault has begun."""
    done = daemon.cli("drill", *words, "--yes", "--no-wait", "-o", "json")
    assert done.code == 0, done.err
    until(lambda: (daemon.status()["operation"] or {}).get("step") == "fault", SOON_S, "the fault", every_s=0.05)


def proxies(daemon: Daemon) -> list[int]:
    return [pid for pid, line in daemon.command_lines().items() if b"throttle_proxy" in line]


def proxy_of(rclone: int) -> tuple[str, int]:
    entries = Path(f"/proc/{rclone}/environ").read_bytes().decode().split("\0")
    url = urlsplit(next(entry.partition("=")[2] for entry in entries if entry.startswith("HTTPS_PROXY=")))
    assert url.hostname is not None
    assert url.port is not None
    return url.hostname, url.port


def accepts(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=30):
            return True
    except ConnectionRefusedError:
        return False


def check_as_before(daemon: Daemon) -> None:
    until(lambda: (daemon.status()["ready"], daemon.status()["health"]) == (True, "Healthy"), SOON_S, "all to be well")
    status = daemon.status()
    assert status["operation"] is None
    assert proxies(daemon) == []
    environment = Path(f"/proc/{status['mounts']['storage']['pid']}/environ").read_bytes()
    assert b"HTTP_PROXY" not in environment


@pytest.mark.shown_by("hang")
@pytest.mark.parametrize("kind", ["kill", "hang"])
def test_rclone_breaks(kind: str, make_daemon: Made) -> None:
    daemon = patient(make_daemon())
    before = daemon.start_ready()
    found = drill(daemon, kind)
    assert (found["kind"], found["mount"]) == (kind, "storage")
    assert 0 < found["detected_s"] < found["serving_again_s"]
    assert found["rclone_restarted"]
    assert found["app_restarted"]
    after = daemon.status()
    assert after["mounts"]["storage"]["pid"] != before["mounts"]["storage"]["pid"]
    assert after["apps"]["webui"]["pid"] != before["apps"]["webui"]["pid"]
    if kind == "hang":
        assert found["detected_s"] > 2  # two liveness probes of 2 s were missed
    check_as_before(daemon)

    (operation,) = journaled(daemon)
    assert (operation["kind"], operation["model"], operation["to_version"]) == ("drill", "storage", kind)
    assert (operation["result"], operation["exit_code"], operation["passed"]) == ("passed", 0, 1)
    for key in ("detected_s", "serving_again_s", "ready_again_s"):
        assert operation[key] == found[key]
    assert operation["duration_s"] >= found["ready_again_s"]
    with urllib.request.urlopen(
        f"http://127.0.0.1:{daemon.http_port}/api/v1/operations/{found['id']}", timeout=30
    ) as answer:
        assert json.load(answer)["drill"] == found


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["slow", "offline"])
@pytest.mark.parametrize("way", ["plain", "tls"])
def test_the_bucket_breaks(kind: str, way: str, quick: Made, store: RcloneS3, tmp_path: Path) -> None:
    if way == "plain":
        check_bucket_drill(quick(), kind)
    else:
        pair = make_certificate(tmp_path, "store")
        with TlsS3(store.directory, pair) as secure:
            daemon = quick(endpoint=f"https://{secure.address}")
            daemon.config["mounts"]["storage"]["options"] = {"ca-cert": str(pair[0])}
            check_bucket_drill(daemon, kind)


def check_bucket_drill(daemon: Daemon, kind: str) -> None:
    daemon.start_ready()
    short = daemon.cli("drill", kind, "--for", "11s", "--yes")
    assert short.code == 2, "it could pass by chance only, so nothing is broken for it"
    assert journaled(daemon) == []
    found = drill(daemon, kind, "--for", f"{FOR_S}s")
    assert found["for_s"] == FOR_S
    assert 0 < found["detected_s"] < FOR_S
    if kind == "slow":
        assert found["detected_s"] > 4
    assert found["cached_reads"] is True
    assert not found["rclone_restarted"]
    assert not found["app_restarted"]
    check_as_before(daemon)
    (operation,) = journaled(daemon)
    assert (operation["to_version"], operation["result"], operation["detected_s"]) == (
        kind,
        "passed",
        found["detected_s"],
    )
    happened = get(str(daemon.socket), "/api/v1/events", timeout_s=ANSWER_S, after=0, limit=1000)["events"]
    codes = {event["code"] for event in happened if event["object"] == "store"} - {"bucket-answers"}
    assert (codes == {"bucket-slow"}) == (kind == "slow"), codes
    assert codes


@pytest.mark.thorough
@pytest.mark.slow
def test_a_fault_that_nobody_notices_is_not_passed(quick: Made) -> None:
    daemon = quick()
    daemon.program = (sys.executable, "-c", PATIENT.replace("sys.exit", "drill_plan.DELAY_S = 0.0\nsys.exit"))
    daemon.start_ready()
    done = daemon.cli("drill", "slow", "--for", "12s", "--yes", "-o", "json")
    assert done.code == 1
    measured = done.json["drill"]
    assert (measured["passed"], measured["detected_s"]) == (False, None)
    check_as_before(daemon)
    assert [(each["result"], each["passed"]) for each in journaled(daemon)] == [("failed", 0)]


def without_proxy_flag(directory: Path) -> Path:
    """An rclone that says it has no flag --http-proxy, as older ones do."""
    path = directory / "rclone"
    real = f"'{BUNDLED_RCLONE}' \"$@\""
    path.write_text(
        f"#!/bin/sh\ncase \"$*\" in *'help flags') {real} | grep -v -e --http-proxy ;; *) exec {real} ;; esac\n"
    )
    path.chmod(0o755)
    return path


@pytest.mark.thorough
def test_what_is_refused_and_how_it_is_asked(make_daemon: Made, store: RcloneS3, tmp_path: Path) -> None:
    with Proxy(store.endpoint) as proxy:
        daemon = make_daemon(rclone=without_proxy_flag(tmp_path), endpoint=proxy.endpoint)
        daemon.config["mounts"]["storage"]["health"] = {"backend": "2s"}
        before = daemon.start_ready()

        assert daemon.cli("drill", "kill").code == 2
        assert daemon.cli("drill", "flood", "--yes").code == 2
        assert daemon.cli("drill", "kill", "--yes", "--mount", "nothere").code == 3
        assert daemon.cli("drill", "kill", "--yes", "--for", "10s").code == 2
        for wrong in ("soon", "0s", "2h"):
            assert daemon.cli("drill", "slow", "--yes", "--for", wrong).code == 2, wrong

        assert daemon.cli("drill", "offline", "--yes").code == 7, "the store is on this machine"

        proxy.down()
        daemon.until_reason("bucket-unreachable")
        assert daemon.cli("drill", "kill", "--yes").code == 7, "the system is degraded"

        after = daemon.status()
        assert after["mounts"]["storage"]["pid"] == before["mounts"]["storage"]["pid"]
        assert after["apps"]["webui"]["pid"] == before["apps"]["webui"]["pid"]
        assert journaled(daemon) == []


@pytest.mark.thorough
def test_one_operation_at_a_time(quick: Made) -> None:
    daemon = quick()
    daemon.start_ready()
    begin(daemon, "offline", "--for", "20s")  # a hang may be over before both have asked
    for words in (["drill", "kill", "--yes"], ["switch", "v22"]):
        busy = daemon.cli(*words, "-o", "json")
        assert busy.code == 6, busy.err
        assert "drill offline" in busy.json["error"]["holder"]
    assert "drill" in daemon.cli("status").out
    until(lambda: daemon.status()["operation"] is None, 90, "the drill to finish")
    assert daemon.cli("switch", "v22").code == 0


@pytest.mark.thorough
@pytest.mark.parametrize("words", [("hang",), ("offline", "--for", "1m")], ids=["hang", "offline"])
def test_mountd_ends_during_a_drill(words: tuple[str, ...], daemon: Daemon) -> None:
    daemon.start_ready()
    begin(daemon, *words)
    assert daemon.stop() == 0
    assert daemon.processes() == []
    assert daemon.mounts() == []
    (operation,) = journaled(daemon)
    assert (operation["result"], operation["detected_s"]) == ("interrupted", None)
    daemon.start_ready()
    check_as_before(daemon)


@pytest.mark.thorough
def test_mountd_is_killed_during_a_drill(daemon: Daemon) -> None:
    before = daemon.start_ready()
    begin(daemon, "offline", "--for", "1m")
    (proxy,) = proxies(daemon)
    rclone = daemon.status()["mounts"]["storage"]["pid"]
    address = proxy_of(rclone)
    until(lambda: not accepts(address), SOON_S, "the fault to be there")
    assert daemon.process is not None
    # Both at once, stopped first, so that neither can end what the other has left.
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in (daemon.process.pid, before["pid"]):
            os.kill(pid, number)
    daemon.wait_exit()
    until_gone(before["pid"])

    # The fault is gone with its owner. An rclone that cannot log any more may end by itself, and the proxy with it.
    until(lambda: accepts(address) or proxy not in daemon.processes(), SOON_S, "the way to be free")

    daemon.start_ready()
    assert proxy not in daemon.processes()
    assert rclone not in daemon.processes()
    assert len(daemon.mounts()) == 1
    check_as_before(daemon)
    (operation,) = journaled(daemon)
    assert operation["result"] == "interrupted"
