"""Faults of the cache's disk: told, survived or waited for by policy, and well again by themselves.

`detected` counts from the beginning of the fault, `serving` from its end.
"""

from __future__ import annotations

import shutil
import time

from bench.figures import Sample
from bench.stage import Stage, app, codes
from bench.trial import LIMIT_S, Trial
from tests.support.daemon import Daemon
from tests.support.machine import read_only
from tests.support.wait import until

FULL_FOR_S = 6.0
"""Twenty looks of the reader at a full disk, and one of rclone's cleaner."""


def stop_the_app(daemon: Daemon) -> None:
    """The policy that keeps nothing running on a cache that cannot be used."""
    daemon.config["mounts"]["storage"]["cache"]["on_failure"] = "stop"


def cache_full(stage: Stage) -> Sample:
    """The cache's disk fills up, and has room again later."""
    trial = Trial(stage)
    stage.disk.fill()
    trial.detect(lambda status: "cache-full" in codes(status), "the full disk to be seen")
    for _ in range(3):
        trial.keep(FULL_FOR_S / 3)
        stage.disk.fill()  # what rclone has made room for meanwhile
    ended = time.monotonic()
    trial.cached_reads(ended)
    stage.disk.empty()
    return trial.finish(ended)


def cache_full_stops(stage: Stage) -> Sample:
    """As `cache_full`, where the policy is to stop the app meanwhile."""
    trial = Trial(stage)
    stage.disk.fill()
    trial.detect(lambda status: "waiting-for-cache" in codes(status), "the app to wait for the cache")
    stage.until(lambda status: app(status)["pid"] is None, LIMIT_S, "the app to be gone")
    for _ in range(3):
        trial.keep(FULL_FOR_S / 3)
        stage.disk.fill()
    ended = time.monotonic()
    trial.cached_reads(ended)
    stage.disk.empty()
    return trial.finish(ended)


def cache_read_only(stage: Stage) -> Sample:
    """For whatever is opened there from then on."""
    trial = Trial(stage)
    with read_only(stage.cache):
        trial.detect(lambda status: "cache-not-writable" in codes(status), "the read-only cache to be seen")
        trial.keep(FULL_FOR_S)
        ended = time.monotonic()
        trial.cached_reads(ended)
    return trial.finish(ended)


def cache_removed(stage: Stage) -> Sample:
    """As `rm -rf` does it; rclone makes it again. Serving: it is locked as well, so that no other rclone takes it."""
    trial = Trial(stage)
    shutil.rmtree(stage.cache)
    until((stage.cache / "mountd.lock").exists, LIMIT_S, "the lock to be there again", every_s=0.01)
    trial.cached_reads(time.monotonic())
    return trial.finish(trial.began)
