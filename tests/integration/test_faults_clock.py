"""The wall clock jumps an hour forth and back: nothing restarts, and every timer goes on as before."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.explained import explanation
from tests.support.proxy import Proxy
from tests.support.wait import until
from tests.support.wall_clock import HOUR_S, Clock, library

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

FOUND_S = 60.0
"""A hung rclone is replaced within 8 s where nothing else runs; by the wall clock it would be an hour, or at once."""


@pytest.fixture
def clock(make_daemon: Callable[..., Daemon], proxy: Proxy) -> Clock:
    if not (found := library()):
        pytest.skip("no libfaketime: sudo apt-get install faketime")
    daemon = make_daemon(endpoint=proxy.endpoint)
    daemon.config["mounts"]["storage"]["health"] = {"backend": "2s"}
    return Clock(daemon, found)


def pids(status: dict[str, Any]) -> dict[str, int]:
    named = {**status["mounts"], **status["apps"]}
    return {"mountd": status["pid"], **{name: thing["pid"] for name, thing in named.items()}}


def restarts_of(clock: Clock) -> int:
    found: int = clock.daemon.status()["mounts"]["storage"]["restarts"]
    return found


def goes_on(proxy: Proxy) -> None:
    """Returns when the bucket was asked some more times: timers run."""
    before = proxy.counts.requests.total()
    until(lambda: proxy.counts.requests.total() >= before + 3, 60, "the bucket to be asked as before")


JUMPS = pytest.mark.parametrize(
    "offset_s", [pytest.param(HOUR_S, id="forth"), pytest.param(-HOUR_S, id="back", marks=pytest.mark.long)]
)


@pytest.mark.thorough
def test_only_mountd_has_the_clock(clock: Clock) -> None:
    status = clock.daemon.start_ready()
    loaded = {
        pid: "libfaketime" in Path(f"/proc/{pid}/maps").read_text()
        for pid in {*clock.daemon.processes(), *pids(status).values()}
    }
    assert [pid for pid, has in loaded.items() if has] == [status["pid"]]


def test_nothing_restarts_and_nothing_is_late(clock: Clock, proxy: Proxy) -> None:
    before = clock.daemon.start_ready()
    assert clock.shows(before["mounts"]["storage"]["since"])
    for offset_s in (HOUR_S, -HOUR_S):
        began = time.monotonic()
        clock.jump(offset_s)
        goes_on(proxy)
        status = clock.daemon.status()
        assert pids(status) == pids(before)
        assert (status["ready"], status["health"], status["reasons"]) == (True, "Healthy", [])
        assert explanation(clock.daemon)["root"] is None
        assert abs(status["uptime_s"] - before["uptime_s"]) < HOUR_S / 2, "it is no matter of the wall clock"
        assert time.monotonic() - began < 60
    assert [thing["restarts"] for thing in (status["mounts"]["storage"], status["apps"]["webui"])] == [0, 0]
    clock.jump(HOUR_S)
    began = time.monotonic()
    assert clock.daemon.stop() == 0
    assert time.monotonic() - began < 60
    assert clock.daemon.processes() == []


@pytest.mark.thorough
@JUMPS
def test_a_hung_rclone_is_found_as_fast_after_a_jump(clock: Clock, offset_s: int) -> None:
    clock.daemon.start_ready()
    for restarts, jump_s in enumerate((offset_s, 0), start=1):
        status = clock.daemon.until_ready()
        clock.jump(jump_s)
        os.kill(status["mounts"]["storage"]["pid"], signal.SIGSTOP)
        began = time.monotonic()
        until(lambda: restarts_of(clock) == restarts, FOUND_S, "a new rclone", every_s=0.2)  # noqa: B023
        assert 1 < time.monotonic() - began < FOUND_S
        after = clock.daemon.until_ready()
        assert clock.shows(after["mounts"]["storage"]["since"])


@pytest.mark.thorough
@JUMPS
def test_who_waits_meanwhile_waits_as_long_as_he_asked_for(clock: Clock, offset_s: int) -> None:
    clock.daemon.start_ready()
    asked = [sys.executable, "-m", "mountd", "--socket", str(clock.daemon.socket), "wait", "--timeout", "3s"]
    began = time.monotonic()
    with subprocess.Popen([*asked, "--for", "version=v99"], stderr=subprocess.PIPE) as waiting:
        clock.jump(offset_s)
        assert clock.daemon.cli("wait", "--for", "ready", "--timeout", "60s").code == 0
        assert waiting.wait(60) == 4
    assert 3.0 <= time.monotonic() - began < 60


@pytest.mark.thorough
@JUMPS
def test_grace_and_backoff_last_as_long_as_ever(clock: Clock, offset_s: int) -> None:
    daemon, times = clock.daemon, {"initial": "5s", "max": "5s"}
    deaf = "trap '' TERM; while :; do sleep 0.1; done"
    daemon.config["apps"] = {
        "deaf": {"command": ["/bin/sh", "-c", deaf], "stop": {"signal": "SIGTERM", "grace": "5s"}},
        "broken": {"command": ["false"], "restart": {"backoff": times, "limit": "50 in 10m"}},
    }

    def changes(app: str, state: str) -> int:
        return sum((event.get("app"), event["state"]) == (app, state) for event in daemon.events("state changed"))

    daemon.start()
    until(lambda: changes("broken", "backoff") and changes("deaf", "running"), 60, "both apps to have started")
    seen = changes("broken", "backoff")
    until(lambda: changes("broken", "backoff") > seen, 60, "a backoff that has just begun")
    clock.jump(offset_s)
    began, starts = time.monotonic(), changes("broken", "starting")
    until(lambda: changes("broken", "starting") > starts, 60, "the end of the backoff")
    assert 1 < time.monotonic() - began < 30

    clock.jump(0)
    asked = [sys.executable, "-m", "mountd", "--socket", str(daemon.socket), "restart", "deaf"]
    with subprocess.Popen(asked, stderr=subprocess.PIPE) as restarting:
        until(lambda: changes("deaf", "stopping"), 60, "its stop signal")
        clock.jump(offset_s)
        began = time.monotonic()
        assert restarting.wait(60) == 0
    assert 1 < time.monotonic() - began < 60


@pytest.mark.thorough
@JUMPS
def test_a_switch_across_a_jump(clock: Clock, offset_s: int) -> None:
    clock.daemon.config["apps"]["webui"]["command"] += ["--load-seconds", "2"]
    clock.daemon.start_ready()
    asked = [sys.executable, "-m", "mountd", "--socket", str(clock.daemon.socket), "switch", "v22"]
    with subprocess.Popen(asked, stderr=subprocess.PIPE) as switching:
        until(lambda: (clock.daemon.status()["operation"] or {}).get("step") == "ready", 60, "the app to start")
        clock.jump(offset_s)
        assert switching.wait(60) == 0
    status = clock.daemon.until_ready()
    assert status["models"]["cache_hub"]["current"] == "v22"
    with closing(sqlite3.connect(clock.daemon.root / "state" / "mountd.db", timeout=30)) as journal:
        rows = journal.execute("SELECT finished, duration_s FROM operations WHERE result = 'committed'").fetchall()
    finished, duration_s = rows[-1]
    assert clock.shows(finished)
    assert 2 <= duration_s < 60, "not by the wall clock"
