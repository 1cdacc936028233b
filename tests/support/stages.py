"""A daemon that is brought to a certain stage of its start, and asked to stop there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mountd.demo import hub
from tests.support.apps import living
from tests.support.daemon import Daemon
from tests.support.machine import children
from tests.support.not_ready import assert_silent
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.scripted_rclone import ScriptedRclone
from tests.support.wait import until

VERSION = "cache_hub_v23"
SOON_S = 60.0

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
class Rig:
    """A daemon whose bucket is behind a proxy and whose rclone does what a script says."""

    daemon: Daemon
    store: RcloneS3
    proxy: Proxy
    rclone: ScriptedRclone
    ends: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """what has to be repaired when it is over"""

    @property
    def storage(self) -> dict[str, Any]:
        mount: dict[str, Any] = self.daemon.status()["mounts"]["storage"]
        return mount

    def until_mount(self, **expected: str) -> None:
        until(lambda: expected.items() <= self.storage.items(), SOON_S, f"the mount to be {expected}", every_s=0.05)

    def until_app(self, state: str) -> None:
        until(lambda: self.daemon.status()["apps"]["webui"]["state"] == state, SOON_S, f"the app to be {state}")

    @property
    def version(self) -> Path:
        return self.store.directory / hub.BUCKET / VERSION

    def hide_version(self) -> Path:
        """Where it lies meanwhile."""
        aside = self.store.directory.parent / "aside"
        self.version.rename(aside)
        self.ends.callback(lambda: aside.exists() and aside.rename(self.version))
        return aside

    def switch(self, step: str) -> None:
        argv = [sys.executable, "-m", "mountd", "--socket", str(self.daemon.socket), "switch", "v22"]
        switching = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        self.ends.callback(switching.wait, SOON_S)
        self.ends.callback(switching.terminate)
        until(lambda: (self.daemon.status()["operation"] or {}).get("step") == step, SOON_S, f"the switch to {step}")


def spawned(rig: Rig) -> None:
    rig.rclone.behave("exec sleep 600")
    rig.daemon.start()
    rig.until_mount(stage="spawned")


def mounted_and_silent(rig: Rig) -> None:
    script = rig.rclone.path.with_name("stopped.py")
    script.write_text(STOPPED_WHEN_MOUNTED.format(rclone=str(rig.rclone.real)))
    rig.rclone.behave(f"exec '{sys.executable}' '{script}' \"$@\"")
    rig.daemon.start()
    rig.until_mount(stage="mounted")


def bucket_away(rig: Rig) -> None:
    rig.proxy.down()
    rig.daemon.start()
    rig.daemon.until_reason("bucket-unreachable")


def waiting_for_content(rig: Rig) -> None:
    rig.hide_version()
    rig.daemon.start()
    rig.daemon.until_reason("waiting-for-content")


def inspecting(rig: Rig) -> None:
    """It looks at what has come, and gets no answer yet."""
    aside = rig.hide_version()
    rig.daemon.start()
    rig.daemon.until_reason("waiting-for-content")
    rig.proxy.reset_counts()
    rig.proxy.faults.latency_s = 5.0
    aside.rename(rig.version)
    wanted = f"prefix={VERSION}"
    until(lambda: any(wanted in each.target for each in rig.proxy.counts.exchanges), SOON_S, "the model to be listed")


def loading(rig: Rig) -> None:
    aside = rig.hide_version()
    rig.daemon.start()
    rig.daemon.until_reason("waiting-for-content")
    rig.proxy.faults.latency_s = 1.0
    aside.rename(rig.version)
    until(lambda: rig.daemon.status()["models"]["cache_hub"]["stage"] == "listed", SOON_S, "the metadata to be loaded")


def app_starting(rig: Rig) -> None:
    rig.daemon.config["apps"]["webui"]["command"] += ["--load-seconds", "60"]
    rig.daemon.start()
    rig.until_app("starting")


def running(rig: Rig) -> None:
    rig.daemon.start_ready()


def backoff(rig: Rig) -> None:
    rig.rclone.behave("exit 1")
    rig.daemon.start()
    until(lambda: len(rig.rclone.starts) >= 3, SOON_S, "some tries")
    rig.until_mount(state="backoff")


def failed(rig: Rig) -> None:
    rig.rclone.behave("exit 2")
    rig.daemon.start()
    rig.until_mount(state="failed")


def waiting_for_its_place(rig: Rig) -> None:
    rig.daemon.mount.mkdir()
    (rig.daemon.mount / "precious.txt").touch()
    rig.daemon.start()
    rig.daemon.until_reason("mount-point-not-empty")


def bucket_silent(rig: Rig) -> None:
    rig.proxy.faults.black_hole = True
    rig.daemon.start()
    rig.until_mount(stage="answering")


START_STAGES = (
    *(spawned, mounted_and_silent, bucket_away, waiting_for_content, inspecting, loading),
    *(app_starting, running, backoff, failed),
)
WAITING = (waiting_for_its_place, bucket_silent)
"""Where it waits for something from outside."""


def assert_ends(daemon: Daemon) -> float:
    """Within what was promised, with nothing left; how many seconds it took."""
    assert daemon.process is not None
    own = children(daemon.process.pid, all_below=True)
    began = time.monotonic()
    code = daemon.stop()
    took_s = time.monotonic() - began
    shown = daemon.cli("config", "show", "-c", str(daemon.config_file), "-o", "json")
    (reported,) = daemon.until_events("mountd stops")
    assert took_s <= reported["at_most_s"], daemon.log_text()
    assert json.loads(shown.out)["stop_s"] == reported["at_most_s"]
    assert code == 0
    assert daemon.events("mountd has stopped")
    assert daemon.mounts() == []
    assert daemon.processes() == []
    assert living(own) == []
    assert_silent(daemon)
    return took_s
