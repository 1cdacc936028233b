"""The faults of a soak, each with a beginning and an end."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from contextlib import ExitStack

from bench.stage import Stage, app, mount
from tests.support.faults import ANY, SLOW_DOWN, Break, Failure
from tests.support.machine import Stopped, external_unmount

KILL_A_WORKER = "kill a worker"


class Mischief:
    """One fault at a time: `end` follows each `begin`, and undoes what does not end by itself."""

    def __init__(self, stage: Stage, dice: random.Random) -> None:
        self._stage, self._dice = stage, dice
        self._key = 0
        self._until_end = ExitStack()
        self._all: dict[str, Callable[[], None]] = {
            "kill rclone": lambda: self._signal(mount(stage.status())["pid"], signal.SIGKILL),
            "stop rclone": self._stop_rclone,
            "kill the app": lambda: self._signal(app(stage.status())["pid"], signal.SIGKILL),
            KILL_A_WORKER: self._kill_worker,
            "fusermount3 -uz": lambda: self._unmount("fusermount3"),
            "umount -l": lambda: self._unmount("umount"),
            "outage": stage.proxy.down,
            "black hole": self._black_hole,
            "slow bucket": self._slow,
            "broken answers": self._break_answers,
            "new credentials": self._rotate,
            "switch": self._switch,
            "reload": lambda: self._signal(stage.status()["pid"], signal.SIGHUP),
        }

    def draw(self, *but: str) -> str:
        """The next fault, none of these."""
        return self._dice.choice([name for name in self._all if name not in but])

    def lasts_s(self, every_s: float) -> float:
        """A part of the time from one fault to the next."""
        return self._dice.uniform(0.2, 0.8) * every_s

    def begin(self, name: str) -> None:
        """Raises AssertionError, OSError and RuntimeError."""
        self._all[name]()

    def end(self) -> None:
        """Nothing goes wrong any more; what was changed stays so."""
        self._stage.proxy.faults.clear()
        self._stage.proxy.up()
        self._until_end.close()

    def _signal(self, pid: int | None, number: signal.Signals) -> None:
        if pid is not None:
            os.kill(pid, number)

    def _stop_rclone(self) -> None:
        if pid := mount(self._stage.status())["pid"]:
            self._until_end.enter_context(Stopped(pid))

    def _kill_worker(self) -> None:
        if workers := sorted(self._stage.running("files/worker.py")):
            self._signal(self._dice.choice(workers), signal.SIGKILL)

    def _unmount(self, how: str) -> None:
        daemon = self._stage.daemon
        if daemon.mounts():
            external_unmount(daemon.mount, "umount" if how == "umount" else "fusermount3")

    def _black_hole(self) -> None:
        self._stage.proxy.faults.black_hole = True
        self._stage.read_fresh()

    def _slow(self) -> None:
        self._stage.proxy.faults.latency_s = self._dice.uniform(0.5, 5.0)
        self._stage.read_fresh()

    def _break_answers(self) -> None:
        faults = self._stage.proxy.faults
        faults.fail = {ANY: Failure(SLOW_DOWN.status, SLOW_DOWN.code, rate=0.2)}
        faults.reset = {"GET": Break(rate=0.1)}
        self._stage.read_fresh()

    def _rotate(self) -> None:
        """The old keys are refused from now on, and the new one is in the files that the configuration refers to."""
        keys = self._stage.keys
        old = {key for key, _ in keys[: self._key + 1]}
        self._key += 1
        refused = Failure(403, "ExpiredToken", where=lambda exchange: exchange.access_key_id in old)
        self._stage.proxy.faults.fail = {ANY: refused}
        self._stage.use_key(self._key)

    def _switch(self) -> None:
        """Refused or undone is fine: what counts is what is left in the end."""
        self._stage.daemon.cli("switch", self._dice.choice(("v22", "v23")), "--no-wait")
