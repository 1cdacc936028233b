"""Starts that fail, each reported as what it is and without a hot loop, and content that comes later.

`detected` counts from the beginning of the fault (the start, where content is missing), `serving` from its end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from math import inf
from pathlib import Path

from bench.figures import Sample
from bench.stage import START_S, VERSION, Stage, Status, app, codes, is_well, mount
from bench.trial import LIMIT_S
from mountd.process.lifecycle import START_WINDOW_S, STARTS_PER_WINDOW, STEADY_S
from tests.support.daemon import Daemon
from tests.support.scripted_rclone import ScriptedRclone

FAILING_FOR_S = 5.0
"""Three starts, after 0, 1 and 3 s: the next one comes after 7 s."""
LOOK_S = 0.02
PACE_S = 30.0
"""From one such run to the next, as their starts count together."""
LATE_S = 0.1
"""A line of the log may be as late."""
CONTENT_PHASE_S = 15.0
"""The longest of the periods in which mountd looks for what is missing."""


def changes(daemon: Daemon) -> list[tuple[float, str]]:
    """Each state of the mount and when it began, by the log of mountd (seconds of the wall clock, in order)."""
    reported = [event for event in daemon.events("state changed") if event.get("mount") == "storage"]
    return [(datetime.fromisoformat(event["timestamp"]).timestamp(), event["state"]) for event in reported]


def starts(changed: Sequence[tuple[float, str]]) -> list[float]:
    """Each try, also of an rclone that is not there."""
    return [at for at, state in changed if state == "starting"]


def short_starts(changed: Sequence[tuple[float, str]]) -> list[float]:
    """Those that did not lead to STEADY_S seconds in `running`: each of them counts for the limit."""
    found = []
    for number, (at, state) in enumerate(changed):
        if state == "starting":
            (ran_since, then), (ended, _) = [*changed[number + 1 : number + 3], (inf, ""), (inf, "")][:2]
            if then != "running" or ended - ran_since < STEADY_S:
                found.append(at)
    return found


def most_that_count(changed: Sequence[tuple[float, str]], seconds: float) -> int:
    """The most starts within any time of this length: all that were short, and one of those that were not."""
    short, every = short_starts(changed), starts(changed)
    steady = sorted({*every} - {*short})
    return max((_within(short, at, seconds) + bool(_within(steady, at, seconds)) for at in every), default=0)


def _within(moments: Sequence[float], end: float, seconds: float) -> int:
    """How many of these, in order, lie in the time of this length that ends with `end`."""
    return bisect_right(moments, end) - bisect_right(moments, end - seconds)


# -- rclone does not stay ---------------------------------------------------------------------------------------------


def ends_by_itself(rclone: ScriptedRclone) -> None:
    """As if it had done its work: exit code 0."""
    rclone.behave("exit 0")


def is_gone(rclone: ScriptedRclone) -> None:
    """As in the middle of an upgrade of its package."""
    rclone.path.rename(rclone.path.with_suffix(".away"))


def is_back(rclone: ScriptedRclone) -> None:
    """Whatever was done to it."""
    away = rclone.path.with_suffix(".away")
    if away.exists():
        away.rename(rclone.path)
    rclone.behave("")


def cannot_start(stage: Stage, spoil: Callable[[ScriptedRclone], None], seen: str, words: str) -> Sample:
    """rclone is killed, and no other one stays for some seconds; `seen` is the reason that is to be reported, in which
    `words` stand. Nobody does anything about it but to end the cause."""

    def is_reported(status: Status) -> bool:
        return any(reason["code"] == seen and words in reason["text"] for reason in status["reasons"])

    return _starts_fail(stage, spoil, is_reported, lambda: None)


def refuses_its_flags(stage: Stage) -> Sample:
    """Exit code 2: one start, and no other until a person asks for it. Serving counts from his command."""
    real = stage.rclone.real

    def spoil(rclone: ScriptedRclone) -> None:
        rclone.behave(f"exec '{real}' \"$@\" --no-such-flag")

    def ask() -> None:
        stage.daemon.cli("restart", "storage")

    def is_reported(status: Status) -> bool:
        return "rclone-usage" in codes(status) and bool(mount(status)["state"] == "failed")

    before = len(starts(changes(stage.daemon)))
    sample = _starts_fail(stage, spoil, is_reported, ask)
    more = len(starts(changes(stage.daemon))) - before
    return sample if more == 2 else replace(sample, broken=f"{more} starts, where one is refused and one asked for")


def _starts_fail(
    stage: Stage,
    spoil: Callable[[ScriptedRclone], None],
    is_reported: Callable[[Status], bool],
    ask: Callable[[], None],
) -> Sample:
    before = stage.at_random()
    spoil(stage.rclone)
    try:
        began = time.monotonic()
        os.kill(mount(before)["pid"], signal.SIGKILL)
        detected, _ = stage.until(is_reported, LIMIT_S, "the cause to be reported")
        for _ in stage.poll(began + FAILING_FOR_S - time.monotonic()):
            pass
    finally:
        is_back(stage.rclone)
    ended = time.monotonic()
    ask()
    sample = _back(stage, before, began, ended)
    time.sleep(max(0.0, began + PACE_S - time.monotonic()))  # the pace of these runs
    return replace(sample, detected_s=detected - began)


def hot_loop(stage: Stage) -> Sample:
    """Each start succeeds, so that the next one comes at once, and rclone is killed as soon as it runs: until mountd
    holds it up. Detected: from the first kill; serving: from then on, with nobody asking for it."""
    before = stage.at_random()
    began = time.monotonic()
    deadline = began + START_WINDOW_S
    while mount(status := stage.status())["state"] != "backoff":
        assert time.monotonic() < deadline, "it was never held up"
        if mount(status)["state"] == "running":
            with contextlib.suppress(ProcessLookupError):
                os.kill(mount(status)["pid"], signal.SIGKILL)
        time.sleep(LOOK_S)
    ended = time.monotonic()
    texts = [reason["text"] for reason in status["reasons"]]
    sample = replace(_back(stage, before, began, ended), detected_s=ended - began)
    if not any(f"it has started {STARTS_PER_WINDOW} times" in text for text in texts):
        return replace(sample, broken=f"reported as {'; '.join(texts)}")
    return sample


def _back(stage: Stage, before: Status, began: float, ended: float) -> Sample:
    """Once all is well again."""
    healthy, _ = stage.until(is_well, LIMIT_S, "all to be well")
    serving = max(healthy, stage.reads.first_good(ended, LIMIT_S))
    after = stage.settle()
    most = most_that_count(changes(stage.daemon), START_WINDOW_S - LATE_S)
    return Sample(
        serving_s=serving - ended,
        app_restarted=app(after)["pid"] != app(before)["pid"],
        bytes_lost=stage.reads.wrong_bytes(began),
        errors=stage.reads.failed(began, serving),
        broken="" if most <= STARTS_PER_WINDOW else f"{most} starts within {START_WINDOW_S:g} s",
    )


# -- content that comes later -----------------------------------------------------------------------------------------


@contextmanager
def _aside(path: Path, *, empty: bool = False) -> Iterator[Callable[[], None]]:
    """Takes a directory away, or what is in it; a call brings it back, as does the end of the `with`."""
    aside = path.with_name(f".{path.name}.aside")
    path.rename(aside)
    if empty:
        path.mkdir()

    def bring_back() -> None:
        if aside.exists():
            if empty:
                path.rmdir()
            aside.rename(path)

    try:
        yield bring_back
    finally:
        bring_back()


def no_bucket(stage: Stage) -> Sample:
    with _aside(stage.source) as bring:
        return _comes_later(stage, "bucket-missing", bring)


def empty_bucket(stage: Stage) -> Sample:
    with _aside(stage.source, empty=True) as bring:
        return _comes_later(stage, "waiting-for-content", bring)


def no_version(stage: Stage) -> Sample:
    """Another one is there."""
    with _aside(stage.source / VERSION) as bring:
        return _comes_later(stage, "waiting-for-content", bring)


def _comes_later(stage: Stage, seen: str, bring: Callable[[], None]) -> Sample:
    """The first start of a machine, before what it is to serve is there. Serving: ready, and all of it read."""
    daemon, broken = stage.renew(), ""
    began = time.monotonic()
    daemon.start()
    detected, _ = stage.until(lambda status: seen in codes(status), START_S, f"{seen} to be reported")
    for status, _ in stage.poll(stage.dice.uniform(0.0, CONTENT_PHASE_S)):
        if status["ready"] or app(status)["pid"] is not None:
            broken = "the app was started before the content was there"
        if seen not in codes(status):
            broken = f"reported as {', '.join(sorted(codes(status)))}"
    rclone = mount(stage.status())["pid"]
    ended = time.monotonic()
    bring()
    _, after = stage.until(is_well, LIMIT_S, "all to be well")
    copied = stage.read_model().result(LIMIT_S)
    serving = time.monotonic()
    if mount(after)["pid"] != rclone or mount(after)["restarts"] or app(after)["restarts"]:
        broken = "something was restarted"
    return Sample(detected - began, serving - ended, False, copied.wrong_bytes, copied.errors, broken=broken)
