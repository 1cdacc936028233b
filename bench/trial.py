"""One run of a fault that leaves rclone alone: what must hold all the time, and the figures in the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from bench.figures import Sample
from bench.reads import Copied
from bench.stage import Stage, Status, app, codes, is_well, mount
from tests.support.onlooker import LATE

LIMIT_S = 120.0
"""Until a run is given up; far above every mark."""
ANSWER_S = 2.0
"""mountd answers within this, whatever happens."""
WORKERS = 4
"""A mount has three kinds of worker, and at most one that is stuck besides."""


class Trial:
    """One run, from now on, and what must hold all the time: the first promise broken is kept."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        stage.settle()
        self._before = stage.at_random()
        self._crowded = 0
        self._broken = ""
        self._detected: float | None = None
        self.began = time.monotonic()

    def begin(self) -> None:
        """When the fault comes later than the looks before it."""
        self.began = time.monotonic()

    def detect(self, condition: Callable[[Status], bool], what: str) -> Status:
        self._detected, status = self._stage.until(condition, LIMIT_S, what)
        return status

    def keep(self, seconds: float, *, healthy: bool = False) -> None:
        """For so long; `healthy` says that the fault is no reason to be anything else. One late probe, which a busy
        machine has now and then, is none either."""
        for status, answer_s in self._stage.poll(seconds):
            self.look(status)
            if healthy and not is_well(status) and codes(status) != {LATE}:
                self.breaks(f"{status['health']}: {', '.join(sorted(codes(status)))}")
            if answer_s > ANSWER_S:
                self.breaks(f"mountd took over {ANSWER_S:g} s to answer")

    def look(self, status: Status) -> None:
        if mount(status)["pid"] != mount(self._before)["pid"]:
            self.breaks("rclone was restarted")
        # One that is being replaced counts twice for a moment.
        self._crowded = self._crowded + 1 if len(self._stage.running("files/worker.py")) > WORKERS else 0
        if self._crowded > 2:
            self.breaks("stuck workers add up")

    def check_cached_reads(self, until: float) -> None:
        if failed := self._stage.reads.failed(self.began, until):
            self.breaks(f"{failed} cached reads failed")

    def breaks(self, what: str) -> None:
        self._broken = self._broken or what

    def judge(self, sample: Sample) -> Sample:
        """With what was broken since."""
        return replace(sample, broken=sample.broken or self._broken)

    def finish(self, ended: float) -> Sample:
        """Once all is well again; `ended` is when the fault was over."""
        stage = self._stage
        healthy, after = stage.until(is_well, LIMIT_S, "all to be well")
        serving = max(healthy, stage.reads.first_good(ended, LIMIT_S))
        self.look(after)
        return Sample(
            detected_s=None if self._detected is None else self._detected - self.began,
            serving_s=serving - ended,
            app_restarted=app(after)["pid"] != app(self._before)["pid"],
            bytes_lost=stage.reads.wrong_bytes(self.began),
            broken=self._broken,
        )


def with_readers(sample: Sample, serving_s: float, *copied: Copied) -> Sample:
    """Together with what other readers saw; `serving_s` is when the last of them was content."""
    return replace(
        sample,
        serving_s=max(sample.serving_s or 0.0, serving_s),
        bytes_lost=sample.bytes_lost + sum(each.wrong_bytes for each in copied),
        errors=sample.errors + sum(each.errors for each in copied),
    )
