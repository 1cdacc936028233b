"""The app's faults: however it ends it comes back, however deaf it is it ends, and nothing that it detached is left."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mountd.process import orphans, ports
from tests.support.apps import DEAF, DETACHED, DETACHED_COUNT, GRACE_S, STEADY, Apps, living
from tests.support.cgroups import without_cgroups
from tests.support.daemon import Daemon
from tests.support.explained import until_explained
from tests.support.wait import until

pytestmark = pytest.mark.fuse

BACK_S = 30.0


@pytest.fixture
def apps(daemon: Daemon) -> Apps:
    return Apps(daemon)


@pytest.fixture(params=["cgroup", "no-cgroup"])
def somewhere(request: pytest.FixtureRequest, make_daemon: Callable[..., Daemon]) -> Iterator[Apps]:
    """Where a cgroup can be made, and where none can: there what it started is known by other ways."""
    with contextlib.ExitStack() as stack:
        wrap = () if request.param == "cgroup" else stack.enter_context(without_cgroups())
        daemon = make_daemon(wrap=wrap)
        yield Apps(daemon)
        daemon.close()


def stop_within(daemon: Daemon, limit_s: float) -> None:
    began = time.monotonic()
    assert daemon.stop() == 0
    lasted_s = time.monotonic() - began
    (reported,) = daemon.until_events("mountd stops")
    assert lasted_s < min(limit_s, reported["at_most_s"])
    assert daemon.processes() == []
    assert daemon.mounts() == []


def test_however_it_ends_it_is_back_and_nothing_else_restarts(apps: Apps) -> None:
    apps.use(STEADY)
    apps.daemon.start_ready()  # this app needs no mount, which may come later
    until(lambda: apps.daemon.status()["mounts"]["storage"]["state"] == "running", BACK_S, "the mount")
    before = apps.daemon.status()
    ends = (signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1, signal.SIGUSR2)
    for number, end in enumerate(ends, start=1):
        old = apps.pid
        assert old is not None
        os.kill(old, end)
        if number == 1:
            until_explained(apps.daemon, "app-killed")
        until(lambda: apps.daemon.status()["apps"]["webui"]["restarts"] == number, BACK_S, f"the app after {end.name}")  # noqa: B023
        assert apps.pid not in (None, old)
        assert not orphans.alive(old)
    after = apps.daemon.until_ready()
    assert after["health"] == "Healthy"
    assert after["mounts"]["storage"]["pid"] == before["mounts"]["storage"]["pid"]
    causes = [event.get("cause", "") for event in apps.daemon.events("state changed") if event.get("app") == "webui"]
    for what in ("signal SIGKILL", "signal SIGSEGV", "exit code 0", "exit code 3"):
        assert any(what in cause for cause in causes), what


@pytest.mark.thorough
def test_killed_before_it_is_ready(apps: Apps) -> None:
    apps.use(STEADY)
    ready = apps.daemon.root / "may-be-ready"
    apps.daemon.config["apps"]["webui"]["ready"] = {"command": ["test", "-e", str(ready)], "timeout": "60s"}
    apps.daemon.start()
    first = until(lambda: apps.pid, 60, "the app to start")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: apps.pid not in (None, first), BACK_S, "another one")
    assert not orphans.alive(first)
    ready.touch()
    assert apps.daemon.until_ready()["apps"]["webui"]["restarts"] == 0, "it ran for the first time"


@pytest.mark.shown_by("SIGTERM")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_one_that_is_deaf_gets_its_grace_and_then_sigkill(apps: Apps, number: str) -> None:
    apps.use(DEAF, signal=number)
    apps.daemon.start_ready()
    old = apps.pid
    assert old is not None
    began = time.monotonic()
    assert apps.daemon.cli("restart", "webui").code == 0
    assert time.monotonic() - began >= GRACE_S
    assert not orphans.alive(old)
    assert apps.pid not in (None, old)
    stop_within(apps.daemon, GRACE_S + 30)


@pytest.mark.thorough
def test_one_of_a_daemon_that_was_born_deaf_hears_its_signal(make_daemon: Callable[..., Daemon]) -> None:
    """`nohup mountd run`, or `mountd run &` in a script: what those ignore means here what it always does."""
    apps = Apps(make_daemon(wrap=("env", "--ignore-signal", "--block-signal")))
    apps.use("trap 'exit 0' INT; echo up; while :; do sleep 60 & wait; done", signal="SIGINT", grace="60s")
    apps.daemon.start_ready()
    old, began = apps.pid, time.monotonic()
    assert apps.daemon.cli("restart", "webui").code == 0
    assert time.monotonic() - began < 45, "not only after its grace"
    assert apps.pid not in (None, old)
    stop_within(apps.daemon, 45)


@pytest.mark.thorough
def test_one_that_is_stopped_ends_too(apps: Apps) -> None:
    """SIGSTOP: it hears its stop signal only when it goes on, which it never does."""
    apps.use(STEADY)
    apps.daemon.start_ready()
    pid = apps.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    stop_within(apps.daemon, GRACE_S + 30)


@pytest.mark.shown_by("graceful")
@pytest.mark.parametrize("app", [STEADY, DEAF], ids=["graceful", "deaf"])
@pytest.mark.thorough
def test_what_it_detached_ends_with_it_at_the_stop(apps: Apps, app: str) -> None:
    apps.use(DETACHED + app)
    apps.daemon.start_ready()
    detached = apps.detached()
    assert living(detached) == detached
    stop_within(apps.daemon, GRACE_S + 30)
    assert living(detached) == []


@pytest.mark.shown_by("crash")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGUSR1, None], ids=["crash", "exit", "restart"])
def test_what_it_detached_ends_before_the_next_one_starts(somewhere: Apps, end: signal.Signals | None) -> None:
    """Else two would write to the same port, files or GPU."""
    apps = somewhere
    check = """
        for pid in $(cat "$1"); do [ -e "/proc/$pid" ] && echo "$pid" >>"$1.overlap"; done
    """
    apps.use(check + DETACHED + STEADY)
    apps.daemon.start_ready()
    detached, old = apps.detached(), apps.pid
    assert living(detached) == detached
    assert old is not None
    if end is None:
        assert apps.daemon.cli("restart", "webui").code == 0
    else:
        os.kill(old, end)
    both = apps.detached(lives=2)
    assert living(detached) == []
    assert not Path(f"{apps.daemon.root}/detached.overlap").exists()
    assert living(both) == both[DETACHED_COUNT:]
    apps.daemon.until_ready()
    stop_within(apps.daemon, GRACE_S + 30)
    assert living(both) == []


def test_what_it_detached_ends_when_the_daemon_is_killed(apps: Apps) -> None:
    """The daemon alone: its small parent ends what is left, without waiting for a next start."""
    apps.use(DETACHED + DEAF)
    status = apps.daemon.start_ready()
    detached = apps.detached()
    os.kill(status["pid"], signal.SIGKILL)
    assert apps.daemon.wait_exit() == 128 + signal.SIGKILL
    assert living(detached) == []
    assert apps.daemon.processes() == []


DETACHING = """
import http.server, os, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
        http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
    os._exit(0)
