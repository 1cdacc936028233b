"""Faults of the cache's disk: told, survived or waited for by policy, and well again by themselves.

`detected` counts from the beginning of the fault, `serving` from its end; then what was never read can be read, too.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from bench.figures import Sample
from bench.stage import Stage, Status, app, codes
from bench.trial import LIMIT_S, Trial, with_readers
from tests.support.daemon import Daemon
from tests.support.machine import read_only
from tests.support.onlooker import cached_bytes
from tests.support.wait import until

LASTS_S = 6.0
"""More than one of mountd's looks at the directory, each 5 s."""


def stop_the_app(daemon: Daemon) -> None:
    """The policy that keeps nothing running on a cache that cannot be used."""
    daemon.config["mounts"]["storage"]["cache"]["on_failure"] = "stop"


def full(stage: Stage) -> Sample:
    """The cache's disk fills up, and has room again later."""
    return _full(stage, "cache-full", lambda status: True)


def full_and_stopped(stage: Stage) -> Sample:
    """The same, where the policy is to stop the app meanwhile."""
    return _full(stage, "waiting-for-cache", lambda status: app(status)["pid"] is None)


def _full(stage: Stage, seen: str, app_is_right: Callable[[Status], bool]) -> Sample:
    trial = Trial(stage)
    stage.disk.fill()
    trial.detect(lambda status: seen in codes(status), f"{seen} to be told")
    stage.until(app_is_right, LIMIT_S, "the policy to be carried out")
    for _ in range(3):
        trial.keep(LASTS_S / 3)
        if not app_is_right(stage.status()):
            trial.breaks("the app runs again")
        stage.disk.fill()  # what rclone has made room for meanwhile
    ended = time.monotonic()
    trial.check_cached_reads(ended)
    stage.disk.empty()
    return _finish(stage, trial, ended)


def is_read_only(stage: Stage) -> Sample:
    """For whatever is opened there from then on; what is cached is to be read all the same."""
    stage.read_model().result(LIMIT_S)
    trial = Trial(stage)
    with read_only(stage.cache):
        trial.detect(lambda status: "cache-not-writable" in codes(status), "the read-only cache to be seen")
        try:
            stage.read_model().result(LIMIT_S)
        except AssertionError as error:
            trial.breaks(f"what is cached {error}")
        trial.keep(LASTS_S)
        ended = time.monotonic()
        trial.check_cached_reads(ended)
    return _finish(stage, trial, ended)


def removed(stage: Stage) -> Sample:
    """As `rm -rf` does it; rclone makes it again. Serving: it is locked as well, so that no other rclone takes it, and
    all of the model can be read."""
    stage.read_model().result(LIMIT_S)
    assert cached_bytes(stage.cache) > 0, "nothing is cached"
    trial = Trial(stage)
    until(lambda: _remove(stage.cache), LIMIT_S, "the directory to be removed", every_s=0.0)
    until(lambda: _is_locked(stage.cache / "mountd.lock"), LIMIT_S, "it to be locked again", every_s=0.01)
    model = stage.read_model().result(LIMIT_S)
    trial.check_cached_reads(time.monotonic())
    return with_readers(_finish(stage, trial, trial.began), 0.0, model)


def _remove(directory: Path) -> bool:
    """Raises OSError when rclone has just put something there."""
    shutil.rmtree(directory)
    return True


def _is_locked(path: Path) -> bool:
    """By whomever; to try it would get in mountd's way. Raises OSError when it is not there."""
    inode = os.stat(path).st_ino
    return any(f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines())


def _finish(stage: Stage, trial: Trial, ended: float) -> Sample:
    """And all can be read, also what nobody has read before."""
    sample = trial.finish(ended)
    return with_readers(sample, 0.0, stage.read_fresh().result(LIMIT_S), stage.read_model().result(LIMIT_S))
