"""Faults of the bucket, its credentials and the cache's disk: rclone must stay, and what is cached go on.

`detected` counts from the beginning of the fault, `serving` from its end: nothing can be fetched before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from bench.figures import Sample
from bench.reads import Copied
from bench.stage import Stage, Status, app, codes, is_well, mount
from tests.support.faults import ANY, SLOW_DOWN, Break, Exchange, Failure, Faults

LIMIT_S = 120.0
"""Until a run is given up; far above every mark."""
ANSWER_S = 2.0
"""mountd answers within this, whatever the bucket does."""
STUCK_READERS = 3
WORKERS = 4
"""A mount has three kinds of worker, and at most one that is stuck besides."""
LATENCY_S = 5.0
FULL_FOR_S = 6.0
"""Twenty looks of the reader at a full disk, and one of rclone's cleaner."""


class _Run:
    """One run, from now on, and what must hold all the time: the first promise broken is kept."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        stage.settle()
        self._before = stage.at_random()
        self._crowded = 0
        self._broken = ""
        self._detected: float | None = None
        self.began = time.monotonic()

    def detect(self, condition: Callable[[Status], bool], what: str) -> Status:
        self._detected, status = self._stage.until(condition, LIMIT_S, what)
        return status

    def keep(self, seconds: float) -> None:
        for status, answer_s in self._stage.poll(seconds):
            self.look(status)
            if answer_s > ANSWER_S:
                self.breaks(f"mountd took over {ANSWER_S:g} s to answer")

    def look(self, status: Status) -> None:
        if mount(status)["pid"] != mount(self._before)["pid"]:
            self.breaks("rclone was restarted")
        # One that is being replaced counts twice for a moment.
        self._crowded = self._crowded + 1 if len(self._stage.running("worker.py")) > WORKERS else 0
        if self._crowded > 2:
            self.breaks("stuck workers add up")

    def cached_reads(self, until: float) -> None:
        if failed := self._stage.reads.failed(self.began, until):
            self.breaks(f"{failed} cached reads failed")

    def breaks(self, what: str) -> None:
        self._broken = self._broken or what

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


def _with(sample: Sample, serving_s: float, *copied: Copied) -> Sample:
    """Together with what other readers saw; `serving_s` is when the last of them was content."""
    return replace(
        sample,
        serving_s=max(sample.serving_s or 0.0, serving_s),
        bytes_lost=sample.bytes_lost + sum(each.wrong_bytes for each in copied),
        errors=sample.errors + sum(each.errors for each in copied),
    )


def _bucket_trouble(status: Status) -> bool:
    return status["health"] != "Healthy" and any(reason["layer"] == "bucket" for reason in status["reasons"])


def outage(stage: Stage, seconds: float) -> Sample:
    """Connections are refused; the model has been read once, and goes on being read."""
    run = _Run(stage)
    stage.proxy.down()
    run.detect(_bucket_trouble, "the outage to be seen")
    run.keep(run.began + seconds - time.monotonic())
    ended = time.monotonic()
    run.cached_reads(ended)
    stage.proxy.up()
    return run.finish(ended)


def black_hole(stage: Stage, seconds: float) -> Sample:
    """Nothing is refused and nothing answered, while programs read what is not cached."""
    run = _Run(stage)
    stage.proxy.faults.black_hole = True
    stuck = [stage.read_fresh(patience_s=LIMIT_S) for _ in range(STUCK_READERS)]
    run.detect(_bucket_trouble, "the outage to be seen")
    run.keep(run.began + seconds - time.monotonic())
    ended = time.monotonic()
    stage.proxy.faults.black_hole = False
    copied = [reader.result(LIMIT_S) for reader in stuck]
    freed_s = time.monotonic() - ended
    return _with(run.finish(ended), freed_s, *copied)


def expired(stage: Stage, number: int) -> Sample:
    """Key `number` expires, then the configured files get the next one. Serving: an uncached read is whole."""
    run = _Run(stage)
    old, _ = stage.keys[number]
    stage.proxy.faults.fail = {ANY: Failure(403, "ExpiredToken", where=lambda exchange: exchange.access_key_id == old)}
    run.detect(lambda status: "credentials-expired" in codes(status), "the expired key to be seen")
    ended = time.monotonic()
    stage.use_key(number + 1)
    copied = stage.read_fresh(patience_s=LIMIT_S).result(LIMIT_S)
    read_s = time.monotonic() - ended
    run.cached_reads(ended)
    return _with(run.finish(ended), read_s, copied)


def slow_down(faults: Faults) -> None:
    """Every fifth request is put off."""
    faults.fail = {ANY: Failure(SLOW_DOWN.status, SLOW_DOWN.code, rate=0.2)}


def resets(faults: Faults) -> None:
    """One in a hundred connections is reset, within the body."""
    faults.reset = {ANY: Break(rate=0.01)}


def cut_bodies(faults: Faults) -> None:
    """Every fourth body of an object ends early, in good order."""
    faults.cut = {"GET": Break(rate=0.25)}


def broken_answers(stage: Stage, break_: Callable[[Faults], None]) -> Sample:
    """Files that were never read are read whole meanwhile. Serving: how long that took."""
    run = _Run(stage)
    stage.proxy.reset_counts()
    break_(stage.proxy.faults)
    copied = stage.read_fresh(patience_s=LIMIT_S).result(LIMIT_S)
    read = time.monotonic()
    stage.proxy.faults.clear()
    struck = sum(map(_is_broken, stage.proxy.reset_counts().exchanges))
    run.cached_reads(read)
    return replace(_with(run.finish(read), 0.0, copied), serving_s=read - run.began, struck=struck)


def _is_broken(exchange: Exchange) -> bool:
    return exchange.status == SLOW_DOWN.status or (exchange.promised or 0) > exchange.body_bytes


def latency(stage: Stage) -> Sample:
    """Each request takes 5 s: what is not cached still comes, late."""
    run = _Run(stage)
    stage.proxy.faults.latency_s = LATENCY_S
    status = run.detect(_bucket_trouble, "the latency to be seen")
    if "bucket-slow" not in codes(status):
        run.breaks(f"told as {', '.join(sorted(codes(status)))}")
    copied = stage.read_fresh(patience_s=LIMIT_S).result(LIMIT_S)
    ended = time.monotonic()
    stage.proxy.faults.latency_s = 0.0
    run.cached_reads(ended)
    return _with(run.finish(ended), 0.0, copied)


def cache_full(stage: Stage) -> Sample:
    """The cache's disk fills up, and has room again later."""
    run = _Run(stage)
    stage.disk.fill()
    run.detect(lambda status: "cache-full" in codes(status), "the full disk to be seen")
    for _ in range(3):
        run.keep(FULL_FOR_S / 3)
        stage.disk.fill()  # what rclone has made room for meanwhile
    ended = time.monotonic()
    run.cached_reads(ended)
    stage.disk.empty()
    return run.finish(ended)
