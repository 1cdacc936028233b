"""What a switch costs beside the app's own stop and start: `./dev bench switch`.

The app alone, a switch and a rollback take turns, on one mount and with one command line, all versions warm.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from bench.machine import describe
from bench.stage import Setup, Stage, is_well
from bench.switching import Turn, as_json, down_s, missed, rows, table
from mountd.client import api
from tests.support import dies_with_us, hold_port
from tests.support.daemon import BUNDLED_RCLONE

RUNS = 20
LOAD_S = 0.5
READY_S, STOP_S = 60.0, 20.0
LOOK_S = 0.01
"""More often than mountd looks, so that the app alone is measured at its best."""
COMMAND_LIMIT_S = 300.0


class Alone:
    """The app as mountd runs it, without mountd: the same words, variables, directory and question, another port."""

    def __init__(self, stage: Stage) -> None:
        settings, daemon = stage.daemon.config["apps"]["webui"], stage.daemon
        self._stack = ExitStack()
        self._port = self._stack.enter_context(hold_port()).getsockname()[1]
        own = str(daemon.web_port)
        self._command = [str(self._port) if word == own else word for word in settings["command"]]
        self._path = urlsplit(settings["ready"]["http"]).path
        self._signal = signal.Signals[settings["stop"]["signal"]]
        self._directory = settings["directory"]
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **settings["environment"]}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._stack.callback(self._kill)
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stack.close()

    def restart(self) -> float:
        """Seconds from its stop signal until it is ready again. Raises AssertionError."""
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(self._signal)
        self._process.wait(STOP_S)
        self._start()
        return time.monotonic() - began

    def _start(self) -> None:
        self._process = subprocess.Popen(
            dies_with_us(self._command),
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + READY_S
        while not self._answers():
            assert self._process.poll() is None, f"the app ended with {self._process.returncode}"
            assert time.monotonic() < deadline, f"the app is not ready after {READY_S:g} s"
            time.sleep(LOOK_S)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=READY_S)
        try:
            connection.request("GET", self._path)
            return connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def measure(runs: int, rclone: Path, load_s: float) -> list[Turn]:
    """So many turns, after one that fills the caches. Raises AssertionError when something does not work."""
    with Stage(Setup(rclone=rclone, webui=("--load-seconds", f"{load_s:g}"))) as stage:
        stage.reads.close()  # nobody else uses the mount
        with Alone(stage) as alone:
            turns = [_turn(stage, alone, number) for number in range(runs + 1)]
    return turns[1:]


def _turn(stage: Stage, alone: Alone, number: int) -> Turn:
    alone_s = alone.restart() if number % 2 == 0 else 0.0
    switch_s, switch_command_s = _operate(stage, "switch", "v22")
    rollback_s, rollback_command_s = _operate(stage, "rollback")
    # First in one turn and last in the next: whatever drifts hits all alike.
    turn = Turn(alone_s or alone.restart(), switch_s, rollback_s, switch_command_s, rollback_command_s)
    reported = ", ".join(
        f"{name.removesuffix('_s').replace('_', ' ')} {value:.2f} s" for name, value in asdict(turn).items()
    )
    print(f"{number or 'not counted'}: {reported}", file=sys.stderr, flush=True)
    return turn


def _operate(stage: Stage, *words: str) -> tuple[float, float]:
    """Seconds of the app's being down, and of the whole command."""
    began = time.monotonic()
    done = stage.daemon.cli(*words, "-o", "json", timeout_s=COMMAND_LIMIT_S)
    lasted_s = time.monotonic() - began
    assert done.code == 0, f"`mountd {' '.join(words)}` ended with {done.code}: {done.err}"
    history = api.get(str(stage.daemon.socket), f"/api/v1/history/{done.json['id']}")
    stage.until(is_well, READY_S, "all to be well")
    return down_s(history["steps"]), lasted_s


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench switch", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help=f"turns of each, default {RUNS}")
    parser.add_argument(
        "--load-seconds",
        type=float,
        default=LOAD_S,
        metavar="S",
        help=f"what the stand-in app takes longer to load, default {LOAD_S:g}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn there as well")
    parser.add_argument("--rclone", type=Path, default=BUNDLED_RCLONE, metavar="PATH", help="which rclone to use")
    given = parser.parse_args(words)
    if given.runs < 1:
        parser.error("--runs must be 1 or more")
    machine = describe(given.rclone)
    turns = measure(given.runs, given.rclone, given.load_seconds)
    if given.json:
        document = {"schema": 1, "machine": machine, **as_json(turns)}
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    print(table(rows(turns), len(turns)))
    print(f"\n{machine['date']}, {machine['text']}")
    found = missed(turns)
    for what in found:
        print(f"missed: {what}", file=sys.stderr)
    return 1 if found else 0
