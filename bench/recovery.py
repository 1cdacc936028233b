"""How long each fault takes to be noticed and to be over, against the marks: `./dev bench recovery`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench import lanes
from bench.catalogue import Fault, catalogue
from bench.figures import Row, Sample, judged, table
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
            except Exception as error:  # a stage may fail in many ways, and the other faults go on
                samples.append(Sample(broken=f"mountd did not come up: {error}"))
                _report(fault, len(samples), runs, samples[-1])
                continue
            for number in range(runs - len(samples)):
                try:
                    samples.append(judged(fault.run(stage, number), fault.app))
                except Exception as error:  # the other runs, and the figures so far, must not be lost
                    samples.append(Sample(broken=f"{type(error).__name__}: {error}"))
                _report(fault, len(samples), runs, samples[-1])
                if samples[-1].broken:
                    print(f"  log: {stage.keep_log(logs) or 'none'}", file=sys.stderr, flush=True)
                    break
        if len(samples) >= runs:
            break
    return Row(fault.title, tuple(samples), fault.marks, os.getloadavg()[0])


def _report(fault: Fault, number: int, runs: int, sample: Sample) -> None:
    reported = [
        f"{name} {value:.2f} s" for name in ("detected_s", "serving_s") if (value := getattr(sample, name)) is not None
    ]
    if sample.struck:
        reported.append(f"{sample.struck} requests refused or broken")
    if sample.broken:
        reported.append(f"BROKEN: {sample.broken}")
    print(f"{fault.name} {number}/{runs}: {', '.join(reported).replace('_s ', ' ')}", file=sys.stderr, flush=True)


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

    def keep(rows: Sequence[Row]) -> None:
        """What there is so far."""
        if given.json:
            document = {"schema": 1, "machine": machine, "seconds": round(time.monotonic() - began)}
            document["rows"] = [row.as_json() for row in rows]
            given.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")

    rows: list[Row] = []
    if len({fault.lane for fault in chosen}) == 1:
        for fault in chosen:
            runs = given.runs or (fault.quick_runs if given.quick else fault.runs)
            rows.append(measure(fault, runs, given.rclone, given.logs))
            keep(rows)
    else:
        found = lanes.run(chosen, _same(given))
        failed = (Sample(broken="the benchmark itself failed"),)
        rows = [found.get(fault.title, Row(fault.title, failed, fault.marks, 0.0)) for fault in chosen]
        keep(rows)
    print(table(rows))
    print(f"\n{machine['date']}, {machine['text']}, {(time.monotonic() - began) / 60:.0f} minutes")
    missed = [f"{row.fault}: {what}" for row in rows for what in row.missed]
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


def _same(given: argparse.Namespace) -> list[str]:
    """The words for each lane."""
    words = ["--rclone", str(given.rclone), "--logs", str(given.logs)]
    words += ["--quick"] if given.quick else []
    return words + (["--runs", str(given.runs)] if given.runs is not None else [])
