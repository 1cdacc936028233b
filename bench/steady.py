"""What a mount asks the store for while nobody uses it: `./dev bench steady`, and a short one among the tests."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.machine import describe
from bench.stage import Setup, Stage
from tests.support.daemon import BUNDLED_RCLONE
from tests.support.proxy import Counts, Proxy

MINUTES = 10.0
QUIET_S = 5.0
"""Nothing was asked for as long: what the start has begun (the app reads ahead) is over."""
QUIET_LIMIT_S = 60.0
SMALL_BYTES = 16 * 1024
"""A listing of one level, at most: what one request may cost."""


@dataclass(frozen=True, slots=True)
class Idle:
    """What passed the proxy in `seconds`, with the health question put every `interval_s`."""

    seconds: float
    interval_s: float
    requests: int
    kinds: dict[str, int]
    object_bytes: int
    largest_bytes: int

    @property
    def allowed(self) -> int:
        """One request for each interval begun; what looks at the live version does it in place of one."""
        return int(self.seconds // self.interval_s) + 1

    @property
    def missed(self) -> tuple[str, ...]:
        """Which promises were not kept."""
        found = []
        if self.object_bytes:
            found.append(f"{self.object_bytes} bytes of objects fetched")
        if self.requests > self.allowed:
            found.append(f"{self.requests} requests in {self.seconds:.0f} s, {self.allowed} are allowed")
        if not self.requests:
            found.append("the bucket was never asked: nobody would notice an outage")
        if self.largest_bytes > SMALL_BYTES:
            found.append(f"an answer of {self.largest_bytes} bytes")
        return tuple(found)


def measure(proxy: Proxy, interval_s: float, seconds: float) -> Idle:
    """Waits until all is quiet, then counts for `seconds`. Raises AssertionError when it never gets quiet."""
    _until_quiet(proxy)
    began = time.monotonic()
    proxy.reset_counts()
    time.sleep(seconds)  # that nothing happens meanwhile is what is measured
    counts = proxy.reset_counts()
    sizes = [exchange.body_bytes for exchange in counts.exchanges]
    return Idle(
        seconds=time.monotonic() - began,
        interval_s=interval_s,
        requests=sum(counts.kinds.values()),
        kinds=dict(counts.kinds),
        object_bytes=counts.object_bytes,
        largest_bytes=max(sizes, default=0),
    )


def _until_quiet(proxy: Proxy) -> None:
    deadline = time.monotonic() + QUIET_LIMIT_S
    while True:
        before: Counts = proxy.counts
        seen, moment = sum(before.kinds.values()), time.monotonic()
        while time.monotonic() < moment + QUIET_S and sum(proxy.counts.kinds.values()) == seen:
            time.sleep(0.1)
        if sum(proxy.counts.kinds.values()) == seen:
            return
        assert time.monotonic() < deadline, f"requests go on after {QUIET_LIMIT_S:g} s: {dict(proxy.counts.kinds)}"


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench steady", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, metavar="N", help=f"default {MINUTES:g}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--rclone", type=Path, default=BUNDLED_RCLONE, metavar="PATH", help="which rclone to use")
    given = parser.parse_args(words)
    machine = describe(given.rclone)
    with Stage(Setup(rclone=given.rclone)) as stage:
        stage.reads.close()  # nobody uses the mount
        interval_s = 15.0
        before = stage.settle()
        idle = measure(stage.proxy, interval_s, given.minutes * 60)
        after = stage.settle()
        same = before["mounts"]["storage"]["pid"] == after["mounts"]["storage"]["pid"]
    if given.json:
        document = {"schema": 1, "machine": machine, **asdict(idle), "missed": list(idle.missed)}
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    kinds = ", ".join(f"{count} {kind}" for kind, count in idle.kinds.items())
    print(f"idle for {idle.seconds:.0f} s: {idle.object_bytes} bytes of objects, {idle.requests} requests ({kinds}),")
    print(f"the largest answer {idle.largest_bytes} bytes; {idle.allowed} requests are allowed")
    print(f"{machine['date']}, {machine['text']}")
    missed = [*idle.missed, *([] if same else ["rclone was restarted"])]
    for what in missed:
        print(f"missed: {what}", file=sys.stderr)
    return 1 if missed else 0
