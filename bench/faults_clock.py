"""The wall clock of mountd jumps an hour: no timer is of that clock, so nothing happens, and nothing is late."""

from __future__ import annotations

import time
from dataclasses import replace

from bench.faults_process import Run
from bench.figures import Sample
from bench.stage import Stage, mount
from bench.trial import Trial
from tests.support.daemon import Daemon
from tests.support.machine import Stopped
from tests.support.wall_clock import HOUR_S

BACKEND_S = 2.0
FOR_S = 8.0
SILENT_S = 1.5
"""The first of two answers is awaited then, which may each take 2 s."""
EARLIEST_S = 3.5
ASKED = range(3, 6)
"""Requests in that time: one each 2 s, the first and the last somewhere."""


def is_asked_often(daemon: Daemon) -> None:
    """So that in a few seconds it is seen whether a timer is late."""
    daemon.config["mounts"]["storage"]["health"] = {"backend": f"{BACKEND_S:g}s"}


def jump(stage: Stage, number: int) -> Sample:
    """Forth and back again, or the other way round. There is nothing to detect, and all serves all the time."""
    trial = Trial(stage)
    for offset_s in (_offset_s(number), 0):
        stage.proxy.reset_counts()
        stage.clock.jump(offset_s)
        if not stage.clock.shows(stage.control.date()):
            trial.breaks("mountd has not seen the jump")
        trial.keep(FOR_S, healthy=True)
        if (asked := stage.proxy.reset_counts().requests.total()) not in ASKED:
            trial.breaks(f"the bucket was asked {asked} times in {FOR_S:g} s")
    trial.check_cached_reads(time.monotonic())
    sample = trial.finish(time.monotonic())
    return replace(trial.judge(sample), serving_s=None)


def stop_and_jump(stage: Stage, number: int) -> Sample:
    """rclone hangs, and the clock jumps while mountd waits for its answers: neither soon nor late does it give up."""
    run = Run(stage)
    try:
        with Stopped(run.pid):
            stopped = time.monotonic()
            for _ in stage.poll(stopped + SILENT_S - time.monotonic()):
                pass
            stage.clock.jump(_offset_s(number))
            sample = run.measure(stopped)
            if not stage.clock.shows(mount(stage.status())["since"]):
                sample = replace(sample, broken="mountd has not seen the jump")
    finally:
        stage.clock.jump(0)
    if (sample.detected_s or 0.0) < EARLIEST_S:
        return replace(sample, broken=f"given up after {sample.detected_s} s already")
    return sample


def _offset_s(number: int) -> int:
    return HOUR_S if number % 2 == 0 else -HOUR_S
