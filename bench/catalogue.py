"""Every fault that is measured: how it is done, how often, on what stage, and the marks it must reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from bench import faults_app, faults_bucket, faults_cache, faults_clock, faults_process, faults_start, faults_stop
from bench.figures import Mark, Sample
from bench.stage import Setup, Stage
from tests.support.faults import EXPIRED, SLOW_DOWN
from tests.support.rungs import RUNGS

CALM_PAUSE_S = 0.05
"""The reader of a fault that lasts: it need not measure to the millisecond, and takes less of the machine."""
BACKEND_S, CACHE_S = 15.0, 5.0
"""How often mountd asks for the bucket, by default, and for the cache's directory."""
RUNS = 20
LASTS_S, QUICK_LASTS_S = 60.0, 25.0

Run = Callable[[Stage, int], Sample]


@dataclass(frozen=True, slots=True)
class Fault:
    """`lane`: faults of one lane run one after the other; lanes beside the first one run at the same time."""

    name: str
    title: str
    run: Run
    marks: tuple[Mark, ...] = ()
    setup: Setup = field(default_factory=Setup)
    lane: str = ""
    runs: int = RUNS
    quick_runs: int = 2


def alone(run: Callable[[Stage], Sample]) -> Run:
    """For a fault that is the same in each run."""
    return lambda stage, _: run(stage)


CALM = Setup(pause_s=CALM_PAUSE_S, phase_s=BACKEND_S)
READING = replace(CALM, fresh=1)
FILES = replace(READING, fresh_files=40, fresh_bytes=64 * 1024, phase_s=0.0)
DISK = replace(CALM, cache_mib=160, phase_s=CACHE_S)
SCRIPTED = Setup(pause_s=CALM_PAUSE_S, scripted=True)
BARE = Setup(bare=True)
CLOCK = Setup(pause_s=CALM_PAUSE_S, clock=True, prepare=faults_clock.is_asked_often)
REPLACED = (Mark("serving_s", 1.5, share=0.99), Mark("serving_s", 3.0))
HUNG = (Mark("detected_s", 6.0), Mark("serving_s", 8.0))
BUCKET = (Mark("detected_s", 21.0), Mark("serving_s", 15.0))
DISK_SEEN = (Mark("detected_s", 7.0), Mark("serving_s", 12.0))
LATER = (Mark("serving_s", 30.0),)
TOLD = Mark("detected_s", 3.0)


def catalogue(*, quick: bool = False) -> dict[str, Fault]:
    """All faults, by name, in the order of the table; `quick` makes outages shorter."""
    faults = (*_processes(), *_bucket(QUICK_LASTS_S if quick else LASTS_S), *_cache(), *_starts(), *_app(), *_others())
    return {fault.name: fault for fault in faults}


def _processes() -> tuple[Fault, ...]:
    """These need the machine to themselves."""
    do = faults_process
    return (
        Fault("kill", "rclone SIGKILL", alone(do.kill), REPLACED, runs=180, quick_runs=10),
        Fault("kill-series", "rclone SIGKILL, every 5 s", alone(do.kill_again), REPLACED, quick_runs=4),
        Fault("stop", "rclone SIGSTOP", alone(do.stop), HUNG),
        Fault("fusermount", "fusermount3 -uz", alone(partial(do.unmount, how="fusermount3")), REPLACED),
        Fault("umount", "umount -l", alone(partial(do.unmount, how="umount")), REPLACED),
        Fault("mountd", "mountd SIGKILL, start", alone(do.kill_mountd), (Mark("serving_s", 3.0),)),
    )


