"""Faults of the bucket and its credentials: rclone must stay, and what is cached go on.

`detected` counts from the beginning of the fault, `serving` from its end: nothing can be fetched before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from bench.figures import Sample
from bench.stage import VERSION, Stage, Status, codes, mount
from bench.trial import LIMIT_S, Trial, with_readers
from tests.support.daemon import Daemon
from tests.support.faults import ANY, SLOW_DOWN, Break, Exchange, Failure, Faults
from tests.support.onlooker import cached_bytes

STUCK_READERS = 3
LATENCY_S = 5.0
PARTLY_FOR_S = 15.0
"""How long a part of the requests fails: the model is read some dozen times, and what the cache holds counted once."""
PAUSE_S = 0.2
REFUSALS = (403, 404, 503)


def _bucket_trouble(status: Status) -> bool:
    return status["health"] != "Healthy" and any(reason["layer"] == "bucket" for reason in status["reasons"])


def outage(stage: Stage, seconds: float) -> Sample:
    """Connections are refused; the model has been read once, and goes on being read."""
    trial = Trial(stage)
    stage.proxy.down()
    trial.detect(_bucket_trouble, "the outage to be seen")
    trial.keep(trial.began + seconds - time.monotonic())
    ended = time.monotonic()
    trial.check_cached_reads(ended)
    stage.proxy.up()
    return trial.finish(ended)


def black_hole(stage: Stage, seconds: float) -> Sample:
    """Nothing is refused and nothing answered, while programs read what is not cached."""
    trial = Trial(stage)
    stage.proxy.faults.black_hole = True
    stuck = [stage.read_fresh(patience_s=LIMIT_S) for _ in range(STUCK_READERS)]
    trial.detect(_bucket_trouble, "the outage to be seen")
    trial.keep(trial.began + seconds - time.monotonic())
    ended = time.monotonic()
    stage.proxy.faults.black_hole = False
    copied = [reader.result(LIMIT_S) for reader in stuck]
    freed_s = time.monotonic() - ended
    return with_readers(trial.finish(ended), freed_s, *copied)


def expired(stage: Stage, number: int) -> Sample:
    """Key `number` expires, then the configured files get the next one. Serving: an uncached read is whole."""
    trial = Trial(stage)
    old, _ = stage.keys[number]
    stage.proxy.faults.fail = {ANY: Failure(403, "ExpiredToken", where=lambda exchange: exchange.access_key_id == old)}
    trial.detect(lambda status: "credentials-expired" in codes(status), "the expired key to be seen")
    ended = time.monotonic()
    stage.use_key(number + 1)
    copied = stage.read_fresh(patience_s=LIMIT_S).result(LIMIT_S)
    read_s = time.monotonic() - ended
    trial.check_cached_reads(ended)
    return with_readers(trial.finish(ended), read_s, copied)


def slow_down(faults: Faults) -> None:
    """Every fifth request is put off."""
    faults.fail = {ANY: Failure(SLOW_DOWN.status, SLOW_DOWN.code, rate=0.2)}


def resets(faults: Faults) -> None:
    """One in a hundred connections is reset, within the body."""
    faults.reset = {ANY: Break(rate=0.01)}


def cut_bodies(faults: Faults) -> None:
    """Every fourth body of an object ends early, in good order."""
    faults.cut = {"GET": Break(rate=0.25)}


def broken_answers(stage: Stage, break_: Callable[[Faults], None]) -> Sample:
    """Files that were never read are read whole meanwhile. Serving: how long that took."""
    trial = Trial(stage)
    stage.proxy.reset_counts()
    break_(stage.proxy.faults)
    copied = stage.read_fresh(patience_s=LIMIT_S).result(LIMIT_S)
    read = time.monotonic()
    stage.proxy.faults.clear()
    struck = sum(map(_is_broken, stage.proxy.reset_counts().exchanges))
    trial.check_cached_reads(read)
    return replace(with_readers(trial.finish(read), 0.0, copied), serving_s=read - trial.began, struck=struck)


def _is_broken(exchange: Exchange) -> bool:
    return exchange.status == SLOW_DOWN.status or (exchange.promised or 0) > exchange.body_bytes


def latency(stage: Stage) -> Sample:
    """Each request takes 5 s: what is not cached still comes, late."""
    trial = Trial(stage)
    stage.proxy.faults.latency_s = LATENCY_S
    status = trial.detect(_bucket_trouble, "the latency to be seen")
    if "bucket-slow" not in codes(status):
        trial.breaks(f"reported as {', '.join(sorted(codes(status)))}")
    copied = stage.read_fresh(patience_s=LIMIT_S).result(LIMIT_S)
    ended = time.monotonic()
    stage.proxy.faults.latency_s = 0.0
    trial.check_cached_reads(ended)
    return with_readers(trial.finish(ended), 0.0, copied)


def partly(stage: Stage, failing: Mapping[str, Failure], seen: str) -> Sample:
    """Some kinds of request fail, the others pass, while the whole model is read from the cache repeatedly, and
    another reader wants what is not there yet. `seen` is the reason to be reported, "" when there need not be one.

    Serving: that other reader has all. Nothing that the cache holds of the model's weights may go: then rclone would
    fetch it once more.
    """
    stage.read_model().result(LIMIT_S)
    stage.until(lambda status: _used(status) > 0, LIMIT_S, "the cache to be counted")
    trial = Trial(stage)
    used, held = _used(stage.status()), cached_bytes(stage.cache)
    stage.proxy.reset_counts()
    stage.proxy.faults.fail = failing
    other = stage.read_fresh(patience_s=LIMIT_S)
    if seen:
        trial.detect(lambda status: seen in codes(status), f"{seen} to be reported")
    copied = []
    end = time.monotonic() + PARTLY_FOR_S
    while time.monotonic() < end:
        copied.append(stage.read_model().result(LIMIT_S))
        trial.keep(PAUSE_S)
        if (now := _used(stage.status())) < used:
            trial.breaks(f"bytes_used fell from {used} to {now}")
        used = max(used, now)
    ended = time.monotonic()
    stage.proxy.faults.clear()
    trial.check_cached_reads(ended)
    copied.append(other.result(LIMIT_S))
    freed_s = time.monotonic() - ended
    sample = with_readers(trial.finish(ended), freed_s, *copied)
    stage.read_model().result(LIMIT_S)
    exchanges = stage.proxy.reset_counts().exchanges
    if again := [each for each in exchanges if each.kind == "GET" and each.key.startswith(f"{VERSION}/models/")]:
        trial.breaks(f"{len(again)} requests for what was cached, such as {again[0].key}")
    if (holds := cached_bytes(stage.cache)) < held:
        trial.breaks(f"the cache held {held} bytes, and {holds} afterwards")
    if not (struck := sum(each.status in REFUSALS for each in exchanges)):
        trial.breaks("no request was refused")
    return replace(trial.judge(sample), struck=struck)


def counts_its_cache(daemon: Daemon) -> None:
    """Each second and not each minute, so that a loss is seen."""
    daemon.config["mounts"]["storage"]["options"] = {"vfs-cache-poll-interval": "1s"}


def _used(status: Status) -> int:
    found: int = mount(status)["cache"]["bytes_used"]
    return found
