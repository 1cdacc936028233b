"""Faults of the processes on this machine, each done once and measured: `fault(stage) -> Sample`."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from bench.figures import Sample
from bench.stage import Stage, Status, app, mount
from tests.support.machine import Stopped, external_unmount

LIMIT_S = 60.0
"""Until a run is given up; far above every mark."""
SERIES_PAUSE_S = 5.0


@contextmanager
def life_of(pid: int) -> Iterator[Callable[[], float]]:
    """A call that waits until process `pid` has ended and gives the moment (monotonic seconds)."""
    pidfd = os.pidfd_open(pid)

    def end() -> float:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(LIMIT_S * 1000), f"process {pid} did not end"
        return time.monotonic()

    try:
        yield end
    finally:
        os.close(pidfd)


def _replaced(before: Status) -> Callable[[Status], bool]:
    """Whether the status shows that the mount of `before` is given up."""
    pid = mount(before)["pid"]
    return lambda status: bool(mount(status)["pid"] != pid or mount(status)["state"] != "running")


class Run:
    """One run, from now on."""

    def __init__(self, stage: Stage, before: Status | None = None) -> None:
        self.stage = stage
        self.before = before or stage.at_random()
        self.began = time.monotonic()

    @property
    def pid(self) -> int:
        found: int = mount(self.before)["pid"]
        return found

    def kill(self) -> float:
        """When rclone is gone: what is read from then on comes from the next one."""
        with life_of(self.pid) as end:
            self.began = time.monotonic()
            os.kill(self.pid, signal.SIGKILL)
            return end()

    def measure(self, gone: float, settle: Callable[[], Status] | None = None) -> Sample:
        """`gone`: since when the former mount could serve nobody."""
        stage = self.stage
        detected, _ = stage.until(_replaced(self.before), LIMIT_S, "the mount to be given up")
        serving = stage.reads.first_good(gone, LIMIT_S)
        return self.sample(detected, serving, (settle or stage.settle)())

    def sample(self, detected: float, serving: float, after: Status) -> Sample:
        return Sample(
            detected_s=detected - self.began,
            serving_s=serving - self.began,
            app_restarted=app(after)["pid"] != app(self.before)["pid"],
            bytes_lost=self.stage.reads.wrong_bytes(self.began),
            errors=self.stage.reads.failed(self.began, serving),
        )


def kill(stage: Stage) -> Sample:
    run = Run(stage)
    return run.measure(run.kill())


def kill_again(stage: Stage) -> Sample:
    """One of a series: the next comes 5 s after this one, whatever state the app is in."""

    def rest() -> Status:
        time.sleep(max(0.0, run.began + SERIES_PAUSE_S - time.monotonic()))  # the pace of the series
        return stage.status()

    _, before = stage.until(lambda status: mount(status)["state"] == "running", LIMIT_S, "the mount to run")
    run = Run(stage, before)
    return run.measure(run.kill(), rest)


def stop(stage: Stage) -> Sample:
    run = Run(stage)
    with Stopped(run.pid):
        return run.measure(time.monotonic())


def unmount(stage: Stage, how: Literal["fusermount3", "umount"]) -> Sample:
    run = Run(stage)
    external_unmount(stage.daemon.mount, how)
    return run.measure(time.monotonic())


def kill_mountd(stage: Stage) -> Sample:
    """Both of its processes, then a start: detected is when the former rclone is ended, serving when the new mount is
    `running` and read; both since the start."""
    run = Run(stage)
    daemon, former = stage.daemon, run.before["pid"]
    assert daemon.process is not None
    with life_of(run.pid) as end:
        os.kill(daemon.process.pid, signal.SIGKILL)
        os.kill(former, signal.SIGKILL)
        daemon.process.wait()
        daemon.process = None
        run.began = time.monotonic()
        daemon.start()
        gone = end()
    running, _ = stage.until(
        lambda status: status["pid"] != former and mount(status)["state"] == "running", LIMIT_S, "the new mount"
    )
    serving = max(running, stage.reads.first_good(gone, LIMIT_S))
    sample = run.sample(gone, serving, stage.settle())
    mounts, rclones = daemon.mounts(), stage.running("rclone\0mount")
    if mounts != [str(daemon.mount)] or len(rclones) != 1:
        return replace(sample, broken=f"{len(mounts)} mounts, {len(rclones)} rclones")
    return sample
