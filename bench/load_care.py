"""Cases of `./dev bench load`: what is fetched at all, outages and kills, and what mountd itself costs."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from bench import peers
from bench.load_cases import PIN, WARM_LIMIT_S, fill, forget_all, started
from bench.load_rig import GPT, ORDER, Figures, Rig, power_off
from bench.machine import cpu_s, pss_bytes
from bench.peers import loader
from mountd.demo import hub
from tests.support import hold_port
from tests.support.daemon import Daemon
from tests.support.machine import children
from tests.support.wait import until

KILLS, OUTAGES = 20, 2
OUTAGE_S = 2.0
IDLE_S, QUICK_IDLE_S = 300.0, 20.0
SETTLE_S = 10.0
SAMPLE_S = 0.1
SUPERVISORS = ("supervisord", "circus")


def switch_pinned(rig: Rig, rounds: int) -> None:
    """From v22 to v23, which have all but one file in common."""

    def do() -> Figures:
        with rig.daemon("--files", "config.yaml", version="v22", warm=PIN) as daemon:
            daemon.start_ready()
            rig.proxy.reset()
            began = time.monotonic()
            done = daemon.cli("switch", "v23", timeout_s=WARM_LIMIT_S)
            assert done.code == 0, f"the switch ended with {done.code}: {done.err[-300:]}"
            lasted_s, fetched = time.monotonic() - began, rig.proxy.counts().object_bytes
            rig.load(daemon.link)
            return {"seconds": lasted_s, "new_share": fetched / rig.size(GPT)}

    for number in range(rounds):
        rig.take("mountd, pinned", number, do)


def adopt(rig: Rig, rounds: int) -> None:
    """All files of the version lie on this machine already, somewhere else."""

    def do() -> Figures:
        with rig.daemon("--files", *ORDER, warm={**PIN, "adopt": [str(rig.local)]}) as daemon:
            found = started(rig, daemon)
            rig.load(daemon.link)
            counted = rig.proxy.counts().bytes_by_object
            fetched = sum(size for key, size in counted.items() if not key.endswith(f"/{hub.MANIFEST}"))
            return {**found, "adopted_fetched_bytes": fetched}

    for number in range(rounds):
        rig.take("mountd, adopts", number, do)


def offline(rig: Rig, rounds: int) -> None:
    """All killed, /run emptied, the kernel's copies gone, the bucket refused: the pinned version is served."""

    def do() -> Figures:
        with rig.daemon("--files", *ORDER, warm=PIN) as daemon:
            started(rig, daemon)
            power_off(daemon)
            forget_all(daemon)
            rig.proxy.down()
            try:
                found = started(rig, daemon)
                status = until(lambda: _degraded(daemon), 30.0, "the status to say why it is Degraded")
                assert status
            finally:
                rig.proxy.up()
            return found

    for number in range(rounds):
        rig.take("mountd, pinned", number, do)


def _degraded(daemon: Daemon) -> dict[str, Any] | None:
    status = daemon.status()
    return status if status["health"] == "Degraded" and status["reasons"] else None


def killed(rig: Rig, rounds: int) -> None:
    """A warm of level data, killed 20 times: in turns all of mountd, and the processes that fetch; with two outages."""
    dice = random.Random(0)  # noqa: S311 (no secret)

    def do() -> Figures:
        with rig.daemon("--files", "config.yaml", warm={"level": "metadata"}) as daemon:
            daemon.start_ready()
            rig.proxy.reset()
            outages = set(dice.sample(range(KILLS), OUTAGES))
            for number in range(KILLS):
                with _warming(daemon):
                    time.sleep(dice.uniform(0.1, 0.6))  # so that it strikes at any moment
                    if number in outages:
                        rig.proxy.down()
                        time.sleep(OUTAGE_S)
                    _kill(daemon, everything=number % 2 == 0)
                    rig.proxy.up()
                if daemon.process is None:
                    daemon.start()
                daemon.until_ready()
            fill(daemon, "data")
            fetched = rig.proxy.counts().object_bytes
            rig.load(daemon.link)
            return {"fetched_share": fetched / rig.size()}

    for number in range(rounds):
        rig.take("mountd warm, data", number, do)