def _bucket(lasts_s: float) -> tuple[Fault, ...]:
    do, stuck = faults_bucket, replace(CALM, fresh=faults_bucket.STUCK_READERS)
    outage, hole = partial(do.outage, seconds=lasts_s), partial(do.black_hole, seconds=lasts_s)
    away = (Mark("detected_s", 17.0), Mark("serving_s", 5.0))
    expired = (Mark("detected_s", 17.0), Mark("serving_s", 10.0))
    no_head = partial(do.partly, failing={"HEAD": EXPIRED}, seen="")
    no_list = partial(do.partly, failing={"LIST": SLOW_DOWN}, seen="bucket-slow")
    no_get = partial(do.partly, failing={"GET": SLOW_DOWN}, seen="reads-failing")
    slow_down, resets, cut = (
        alone(partial(do.broken_answers, break_=each)) for each in (do.slow_down, do.resets, do.cut_bodies)
    )
    return (
        Fault("outage", f"bucket down {lasts_s:g} s", alone(outage), away, CALM, "outage"),
        Fault("black-hole", f"black hole {lasts_s:g} s", alone(hole), BUCKET, stuck, "black-hole"),
        Fault("head", "HEAD fails, GET and LIST work", alone(no_head), BUCKET[1:], READING, "parts"),
        Fault("list", "LIST fails, GET and HEAD work", alone(no_list), BUCKET, READING, "parts"),
        Fault("get", "GET fails, HEAD and LIST work", alone(no_get), BUCKET[1:], READING, "parts"),
        Fault("expired", "403 ExpiredToken, new key", do.expired, expired, replace(READING, keys=2), "answers"),
        Fault("slow-down", "503 SlowDown, 20 %", slow_down, (), FILES, "answers"),
        Fault("resets", "resets, 1 %", resets, (), FILES, "answers"),
        Fault("cut-bodies", "bodies cut short, 25 %", cut, (), FILES, "answers"),
        Fault("latency", "latency 5 s a request", alone(do.latency), BUCKET, READING, "slow"),
    )


def _cache() -> tuple[Fault, ...]:
    do, stops = faults_cache, replace(DISK, prepare=faults_cache.stop_the_app)
    return (
        Fault("cache-full", "cache disk full", alone(do.cache_full), DISK_SEEN, DISK, "slow"),
        Fault("cache-stop", "cache disk full, app to stop", alone(do.cache_full_stops), DISK_SEEN, stops, "cache"),
        Fault("cache-read-only", "cache read-only", alone(do.cache_read_only), DISK_SEEN, DISK, "cache"),
        Fault("cache-removed", "cache removed", alone(do.cache_removed), (Mark("serving_s", 7.0),), DISK, "cache"),
    )


def _starts() -> tuple[Fault, ...]:
    do = faults_start
    exits = partial(do.cannot_start, spoil=do.ends_by_itself, seen="rclone-exited")
    gone = partial(do.cannot_start, spoil=do.is_gone, seen="rclone-cannot-start")
    by_itself, asked = (TOLD, Mark("serving_s", 6.0)), (TOLD, Mark("serving_s", 5.0))
    return (
        Fault("no-bucket", "bucket comes later", alone(do.no_bucket), LATER, BARE, "later"),
        Fault("no-content", "content comes later", alone(do.empty_bucket), LATER, BARE, "later"),
        Fault("no-version", "version comes later", alone(do.no_version), LATER, BARE, "later"),
        Fault("exit-0", "rclone exits 0 at once", alone(exits), by_itself, SCRIPTED, "starts"),
        Fault("exit-2", "rclone refuses its flags", alone(do.refuses_its_flags), asked, SCRIPTED, "starts"),
        Fault("no-rclone", "rclone cannot start", alone(gone), by_itself, SCRIPTED, "starts"),
    )


def _app() -> tuple[Fault, ...]:
    do, calm = faults_app, Setup(pause_s=CALM_PAUSE_S)
    children, deaf = replace(calm, prepare=do.detaches), replace(calm, prepare=do.is_deaf)
    back = (TOLD, Mark("serving_s", 5.0))
    return (
        Fault("app", "app SIGKILL", alone(do.kill), back, replace(calm, prepare=do.may_crash), "app"),
        Fault("children", "app SIGKILL, children setsid", alone(do.kill_with_children), back, children, "app"),
        Fault("deaf", "app ignores SIGTERM", alone(do.restart_deaf), back, deaf, "app"),
    )


def _others() -> tuple[Fault, ...]:
    rungs, end = len(RUNGS), faults_stop.end
    bare = replace(BARE, scripted=True)
    return (
        Fault("end", f"SIGTERM on {rungs} rungs of a start", end, (), bare, "end", RUNS * rungs, rungs),
        Fault("clock", "wall clock 1 h forth and back", faults_clock.jump, (), CLOCK, "app"),
        Fault("clock-stop", "wall clock 1 h off, rclone SIGSTOP", faults_clock.stop_after_jump, HUNG, CLOCK),
    )
