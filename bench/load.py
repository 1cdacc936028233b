"""How fast a model is there, beside what others do today: `./dev bench load`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench import load_care as care
from bench import load_cases as cases
from bench import load_render as render
from bench import peers
from bench.load_figures import SCHEMA, Mark, Result, Sample, summary
from bench.load_metadata import marks as metadata_marks
from bench.load_metadata import metadata
from bench.load_rig import FOUR, Rig
from bench.machine import describe
from bench.shaping import Shape
from mountd.fuse.watch import read_table
from tests.support.daemon import BUNDLED_RCLONE

IMPORTS_S, QUICK_IMPORTS_S = 10.0, 2.0
PAIRS = 11
RAW = (*cases.RAW,)


@dataclass(frozen=True, slots=True)
class Case:
    """`tree`: which bucket, `hub` (1:10) or `many` (5,000 objects)."""

    name: str
    title: str
    run: Callable[[Rig, int], None]
    marks: tuple[Mark, ...] = ()
    rounds: int = 3
    tree: str = "hub"


def catalogue(*, quick: bool = False) -> dict[str, Case]:
    """All cases by name, in the order of the tables."""
    imports_s = QUICK_IMPORTS_S if quick else IMPORTS_S
    boot = partial(cases.boot, imports_s=imports_s)
    all_cases = (
        Case(
            "start",
            "start to “app may start”, 5,000 objects",
            cases.start,
            (
                Mark("times faster than the baseline", "mountd", 100, "start_s", ("baseline",), least=True),
                Mark("until the app is started", "mountd", 1.5, "start_s"),
            ),
            tree="many",
        ),
        Case("metadata", "metadata by the number of objects", metadata, metadata_marks(quick=quick), tree="many"),
        Case(
            "boot",
            f"cold boot to the first answer, the app imports for {imports_s:g} s",
            boot,
            (Mark("beside the limit", "mountd, data meanwhile", 1.15, over=("the limit",)),),
        ),
        Case(
            "boot-at-once", "cold boot to the first answer, the app loads at once", partial(cases.boot, imports_s=0.0)
        ),
        Case(
            "boot-four",
            f"cold boot to the first answer, four files, the app imports for {imports_s:g} s",
            partial(boot, files=FOUR, beside=False),
        ),
        Case("file", "cold read of one file", cases.one_file),
        Case(
            "shuffled",
            "shuffled mmap of a safetensors file, cold",
            cases.shuffled,
            (
                Mark("fetched of the file", "mountd", 1.3, "fetched_share"),
                Mark("times faster than the baseline", "mountd", 4, "load_s", ("baseline",), least=True),
            ),
        ),
        Case(
            "warm",
            "cold warm of all of a version",
            cases.warm,
            (
                Mark("pin, throughput of the best raw download", "mountd warm, pin", 0.9, over=RAW, least=True),
                Mark("data, throughput of the best raw download", "mountd warm, data", 0.8, over=RAW, least=True),
            ),
        ),
        Case(
            "loads",
            "the app's load when all is here, page cache dropped",
            cases.loads,
            (
                Mark("after warm, beside local disk", "mountd, after warm data", 1.5, "load_s", ("local disk",)),
                Mark("after a read, beside local disk", "mountd, after a read", 1.5, "load_s", ("local disk",)),
                Mark("pinned, beside local disk", "mountd, pinned", 1.05, "load_s", ("local disk",)),
            ),
            rounds=PAIRS,
        ),
        Case(
            "second",
            "the second load",
            cases.second,
            tuple(
                mark
                for who in cases.SECOND
                for mark in (
                    Mark(f"{who}: times faster than the baseline", who, 10, "load_s", ("baseline",), least=True),
                    Mark(f"{who}: fetched again", who, 0.01, "fetched_share"),
                )
            ),
        ),
        Case(
            "unopened",
            "a file that the app never opens",
            cases.unopened,
            (Mark("fetched of it", "mountd", 0, "unopened_bytes"),),
        ),
        *_pinned(),
        Case(
            "idle",
            "idle, one mount and one app",
            care.idle,
            (Mark("of a core", "mountd", 0.003, "cpu_share"), Mark("memory (PSS)", "mountd", 80e6, "pss_bytes")),
            rounds=1,
        ),
        Case(
            "small",
            "the hub on a small machine",
            care.small,
            (Mark("mountd and rclone together", "profile small", 256e6, "peak_bytes"),),
            rounds=1,
        ),
    )
    return {case.name: case for case in all_cases}


def _pinned() -> tuple[Case, ...]:
    return (
        Case(
            "switch",
            "switch v22 → v23, pinned, 60 % of the bytes shared",
            care.switch_pinned,
            (Mark("fetched, beside what is new", "mountd, pinned", 1.01, "new_share"),),
        ),
        Case(
            "adopt",
            "a model that lies on disk already, adopted",
            care.adopt,
            (Mark("fetched of it", "mountd, adopts", 0, "adopted_fetched_bytes"),),
        ),
        Case(
            "offline",
            "boot with the bucket refused, the version pinned",
            care.offline,
            (Mark("until the app is started", "mountd, pinned", 3.0, "start_s"),),
        ),
        Case(
            "killed",
            "warm killed 20 times, the bucket away twice",
            care.killed,
            (Mark("fetched, beside the version", "mountd warm, data", 1.1, "fetched_share"),),
            rounds=1,
        ),
    )


def measure(
    case: Case, rounds: int, shelf: Path, rclone: Path, *, quick: bool = False, skip: Sequence[str] = ()
) -> Result:
    with _directory() as root, Rig(root, shelf, rclone, quick, case.tree, frozenset(skip)) as rig:
        try:
            case.run(rig, rounds)
        except Exception as error:  # the other cases, and the samples so far, must not be lost
            rig.samples.append(Sample("the case", 0, broken=f"{type(error).__name__}: {error}"[:300]))
        return Result(
            case.name,
            case.title,
            rig.bucket(),
            tuple(rig.samples),
            case.marks,
            rig.absent,
            f"{datetime.now(UTC):%Y-%m-%d}",
            round(os.getloadavg()[0], 2),
            round(rig.proxy_cpu, 3),
            quick,
        )


@contextmanager
def _directory() -> Iterator[Path]:
    """A new one, removed afterwards unless something is still mounted below it: the baseline's mount can be written."""
    root = Path(tempfile.mkdtemp(prefix="mountd-b-"))
    try:
        yield root
    finally:
        if not any(entry.mount_point.startswith(f"{root}/") for entry in read_table()):
            shutil.rmtree(root, ignore_errors=True)


