"""How much of a model that the app keeps mapped is fetched again, whatever ends: `./dev bench refetch`.

Each case has a daemon, a bucket and a cache of its own, and begins when the app has mapped all of the model for the
first time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from bench.machine import describe
from mountd.demo import hub
from tests.support.daemon import BUNDLED_RCLONE, Daemon
from tests.support.mapped import CASES, PLANTED, Mapped, add_large
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3

RUNS = 3
SIZE_MIB = 60
MOST = 0.01
"""Of the model's bytes that may come from the bucket again."""
SCALE = 1 / 10_000


@dataclass(frozen=True, slots=True)
class Fetch:
    """One run: of `model_bytes` those that came again; `broken` says what was not as promised, such as a digest."""

    case: str
    model_bytes: int
    fetched_bytes: int = 0
    seconds: float = 0.0
    """until the app had all of it mapped again"""
    broken: str = ""

    @property
    def share(self) -> float:
        return self.fetched_bytes / self.model_bytes

    @property
    def missed(self) -> str:
        """Empty when all is as it must be; what was planted has to be fetched again, whatever it costs."""
        if self.broken:
            return self.broken
        is_planted = self.case in PLANTED
        return f"{self.share:.1%} fetched again" if not is_planted and self.share >= MOST else ""


def measure(case: str, size: int, rclone: Path) -> Fetch:
    do = {**CASES, **PLANTED}[case]
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mountd-b-")))
        hub.build(root / "store", ("v23",), scale=SCALE)
        bucket = root / "store" / hub.BUCKET
        add_large(bucket, size)
        store = RcloneS3(root / "store")
        stack.callback(store.close)
        proxy = stack.enter_context(Proxy(store.endpoint))
        keys = store.access_key_id, store.secret_access_key
        daemon = stack.enter_context(Daemon(proxy.endpoint, *keys, rclone=rclone))
        mapped = Mapped(daemon, bucket, proxy)
        try:
            mapped.start()
            began = time.monotonic()
            fetched = mapped.fetched(partial(do, mapped))
        except Exception as error:  # the other cases go on
            return Fetch(case, mapped.bytes, broken=f"{type(error).__name__}: {error}")
        return Fetch(case, mapped.bytes, fetched, time.monotonic() - began)


def table(found: Sequence[Fetch]) -> str:
    """For people and for Markdown: the worst run of each case."""
    lines = [
        "| case | runs | fetched again, of bytes | share | mapped again after | all bytes right |",
        "|---|---|---|---|---|---|",
    ]
    for case in dict.fromkeys(each.case for each in found):
        runs = [each for each in found if each.case == case]
        worst = max(runs, key=lambda each: each.fetched_bytes)
        seconds = max(each.seconds for each in runs)
        right = "no" if any(each.broken for each in runs) else "yes"
        fetched = f"{worst.fetched_bytes:,} of {worst.model_bytes:,}"
        lines.append(f"| {case} | {len(runs)} | {fetched} | {worst.share:.2%} | {seconds:.1f} s | {right} |")
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    names = [*CASES, *PLANTED]
    parser = argparse.ArgumentParser(prog="./dev bench refetch", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help=f"of each case, default {RUNS}")
    parser.add_argument("--size", type=int, default=SIZE_MIB, metavar="MIB", help=f"of the model, default {SIZE_MIB}")
    parser.add_argument("--only", action="append", choices=names, metavar="CASE", help=", ".join(names))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run there as well")
    parser.add_argument("--rclone", type=Path, default=BUNDLED_RCLONE, metavar="PATH", help="which rclone to use")
    given = parser.parse_args(words)
    if min(given.runs, given.size) < 1:
        parser.error("--runs and --size must be 1 or more")
    machine = describe(given.rclone)
    found = []
    for case in given.only or names:
        for number in range(given.runs):
            found.append(measure(case, given.size * 1024**2, given.rclone))
            reported = found[-1].broken or f"{found[-1].share:.2%} in {found[-1].seconds:.1f} s"
            print(f"{case} {number + 1}/{given.runs}: {reported}", file=sys.stderr, flush=True)
    if given.json:
        document = {"schema": 1, "machine": machine, "runs": [asdict(each) for each in found]}
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    print(table(found))
    print(f"\n{machine['date']}, {machine['text']}")
    missed = dict.fromkeys(f"{each.case}: {each.missed}" for each in found if each.missed)
    for what in missed:
        print(f"missed: {what}")
    return 1 if missed else 0
