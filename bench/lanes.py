"""Many faults at once: each lane is a process of its own, a few of them side by side."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.catalogue import Fault
from bench.figures import Row

BESIDE = 8
"""Lanes at a time: they wait for something most of the time."""
LOOK_S = 0.5
END_S = 90.0


def run(faults: Sequence[Fault], words: Sequence[str]) -> dict[str, Row]:
    """First those that must have the machine to themselves, then the others; by title. `words` are for each lane."""
    lanes = {lane: [fault for fault in faults if fault.lane == lane] for lane in dict.fromkeys(f.lane for f in faults)}
    quiet, others = lanes.pop("", []), lanes.values()
    with tempfile.TemporaryDirectory(prefix="mountd-b-") as directory:
        return _side_by_side([quiet] if quiet else [], 1, words, directory) | _side_by_side(
            others, BESIDE, words, directory
        )


def _side_by_side(
    lanes: Iterable[Sequence[Fault]], beside: int, words: Sequence[str], directory: str
) -> dict[str, Row]:
    found: dict[str, Row] = {}
    waiting, running = [*lanes], dict[Path, subprocess.Popen[bytes]]()
    with ExitStack() as stack:
        while waiting or running:
            while waiting and len(running) < beside:
                lane = waiting.pop(0)
                result = Path(directory, f"{lane[0].name}.json")
                running[result] = _start(lane, [*words, "--json", str(result)])
                stack.callback(_end, running[result])
            for result, process in [*running.items()]:
                if process.poll() is not None:
                    del running[result]
                    found |= _rows(result)
            time.sleep(LOOK_S)
    return found


def _start(lane: Sequence[Fault], words: Sequence[str]) -> subprocess.Popen[bytes]:
    """A process: the proxies of two lanes would share one interpreter."""
    chosen = [word for fault in lane for word in ("--only", fault.name)]
    return subprocess.Popen([sys.executable, "-m", "bench", "recovery", *chosen, *words], stdout=subprocess.DEVNULL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Of one that is interrupted, which takes its mounts away first."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _rows(result: Path) -> dict[str, Row]:
    """Those that were measured before a lane ended, however it did."""
    if not result.exists():
        return {}
    return {each["fault"]: Row.from_json(each) for each in json.loads(result.read_text(encoding="utf-8"))["rows"]}