def main(words: Sequence[str]) -> int:
    known = catalogue(quick="--quick" in words)
    parser = argparse.ArgumentParser(prog="./dev bench load", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of a small hub: a look, not a measurement")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many of each case")
    parser.add_argument("--only", action="append", choices=list(known), metavar="NAME", help=", ".join(known))
    parser.add_argument("--skip", action="append", default=[], metavar="WHO", help="leave a contestant out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default bench/results/load.json; with --quick none")
    parser.add_argument("--install", action="store_true", help="first install the peers that are missing")
    parser.add_argument("--rclone", type=Path, default=BUNDLED_RCLONE, metavar="PATH", help="which rclone to use")
    given = parser.parse_args(words)
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if given.install:
        peers.install(lambda text: print(text, file=sys.stderr, flush=True))
    target = given.json or (None if given.quick else render.FIGURES)
    began, machine = time.monotonic(), describe(given.rclone)
    found: list[Result] = []
    with _directory() as shelf:
        for case in [case for name, case in known.items() if not given.only or name in given.only]:
            rounds = given.rounds or (1 if given.quick else case.rounds)
            found.append(measure(case, rounds, shelf, given.rclone, quick=given.quick, skip=given.skip))
            print(summary(found[-1]), end="\n\n", flush=True)
            if target is not None:
                _keep(target, machine, found)
    print(f"{machine['date']}, {machine['text']}, {(time.monotonic() - began) / 60:.0f} minutes")
    missed = [f"{result.title}: {what}" for result in found for what in result.missed]
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


def _keep(target: Path, machine: dict[str, str], found: Sequence[Result]) -> None:
    """What there is so far, in place of former figures of the same cases."""
    target.parent.mkdir(parents=True, exist_ok=True)
    order, now = [*catalogue()], {result.case: result for result in found}
    kept = {result.case: result for result in render.results(render.read(target))} | now
    all_cases = sorted(kept.values(), key=lambda result: order.index(result.case) if result.case in order else -1)
    document = {
        "schema": SCHEMA,
        "machine": machine,
        "shape": str(Shape()),
        "peers": peers.versions(),
        "cases": [result.as_json() for result in all_cases],
    }
    target.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    render.write_plots(all_cases, target.parent)