os.wait()
"""


def detaching(apps: Apps, script: str) -> None:
    app = apps.daemon.config["apps"]["webui"]
    port = urlsplit(app["ready"]["http"]).port
    app["command"] = [sys.executable, "-c", script, str(port)]
    app["restart"] = {"backoff": {"initial": "30s"}}


@pytest.mark.thorough
def test_one_that_detaches_is_reported(apps: Apps) -> None:
    """A script that starts the server in the background and ends: mountd watches what it has started itself."""
    detaching(apps, DETACHING)
    apps.daemon.start()
    reason = apps.daemon.until_reason("app-detached")
    until_explained(apps.daemon, "app-detached")
    assert "python" in reason["text"]
    assert reason["hint"]
    port = urlsplit(apps.daemon.config["apps"]["webui"]["ready"]["http"]).port
    assert ports.listeners(port or 0) == [], "it was ended"
    stop_within(apps.daemon, GRACE_S + 30)


@pytest.mark.thorough
def test_one_that_answers_from_a_process_that_came_loose_is_ready(somewhere: Apps) -> None:
    """What ends with it belongs to it, and what belongs to it may answer on its port."""
    apps = somewhere
    detaching(apps, DETACHING + "import time; time.sleep(600)")
    apps.daemon.start_ready()
    assert apps.daemon.events("ended what the app had left running") == []
    stop_within(apps.daemon, GRACE_S + 30)
