"""Faults of the cache's disk: reported, survived or waited for by policy, and well again by themselves.

`detected` counts from the beginning of the fault, `serving` from its end unless it says otherwise; then what was never
read can be read, too.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from bench.figures import Sample
from bench.stage import START_S, Stage, Status, app, codes, is_well, mount
from bench.trial import LIMIT_S, Trial, with_readers
from tests.support.cache_disk import QUICK_RETURN
from tests.support.daemon import Daemon
from tests.support.machine import read_only
from tests.support.onlooker import cached_bytes
from tests.support.wait import until

LASTS_S = 6.0
"""More than one of mountd's looks at the directory, each 5 s."""

Spoil = Callable[[Stage], AbstractContextManager[Callable[[], None]]]
"""Does it, until the end of the `with`; a call sees to it that it stays so."""


def returns_soon(daemon: Daemon) -> None:
    """It tries the cache again after 10 s instead of 10 minutes."""
    daemon.program = (sys.executable, "-c", QUICK_RETURN)


def stop_the_app(daemon: Daemon) -> None:
    """The policy that keeps nothing running on a cache that cannot be used."""
    daemon.config["mounts"]["storage"]["cache"]["on_failure"] = "stop"


@contextmanager
def is_full(stage: Stage) -> Iterator[Callable[[], None]]:
    """The cache's disk; a call takes what rclone has made room for meanwhile."""
    stage.disk.fill()
    try:
        yield stage.disk.fill
    finally:
        stage.disk.empty()


@contextmanager
def is_read_only(stage: Stage) -> Iterator[Callable[[], None]]:
    """For whatever is opened there from then on."""
    with read_only(stage.cache):
        yield lambda: None


def nothing_is_missed(stage: Stage) -> Sample:
    """The cache's disk fills up, and has room again later; meanwhile nobody reads what is not cached."""
    return _meanwhile(stage, is_full, "cache-full", lambda status: True)


def app_is_stopped(stage: Stage, spoil: Spoil) -> Sample:
    """By policy, until the cache can be used. Of a read-only directory rclone opens nothing, cached or not."""
    return _meanwhile(
        stage, spoil, "waiting-for-cache", lambda status: app(status)["pid"] is None, opens=spoil is not is_read_only
    )


def _meanwhile(
    stage: Stage, spoil: Spoil, seen: str, app_is_right: Callable[[Status], bool], *, opens: bool = True
) -> Sample:
    trial = Trial(stage)
    with spoil(stage) as again:
        trial.detect(lambda status: seen in codes(status), f"{seen} to be reported")
        stage.until(app_is_right, LIMIT_S, "the policy to be carried out")
        for _ in range(3):
            trial.keep(LASTS_S / 3)
            if not app_is_right(stage.status()):
                trial.breaks("the app runs again")
            again()
        ended = time.monotonic()
        if opens:
            trial.check_cached_reads(ended)
    return _finish(stage, trial, ended)


def goes_past(stage: Stage, spoil: Spoil, seen: str) -> Sample:
    """Reads fail because of the cache. Serving: what is cached and what was never read can be read again, and the
    app has it, while the fault lasts; from then on nothing fails any more."""
    return _past(stage, spoil, seen)[0]


def comes_back(stage: Stage, spoil: Spoil, seen: str) -> Sample:
    """The same, from the end of the fault until all is well, with the cache."""
    sample, past = _past(stage, spoil, seen)
    ended = time.monotonic()
    before = mount(past)
    _, after = stage.until(is_well, LIMIT_S, "all to be well")
    serving = time.monotonic() - ended
    held = cached_bytes(stage.cache)
    copied = stage.read_fresh().result(LIMIT_S)
    broken = sample.broken or ("" if mount(after)["pid"] != before["pid"] else "it goes on without the cache")
    if not broken and cached_bytes(stage.cache) <= held:
        broken = "nothing more is cached"
    return with_readers(replace(sample, detected_s=None, serving_s=serving, broken=broken), 0.0, copied)


def _past(stage: Stage, spoil: Spoil, seen: str) -> tuple[Sample, Status]:
    """With a daemon of its own, which has its cache."""
    stage.renew().start()
    stage.settle(START_S)
    stage.read_model().result(LIMIT_S)
    before = stage.at_random()
    broken = ""
    with spoil(stage) as again:
        began = time.monotonic()
        copies = stage.read_fresh(LIMIT_S), stage.read_model(LIMIT_S)

        def is_past(status: Status) -> bool:
            again()
            others = mount(status)["pid"] != mount(before)["pid"], app(status)["pid"] != app(before)["pid"]
            return bool(status["ready"]) and all(others)

        def is_reported(status: Status) -> bool:
            again()
            return seen in codes(status)

        detected, _ = stage.until(is_reported, LIMIT_S, f"{seen} to be reported")
        _, past = stage.until(is_past, LIMIT_S, "the app to be back")
        copied = [each.result(LIMIT_S) for each in copies]
        serving, held = time.monotonic(), cached_bytes(stage.cache)
        while time.monotonic() < began + LASTS_S or time.monotonic() < serving + LASTS_S / 3:
            again()
            try:
                stage.read_model().result(LIMIT_S)
            except AssertionError as error:
                broken = f"the model {error}"
            if cached_bytes(stage.cache) > held:
                broken = "it goes on with the cache"
            if stage.status()["health"] != "Degraded":
                broken = "it is not reported any more"
    restarted = app(past)["pid"] != app(before)["pid"]
    sample = Sample(detected - began, serving - began, restarted, broken=broken)
    return with_readers(sample, 0.0, *copied), past


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
    return any(f":{inode} " in line for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines())


def _finish(stage: Stage, trial: Trial, ended: float) -> Sample:
    """And all can be read, also what nobody has read before."""
    sample = trial.finish(ended)
    return with_readers(sample, 0.0, stage.read_fresh().result(LIMIT_S), stage.read_model().result(LIMIT_S))