@contextmanager
def _warming(daemon: Daemon) -> Iterator[None]:
    argv = [sys.executable, "-m", "mountd", "--socket", str(daemon.socket), "warm", "v23", "--level", "data"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _kill(daemon: Daemon, *, everything: bool) -> None:
    if everything:
        power_off(daemon)
        return
    for pid in daemon.processes():
        with contextlib.suppress(OSError):
            if "warm/worker" in _words(pid):
                os.kill(pid, signal.SIGKILL)


def _words(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
        return file.read()


def idle(rig: Rig, rounds: int) -> None:
    """One mount and one app that nobody uses: what who looks after them needs, without rclone and the app."""
    seconds = QUICK_IDLE_S if rig.quick else IDLE_S
    for number in range(rounds):
        with ExitStack() as stack:
            watched: dict[str, Callable[[], list[int]]] = {}
            daemon = stack.enter_context(rig.daemon("--files", "config.yaml"))
            daemon.start_ready()
            watched["mountd"] = partial(own_processes, daemon)
            for kind in SUPERVISORS:
                try:
                    port = stack.enter_context(hold_port()).getsockname()[1]
                    place = rig.place()
                    app = loader("serve", "--port", port, "--model_dir", place.root, "--files", "log")
                    pids = stack.enter_context(peers.supervised(place, kind, app))
                    watched[kind] = partial(list, pids)
                except peers.NotInstalled as error:
                    rig.absent[kind] = str(error)
            time.sleep(min(SETTLE_S, seconds))  # what a start has begun is over
            found = side_by_side(watched, seconds)
            for who, figures in found.items():
                rig.take(who, number, partial(dict, figures))


def own_processes(daemon: Daemon) -> list[int]:
    """mountd, its parent and its helpers: neither rclone nor the app."""
    return [pid for pid in _all_of(daemon) if not peers.is_program(pid)]


def with_rclone(daemon: Daemon) -> list[int]:
    return [pid for pid in _all_of(daemon) if not peers.is_app(pid)]


def _all_of(daemon: Daemon) -> list[int]:
    """Its parent catches what leaves it: all that it has started is below that."""
    parent = daemon.process.pid if daemon.process else 0
    return [parent, *children(parent, all_below=True)] if parent else []


def side_by_side(watched: dict[str, Callable[[], list[int]]], seconds: float) -> dict[str, Figures]:
    """Of the same seconds: the share of a core, and the memory at the end."""
    before = {who: cpu_s(pids()) for who, pids in watched.items()}
    began = time.monotonic()
    time.sleep(seconds)  # that nothing happens meanwhile is what is measured
    lasted_s = time.monotonic() - began
    return {
        who: {
            "cpu_share": (cpu_s(pids()) - before[who]) / lasted_s,
            "pss_bytes": float(pss_bytes(pids())),
            "processes": float(len(pids())),
        }
        for who, pids in watched.items()
    }


class Peak:
    """The most memory that processes held together, looked at ten times a second until the end of a `with`."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self.bytes = 0
        self._pids, self._end = pids, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._end.wait(SAMPLE_S):
            self.bytes = max(self.bytes, pss_bytes(self._pids()))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)


def small(rig: Rig, rounds: int) -> None:
    """The cold load of the hub: the most that mountd, its helpers and rclone hold at a time, without the app."""

    def do(profile: str) -> Figures:
        with rig.daemon("--files", *ORDER) as daemon:
            daemon.config["mounts"]["storage"]["profile"] = profile
            if profile == "small":
                rig.need(daemon, "status")
            with Peak(partial(with_rclone, daemon)) as peak:
                found = started(rig, daemon)
            return {"load_s": found["load_s"], "peak_bytes": float(peak.bytes)}

    for number in range(rounds):
        rig.round(number, [(f"profile {profile}", partial(do, profile)) for profile in ("small", "model-hub")])
