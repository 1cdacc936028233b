"""An end that is asked for in the middle of whatever is going on: soon, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mountd.demo import hub
from tests.support.daemon import BUNDLED_RCLONE, Daemon
from tests.support.machine import Stopped, Tmpfs, name, state
from tests.support.not_ready import assert_silent
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.scripted_rclone import ScriptedRclone
from tests.support.wait import until

pytestmark = pytest.mark.fuse

VERSION = "cache_hub_v23"

# Mounts for real, but says so only once that rclone is stopped: mounted, and nobody answers.
STOPPED_WHEN_MOUNTED = """\
import os, signal, socket, subprocess, sys, time
address = os.environ.pop("NOTIFY_SOCKET")
rclone = subprocess.Popen([{rclone!r}, *sys.argv[1:]])
while f" {{sys.argv[3]}} " not in open("/proc/self/mountinfo").read():
    time.sleep(0.01)
rclone.send_signal(signal.SIGSTOP)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", address)
rclone.wait()
"""


@dataclass
class Bench:
    """A daemon whose bucket is behind a proxy and whose rclone does what it is told."""

    daemon: Daemon
    store: RcloneS3
    proxy: Proxy
    rclone: ScriptedRclone
    ends: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """what has to be mended when the test is over"""

    @property
    def storage(self) -> dict[str, Any]:
        mount: dict[str, Any] = self.daemon.status()["mounts"]["storage"]
        return mount

    def until_mount(self, **expected: str) -> None:
        until(lambda: expected.items() <= self.storage.items(), 20, f"the mount to be {expected}", every_s=0.05)

    def until_app(self, state: str) -> None:
        until(lambda: self.daemon.status()["apps"]["webui"]["state"] == state, 20, f"the app to be {state}")

    @property
    def version(self) -> Path:
        return self.store.directory / hub.BUCKET / VERSION

    def hide_version(self) -> Path:
        aside = self.store.directory.parent / "aside"
        self.version.rename(aside)
        return aside

    def switch(self, step: str) -> None:
        argv = [sys.executable, "-m", "mountd", "--socket", str(self.daemon.socket), "switch", "v22"]
        switching = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        self.ends.callback(switching.wait, 30)
        self.ends.callback(switching.terminate)
        until(lambda: (self.daemon.status()["operation"] or {}).get("step") == step, 20, f"the switch to {step}")


@pytest.fixture
def bench(make_daemon: Callable[..., Daemon], store: RcloneS3, proxy: Proxy, tmp_path: Path) -> Iterator[Bench]:
    scripted = ScriptedRclone(tmp_path, BUNDLED_RCLONE)
    daemon = make_daemon(endpoint=proxy.endpoint, rclone=scripted.path)
    bench = Bench(daemon, store, proxy, scripted)
    with bench.ends:
        yield bench


def waiting_for_its_place(bench: Bench) -> None:
    bench.daemon.mount.mkdir()
    (bench.daemon.mount / "precious.txt").touch()
    bench.daemon.start()
    bench.daemon.until_reason("mount-point-not-empty")


def spawned(bench: Bench) -> None:
    bench.rclone.behave("exec sleep 600")
    bench.daemon.start()
    bench.until_mount(stage="spawned")


def mounted_and_silent(bench: Bench) -> None:
    script = bench.rclone.path.with_name("stopped.py")
    script.write_text(STOPPED_WHEN_MOUNTED.format(rclone=str(bench.rclone.real)))
    bench.rclone.behave(f"exec '{sys.executable}' '{script}' \"$@\"")
    bench.daemon.start()
    bench.until_mount(stage="mounted")


def bucket_away(bench: Bench) -> None:
    bench.proxy.down()
    bench.daemon.start()
    bench.daemon.until_reason("bucket-unreachable")


def bucket_silent(bench: Bench) -> None:
    bench.proxy.faults.black_hole = True
    bench.daemon.start()
    bench.until_mount(stage="answering")


def waiting_for_content(bench: Bench) -> None:
    bench.hide_version()
    bench.daemon.start()
    bench.daemon.until_reason("waiting-for-content")


def loading(bench: Bench) -> None:
    aside = bench.hide_version()
    bench.daemon.start()
    bench.daemon.until_reason("waiting-for-content")
    bench.proxy.reset_counts()
    bench.proxy.faults.latency_s = 5.0
    aside.rename(bench.version)
    wanted = f"prefix={VERSION}"
    until(lambda: any(wanted in each.target for each in bench.proxy.counts.exchanges), 20, "the model to be listed")


def app_starting(bench: Bench) -> None:
    bench.daemon.config["apps"]["webui"]["command"] += ["--load-seconds", "60"]
    bench.daemon.start()
    bench.until_app("starting")


def app_failing(bench: Bench) -> None:
    bench.daemon.config["apps"]["webui"]["command"] += ["--crash-at-start"]
    bench.daemon.start()
    bench.until_app("backoff")


def running(bench: Bench) -> None:
    bench.daemon.start_ready()


def rclone_hangs(bench: Bench) -> None:
    status = bench.daemon.start_ready()
    bench.ends.enter_context(Stopped(status["mounts"]["storage"]["pid"]))


def reader_stuck(bench: Bench) -> None:
    """In D, where no signal reaches it, until rclone answers or is gone."""
    go, file = bench.daemon.root / "go", bench.daemon.mount / VERSION / "models" / "gpt.pth"
    script = f"while [ ! -e '{go}' ]; do sleep 0.05; done; exec cat '{file}'"
    bench.daemon.config["apps"] = {"reader": {"command": ["sh", "-c", script], "needs": ["storage"]}}
    status = bench.daemon.start_ready()
    bench.proxy.faults.black_hole = True
    go.touch()
    reader = status["apps"]["reader"]["pid"]
    until(lambda: name(reader) == "cat" and state(reader) == "D", 10, "the reader to be stuck")


def between_two_rclones(bench: Bench) -> None:
    status = bench.daemon.start_ready()
    bench.rclone.behave("exec sleep 600")
    os.kill(status["mounts"]["storage"]["pid"], signal.SIGKILL)
    bench.until_mount(stage="spawned")


def backoff(bench: Bench) -> None:
    bench.rclone.behave("exit 1")
    bench.daemon.start()
    until(lambda: len(bench.rclone.starts) >= 3, 20, "some tries")
    bench.until_mount(state="backoff")


def failed(bench: Bench) -> None:
    bench.rclone.behave("exit 2")
    bench.daemon.start()
    bench.until_mount(state="failed")


def switch_looks(bench: Bench) -> None:
    bench.daemon.start_ready()
    bench.proxy.faults.black_hole = True
    bench.switch("preflight")


def switch_starts(bench: Bench) -> None:
    bench.daemon.config["apps"]["webui"]["command"] += ["--load-seconds", "3"]
    bench.daemon.start_ready()
    bench.switch("ready")


RUNGS = (spawned, mounted_and_silent, bucket_away, waiting_for_content, loading, app_starting, running, backoff, failed)
BESIDE = (waiting_for_its_place, bucket_silent, app_failing, between_two_rclones, switch_looks, switch_starts)
STAGES = (
    *RUNGS,
    pytest.param(rclone_hangs, marks=pytest.mark.thorough),
    *(pytest.param(each, marks=pytest.mark.thorough) for each in BESIDE),
    pytest.param(reader_stuck, marks=[pytest.mark.thorough, pytest.mark.timeout(300)]),
)


def assert_ends(daemon: Daemon) -> None:
    """Within what was promised, with nothing left."""
    began = time.monotonic()
    code = daemon.stop()
    took_s = time.monotonic() - began
    shown = daemon.cli("config", "show", "-c", str(daemon.config_file), "-o", "json")
    (told,) = daemon.events("mountd stops")
    assert took_s <= told["at_most_s"], daemon.log_text()
    print(f"ended after {took_s:.2f} s of {told['at_most_s']:g}")
    assert json.loads(shown.out)["stop_s"] == told["at_most_s"]
    assert code == 0
    assert daemon.events("mountd has stopped")
    assert daemon.mounts() == []
    assert daemon.processes() == []
    assert_silent(daemon)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_an_end_that_is_asked_for(bench: Bench, stage: Callable[[Bench], None]) -> None:
    stage(bench)
    assert_ends(bench.daemon)


@pytest.mark.thorough
def test_an_end_in_a_switch_leaves_what_was_live(bench: Bench) -> None:
    switch_starts(bench)
    assert_ends(bench.daemon)
    bench.daemon.start_ready()
    assert bench.daemon.page()["version"] == "v23"
    model = bench.daemon.status()["models"]["cache_hub"]
    assert (model["current"], model["previous"], model["sync"]) == ("v23", None, "Synced")


@pytest.mark.thorough
@pytest.mark.root
def test_an_end_while_it_cannot_clean(bench: Bench) -> None:
    """What somebody has mounted on top of ours stays theirs; it is said what is left."""
    bench.daemon.start_ready()
    with Tmpfs(bench.daemon.mount, 1):
        bench.daemon.until_reason("cannot-unmount")
        began = time.monotonic()
        assert bench.daemon.stop() == 1
        (told,) = bench.daemon.events("mountd stops")
        assert time.monotonic() - began <= told["at_most_s"]
        assert [event["path"] for event in bench.daemon.events("still mounted")] == [str(bench.daemon.mount)]
        assert bench.daemon.processes() == []
    assert_silent(bench.daemon)
