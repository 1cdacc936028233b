"""How long each fault takes to be noticed and to be over, against the marks: `./dev bench recovery`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.catalogue import Fault, catalogue
from bench.figures import Row, Sample, table
from bench.machine import describe
from bench.stage import Stage
from tests.support.daemon import BUNDLED_RCLONE

STAGE_TRIES = 3


def measure(fault: Fault, runs: int, rclone: Path, logs: Path) -> Row:
    """One after the other on one stage; after a run that failed, on a new one."""
    # Each run reads other files and, where keys expire, ends with another key.
    setup = replace(fault.setup, fresh=fault.setup.fresh * runs, keys=1 + (fault.setup.keys - 1) * runs, rclone=rclone)
    samples: list[Sample] = []
    for _ in range(STAGE_TRIES):
        with ExitStack() as stack:
            try:
                stage = stack.enter_context(Stage(setup))
            except AssertionError as error:
                samples.append(Sample(broken=f"mountd did not come up: {error}"))
                _tell(fault, len(samples), runs, samples[-1])
                continue
            for number in range(runs - len(samples)):
                try:
                    samples.append(fault.run(stage, number))
                except Exception as error:  # the other runs, and the figures so far, must not be lost
                    samples.append(Sample(broken=f"{type(error).__name__}: {error}"))
                _tell(fault, len(samples), runs, samples[-1])
                if samples[-1].broken:
                    print(f"  log: {stage.keep_log(logs)}", file=sys.stderr, flush=True)
                    break
        if len(samples) >= runs:
            break
    return Row(fault.title, tuple(samples), fault.marks, os.getloadavg()[0])


def _tell(fault: Fault, number: int, runs: int, sample: Sample) -> None:
    told = [
        f"{name} {value:.2f} s" for name in ("detected_s", "serving_s") if (value := getattr(sample, name)) is not None
    ]
    if sample.broken:
        told.append(f"BROKEN: {sample.broken}")
    print(f"{fault.name} {number}/{runs}: {', '.join(told).replace('_s ', ' ')}", file=sys.stderr, flush=True)


def main(words: Sequence[str]) -> int:
    faults = catalogue(quick="--quick" in words)
    parser = argparse.ArgumentParser(prog="./dev bench recovery", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs and short outages: a look, not a measurement")
    parser.add_argument("--runs", type=int, metavar="N", help="so many of each fault")
    parser.add_argument("--only", action="append", choices=list(faults), metavar="FAULT", help=", ".join(faults))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there as well")
    parser.add_argument("--rclone", type=Path, default=BUNDLED_RCLONE, metavar="PATH", help="which rclone to use")
    parser.add_argument("--logs", type=Path, default=Path(tempfile.gettempdir(), "mountd-bench-logs"), metavar="DIR")
    given = parser.parse_args(words)
    chosen = [fault for name, fault in faults.items() if not given.only or name in given.only]
    if given.runs is not None and given.runs < 1:
        parser.error("--runs must be 1 or more")

    began, machine = time.monotonic(), describe(given.rclone)
    rows = _run(chosen, given)
    lasted_s = round(time.monotonic() - began)
    document = {"schema": 1, "machine": machine, "seconds": lasted_s, "rows": [row.as_json() for row in rows]}
    if given.json:
        given.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(table(rows))
    print(f"\n{machine['date']}, {machine['text']}, {lasted_s / 60:.0f} minutes")
    missed = [f"{row.fault}: {what}" for row in rows for what in row.missed]
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


def _run(chosen: Sequence[Fault], given: argparse.Namespace) -> list[Row]:
    """First what must have the machine to itself, then, side by side, what mostly waits."""
    if len({fault.lane for fault in chosen}) == 1:
        return [measure(fault, _runs(fault, given), given.rclone, given.logs) for fault in chosen]
    found: dict[str, Row] = {}
    lanes = {lane: [fault for fault in chosen if fault.lane == lane] for lane in dict.fromkeys(f.lane for f in chosen)}
    with tempfile.TemporaryDirectory(prefix="mountd-b-") as directory:
        for beside in ([lane for lane in lanes if not lane], [lane for lane in lanes if lane]):
            children = []
            try:
                for lane in beside:
                    result = Path(directory, f"{lane}.json")
                    children.append((result, _child(lanes[lane], given, result)))
                for _, child in children:
                    child.wait()
            finally:
                for _, child in children:
                    child.terminate()
                    child.wait()
            for result, _ in children:
                if result.exists():
                    found |= {each["fault"]: Row.from_json(each) for each in json.loads(result.read_text())["rows"]}
    failed = (Sample(broken="the benchmark itself failed"),)
    return [found.get(fault.title, Row(fault.title, failed, fault.marks, 0.0)) for fault in chosen]


def _runs(fault: Fault, given: argparse.Namespace) -> int:
    if given.runs is not None:
        return int(given.runs)
    return fault.quick_runs if given.quick else fault.runs


def _child(lane: Sequence[Fault], given: argparse.Namespace, result: Path) -> subprocess.Popen[bytes]:
    """A process of its own: the proxies of two lanes would share one interpreter."""
    words = ["--json", str(result), "--rclone", str(given.rclone), "--logs", str(given.logs)]
    words += [word for fault in lane for word in ("--only", fault.name)]
    words += ["--quick"] if given.quick else []
    words += ["--runs", str(given.runs)] if given.runs is not None else []
    return subprocess.Popen([sys.executable, "-m", "bench", "recovery", *words], stdout=subprocess.DEVNULL)
