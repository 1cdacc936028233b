"""The wall clock of mountd jumps an hour: no timer is of that clock, so nothing happens, and nothing is late."""

from __future__ import annotations

import time
from dataclasses import replace

from bench import faults_process
from bench.figures import Sample
from bench.stage import Stage
from bench.trial import Trial
from tests.support.daemon import Daemon
from tests.support.wall_clock import HOUR_S

BACKEND_S = 2.0
FOR_S = 8.0
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
        trial.keep(FOR_S, healthy=True)
        if (asked := stage.proxy.reset_counts().requests.total()) not in ASKED:
            trial.breaks(f"the bucket was asked {asked} times in {FOR_S:g} s")
    trial.cached_reads(time.monotonic())
    sample = trial.finish(time.monotonic())
    if sample.app_restarted:
        trial.breaks("the app was restarted")
    return replace(trial.judge(sample), serving_s=None)


def stop_after_jump(stage: Stage, number: int) -> Sample:
    """The silence of a stopped rclone is as long by the clock that counts."""
    stage.clock.jump(_offset_s(number))
    try:
        return faults_process.stop(stage)
    finally:
        stage.clock.jump(0)


def _offset_s(number: int) -> int:
    return HOUR_S if number % 2 == 0 else -HOUR_S
