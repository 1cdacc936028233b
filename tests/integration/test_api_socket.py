"""The HTTP interface over the control socket: who may change things, and requests that wait or follow."""

from __future__ import annotations

import json
import os
import pwd
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.asking import Asking
from tests.support.daemon import Daemon
from tests.support.wait import until

pytestmark = pytest.mark.fuse

OPERATION = {
    "id", "kind", "model", "from", "to", "operator", "source", "step", "percent", "eta_s", "bytes_per_s",
    "started",
}  # fmt: skip
HISTORY = OPERATION | {"finished", "result", "reason", "duration_s", "cause"}


@pytest.fixture
def asking(daemon: Daemon) -> Asking:
    daemon.start_ready()
    return Asking(daemon)


# -- who may, and what is said of it ----------------------------------------------------------------------------------


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

    until(has_ended, 60, "the operation to end")
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
    assert daemon.cli("wait", "--for", "version=v22", "--timeout", "60s").code == 0


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


@pytest.mark.thorough
def test_status_waits_for_a_version(asking: Asking) -> None:
    began = time.monotonic()
    answer = asking.unix("GET", "/api/v1/status?wait=0.3&for=version=v22")
    assert time.monotonic() - began >= 0.3
    assert answer.json["models"]["cache_hub"]["current"] == "v23"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(asking.unix, "GET", "/api/v1/status?wait=60&for=version=v22")
        began = time.monotonic()
        assert asking.post("/api/v1/switch", version="v22").status == 202
        status = waiting.result(60).json
    assert (status["models"]["cache_hub"]["current"], status["operation"]) == ("v22", None)
    assert time.monotonic() - began < 50, "before its wait was over"
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


def says(log: Path, text: str) -> bool:
    return text in log.read_text()


def speak(daemon: Daemon, count: int) -> None:
    """Make the stand-in say `>> spoke N characters …`."""
    body = json.dumps({"text": "a" * count}).encode()
    urllib.request.urlopen(f"http://127.0.0.1:{daemon.web_port}/tts", body, timeout=60).read()


@pytest.mark.thorough
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
        until(lambda: "Running on local URL" in out.read_text(), 60, "the last line")
        until(other.read_text, 60, "the log of rclone")
        for count in (7, 8):
            speak(daemon, count)
            until(partial(says, out, f"spoke {count} characters"), 60, "the new line")
        assert len(out.read_text().splitlines()) == 3
        assert "spoke" not in other.read_text()
        follower.send_signal(signal.SIGINT)
        assert follower.wait(60) == 130
        speak(daemon, 9)  # a follower that went away hurts nobody
        assert asking.unix("GET", "/healthz").status == 200
        assert daemon.stop() == 0
        second.wait(60)  # and one that stays does not hold up the end
    assert "Traceback" not in out.read_text() + other.read_text() + daemon.own_log_text()
