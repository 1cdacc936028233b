"""A random fault every 10 s, then a look at what is left of them: `./dev bench soak`."""

from __future__ import annotations

import argparse
import json
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.census import Census, take
from bench.machine import describe
from bench.mischief import KILL_A_WORKER, Mischief
from bench.stage import Setup, Stage, is_well
from tests.support.daemon import BUNDLED_RCLONE

MINUTES = 20.0
EVERY_S = 10.0
WARM_UP_S = 60.0
"""Of faults, before the first look: until then pools of threads and caches fill."""
END_S = 120.0
CALM_S = 60.0
"""Connections and threads that idle are given up by then."""
MEMORY_SHARE = 0.10
READER_PAUSE_S = 0.05


@dataclass(slots=True)
class Soak:
    """What was done and seen; `slowest_s` is the longest that mountd took to answer."""

    seed: int
    faults: dict[str, int] = field(default_factory=dict)
    reads: int = 0
    failed_reads: int = 0
    wrong_bytes: int = 0
    restarts: int = 0
    slowest_s: float = 0.0
    recovery_s: float = 0.0
    """from the end of the last fault until all was well"""
    before: Census | None = None
    after: Census | None = None
    left: list[str] = field(default_factory=list)
    """after the end of mountd"""
    broken: list[str] = field(default_factory=list)

    @property
    def missed(self) -> list[str]:
        """Every promise that was not kept."""
        found = list(self.broken) + self.left
        if self.wrong_bytes:
            found.append(f"{self.wrong_bytes} wrong bytes were read")
        if self.before and self.after:
            found += self.after.more_than(self.before, MEMORY_SHARE)
        return found


def run(stage: Stage, minutes: float, every_s: float, seed: int) -> Soak:
    """Faults for so long; the end of mountd is part of it."""
    found, mischief = Soak(seed), Mischief(stage, random.Random(seed))  # noqa: S311 (no secret)
    began = time.monotonic()
    while (now := time.monotonic()) < began + minutes * 60:
        if found.before is None and now >= began + min(WARM_UP_S, minutes * 30):
            found.before = _calm(stage, found, None)
        # A killed worker comes back when it is needed: in the first look it would count as one that there never was.
        name = mischief.draw() if found.before else mischief.draw(KILL_A_WORKER)
        _one(stage, mischief, name, found, every_s)
    found.after = _calm(stage, found, found.before)
    _count_reads(stage, found, began)
    stage.reads.close()
    code = stage.daemon.stop()
    if code:
        found.left.append(f"mountd ended with {code}")
    found.left += [f"left mounted: {path}" for path in stage.daemon.mounts()]
    if processes := stage.daemon.processes():
        found.left.append(f"{len(processes)} processes left running")
    return found


def _one(stage: Stage, mischief: Mischief, name: str, found: Soak, every_s: float) -> None:
    began = time.monotonic()
    print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)
    found.faults[name] = found.faults.get(name, 0) + 1
    lasts_s = mischief.lasts_s(every_s)
    try:
        mischief.begin(name)
        _look(stage, found, began + lasts_s)
        mischief.end()
        _look(stage, found, began + every_s)
    except (AssertionError, OSError, RuntimeError) as error:
        found.broken.append(f"{name}: {type(error).__name__}: {error}")
        mischief.end()


def _look(stage: Stage, found: Soak, until: float) -> None:
    for status, answer_s in stage.poll(until - time.monotonic()):
        found.slowest_s = max(found.slowest_s, answer_s)
        found.restarts = max(found.restarts, status["mounts"]["storage"]["restarts"])


def _calm(stage: Stage, found: Soak, before: Census | None) -> Census:
    """What it holds once all is well; what idles may go first."""
    began = time.monotonic()
    try:
        well, _ = stage.until(is_well, END_S, "all to be well")
        found.recovery_s = well - began
        status = stage.settle(END_S)
    except AssertionError as error:
        found.broken.append(str(error))
        status = stage.status()
    census = take(stage.daemon, status["pid"])
    while time.monotonic() < began + CALM_S:
        time.sleep(1.0)
        later = take(stage.daemon, status["pid"])
        census = census.least(later)
        if before is not None and not census.more_than(before, MEMORY_SHARE):
            break
        if before is None and time.monotonic() > began + EVERY_S:
            break
    return census


def _count_reads(stage: Stage, found: Soak, began: float) -> None:
    reads = stage.reads.since(began)
    found.reads = len(reads)
    found.failed_reads = sum(read.outcome != "ok" for read in reads)
    found.wrong_bytes = sum(read.wrong_bytes for read in reads)


def _reported(found: Soak) -> str:
    faults = ", ".join(f"{name} {count}" for name, count in sorted(found.faults.items()))
    lines = [
        f"{sum(found.faults.values())} faults (seed {found.seed}): {faults}",
        f"{found.reads} reads, {found.failed_reads} of them failed, {found.wrong_bytes} wrong bytes",
        f"the mount was replaced {found.restarts} times; all was well {found.recovery_s:.1f} s after the last fault",
        f"the slowest answer of mountd took {found.slowest_s:.2f} s",
    ]
    if found.before and found.after:
        lines += [f"{'':24}{'after a minute':>16}{'at the end':>16}"]
        rows = zip(found.before.shown(), found.after.shown(), strict=True)
        lines += [f"{name:24}{first:>16}{last:>16}" for (name, first), (_, last) in rows]
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, metavar="N", help=f"default {MINUTES:g}")
    parser.add_argument(
        "--every", type=float, default=EVERY_S, metavar="S", help=f"seconds a fault, default {EVERY_S:g}"
    )
    parser.add_argument("--seed", type=int, default=None, help="the same faults in the same order as that run had")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--rclone", type=Path, default=BUNDLED_RCLONE, metavar="PATH", help="which rclone to use")
    given = parser.parse_args(words)
    machine = describe(given.rclone)
    faults = int(given.minutes * 60 / given.every) + 2
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    with Stage(Setup(fresh=faults, keys=faults, pause_s=READER_PAUSE_S, rclone=given.rclone)) as stage:
        found = run(stage, given.minutes, given.every, seed)
        if found.missed:
            log = stage.keep_log(Path(tempfile.gettempdir(), "mountd-bench-logs"))
            print(f"log: {log}", file=sys.stderr)
    print(_reported(found))
    print(f"{machine['date']}, {machine['text']}")
    if given.json:
        document: dict[str, Any] = {"schema": 1, "machine": machine, **asdict(found), "missed": found.missed}
        given.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    for what in found.missed:
        print(f"missed: {what}")
    return 1 if found.missed else 0
