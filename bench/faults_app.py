"""Faults of the app: it comes back, nothing of it is left, and rclone and what is cached go on.

`detected` and `serving` both count from the beginning of the fault; serving is another app that is ready.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.figures import Sample
from bench.stage import Stage, Status, app, is_well
from bench.trial import LIMIT_S, Trial
from tests.support.apps import DEAF, DETACHED, STEADY, Apps, living
from tests.support.daemon import Daemon
from tests.support.wait import until

MANY_CRASHES = "1000 in 10m"
"""Each run is a crash, and by default mountd gives up after five in ten minutes."""
LEFT_S = 10.0
"""What is asked and ends is there for a moment, too."""
# Whatever of a former life is still there when the next one begins.
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
    trial, held = Trial(stage), _held(stage)
    return _until_back(stage, trial, held, _kill(stage))


def kill_with_children(stage: Stage) -> Sample:
    """Three of them, in sessions of their own, one of them deaf: all must have ended when the next app begins."""
    trial, held = Trial(stage), _held(stage)
    children = Apps(stage.daemon).detached()
    if living(children) != children:
        trial.breaks("not all children were there before")
    sample = _until_back(stage, trial, held, _kill(stage))
    if living(children) or Path(f"{stage.daemon.root}/detached.overlap").exists():
        trial.breaks("children of the former app were there with the next one")
    return trial.judge(sample)


def restart_deaf(stage: Stage) -> Sample:
    """A person has it restarted; it ignores its stop signal, so it is killed after its grace (1 s)."""
    trial, held = Trial(stage), _held(stage)
    argv = [sys.executable, "-m", "mountd", "--socket", str(stage.daemon.socket), "restart", "webui"]
    pid = app(stage.status())["pid"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as asking:
        sample = _until_back(stage, trial, held, pid)
        if asking.wait(LIMIT_S):
            trial.breaks(f"`mountd restart` ended with {asking.returncode}")
    return trial.judge(sample)


def _held(stage: Stage) -> int:
    """How many processes there are."""
    return len(stage.daemon.processes())


def _kill(stage: Stage) -> int:
    pid: int = app(stage.status())["pid"]
    os.kill(pid, signal.SIGKILL)
    return pid


def _until_back(stage: Stage, trial: Trial, held: int, pid: int) -> Sample:
    """From the end of app `pid`; in the end there are not more than `held` processes."""

    def is_another(status: Status) -> bool:
        return is_well(status) and app(status)["pid"] not in (None, pid)

    trial.detect(lambda status: app(status)["pid"] != pid, "the end of the app to be seen")
    stage.until(is_another, LIMIT_S, "another app")
    sample = trial.finish(trial.began)
    trial.cached_reads(time.monotonic())
    until(lambda: _held(stage) <= held, LEFT_S, "nothing to be left")
    return trial.judge(sample)
