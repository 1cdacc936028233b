"""Faults of the app: it comes back, nothing of it is left, and rclone and what is cached go on.

`detected` and `serving` both count from the beginning of the fault; serving is another app that is ready.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.figures import Sample
from bench.stage import Stage, Status, app, is_well
from bench.trial import LIMIT_S, Trial
from tests.support.apps import DEAF, DETACHED, GRACE_S, STEADY, Apps, living
from tests.support.daemon import Daemon

MANY_CRASHES = "1000 in 10m"
"""Each run is a crash, and by default mountd gives up after five in ten minutes."""
# Whatever of a previous run is still there when the next one begins.
OVERLAP = """
    for pid in $(cat "$1"); do [ -e "/proc/$pid" ] && echo "$pid" >>"$1.overlap"; done; : >"$1"
"""


def may_crash(daemon: Daemon) -> None:
    daemon.config["apps"]["webui"]["restart"] = {"limit": MANY_CRASHES}


def is_deaf(daemon: Daemon) -> None:
    Apps(daemon).use(DEAF)


def detaches(daemon: Daemon) -> None:
    Apps(daemon).use(OVERLAP + DETACHED + STEADY)
    may_crash(daemon)


def kill(stage: Stage) -> Sample:
    trial, former = Trial(stage), _of_the_app(stage)
    pid = app(stage.status())["pid"]
    trial.begin()
    os.kill(pid, signal.SIGKILL)
    return _until_back(stage, trial, former, pid)


def kill_with_children(stage: Stage) -> Sample:
    """Three of them, in sessions of their own, one of them deaf: all must have ended when the next app begins."""
    trial, former = Trial(stage), _of_the_app(stage)
    pid, children = app(stage.status())["pid"], Apps(stage.daemon).detached()
    if living(children) != children:
        trial.breaks("not all children were there before")
    trial.begin()
    os.kill(pid, signal.SIGKILL)
    sample = _until_back(stage, trial, former + children, pid)
    if Path(f"{stage.daemon.root}/detached.overlap").exists():
        trial.breaks("children of the former app were there with the next one")
    return trial.judge(sample)


def restart_deaf(stage: Stage) -> Sample:
    """A person has it restarted; it ignores its stop signal, so it is killed after its grace (1 s): that is what
    `detected` is here."""
    trial, former = Trial(stage), _of_the_app(stage)
    argv = [sys.executable, "-m", "mountd", "--socket", str(stage.daemon.socket), "restart", "webui"]
    pid = app(stage.status())["pid"]
    trial.begin()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as asking:
        try:
            sample = _until_back(stage, trial, former, pid)
            if asking.wait(LIMIT_S):
                trial.breaks(f"`mountd restart` ended with {asking.returncode}")
        finally:
            asking.terminate()
    if (sample.detected_s or 0.0) < GRACE_S:
        trial.breaks("it ended before its grace was over")
    return trial.judge(sample)


def _of_the_app(stage: Stage) -> list[int]:
    """All processes that carry its mark."""
    found = []
    for pid in stage.daemon.processes():
        with contextlib.suppress(OSError):
            if b"MOUNTD_NAME=webui" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def _until_back(stage: Stage, trial: Trial, former: list[int], pid: int) -> Sample:
    """From the end of app `pid`; nothing of what it was (`former`) may be left."""

    def is_another(status: Status) -> bool:
        return is_well(status) and app(status)["pid"] not in (None, pid)

    trial.detect(lambda status: app(status)["pid"] != pid, "the end of the app to be seen")
    stage.until(is_another, LIMIT_S, "another app")
    if left := living(former):
        trial.breaks(f"{len(left)} processes of the former app are left")
    sample = trial.finish(trial.began)
    trial.check_cached_reads(time.monotonic())
    return trial.judge(sample)
