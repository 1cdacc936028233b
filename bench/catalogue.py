"""Every fault that is measured: how it is done, how often, on what stage, and the marks it must reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from bench import faults_app, faults_bucket, faults_cache, faults_clock, faults_process, faults_start, faults_stop
from bench.figures import AppAfter, Mark, Sample
from bench.stage import Setup, Stage
from tests.support.faults import EXPIRED, NO_KEY, SLOW_DOWN, Failure
from tests.support.stages import START_STAGES, WAITING

CALM_PAUSE_S = 0.05
"""The reader of a fault that lasts: it need not measure to the millisecond, and takes less of the machine."""
BACKEND_S, CACHE_S = 15.0, 5.0
"""How often mountd asks for the bucket, by default, and for the cache's directory."""
RUNS = 20
LASTS_S, QUICK_LASTS_S = 60.0, 25.0

Run = Callable[[Stage, int], Sample]


@dataclass(frozen=True, slots=True)
class Fault:
    """`app`: what must become of it. `lane`: faults of one lane run one after the other, those without one first and
    with nothing beside them, lanes side by side."""

    name: str
    title: str
    run: Run
    marks: tuple[Mark, ...] = ()
    setup: Setup = field(default_factory=Setup)
    lane: str = ""
    app: AppAfter | None = None
    runs: int = RUNS
    quick_runs: int = 2


def same(run: Callable[[Stage], Sample]) -> Run:
    """For a fault that is the same in each run."""
    return lambda stage, _: run(stage)


CALM = Setup(pause_s=CALM_PAUSE_S, phase_s=BACKEND_S)
READING = replace(CALM, fresh=1)
FILES = replace(READING, fresh_files=40, fresh_bytes=64 * 1024, phase_s=0.0)
DISK = replace(READING, cache_mib=160, phase_s=CACHE_S)
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
    bucket = _bucket(QUICK_LASTS_S if quick else LASTS_S)
    faults = (*_processes(), *_starts(), *bucket, *_content(), *_cache(), *_app(), *_others())
    return {fault.name: fault for fault in faults}


def _processes() -> tuple[Fault, ...]:
    """These need the machine to themselves."""
    do, new = faults_process, AppAfter.RESTARTED
    by_fusermount, by_umount = (partial(do.unmount, how=how) for how in ("fusermount3", "umount"))
    started = (Mark("serving_s", 3.0),)
    return (
        Fault("kill", "rclone SIGKILL", same(do.kill), REPLACED, app=new, runs=180, quick_runs=10),
        # The next kill may come while the app still starts.
        Fault("kill-series", "rclone SIGKILL, every 5 s", same(do.kill_again), REPLACED, quick_runs=4),
        Fault("stop", "rclone SIGSTOP", same(do.stop), HUNG, app=new),
        Fault("fusermount", "fusermount3 -uz", same(by_fusermount), REPLACED, app=new),
        Fault("umount", "umount -l", same(by_umount), REPLACED, app=new),
        Fault("mountd", "mountd SIGKILL, start", same(do.kill_mountd), started, app=new),
        Fault("clock-stop", "rclone SIGSTOP, wall clock jumps", faults_clock.stop_and_jump, HUNG, CLOCK, app=new),
    )


def _starts() -> tuple[Fault, ...]:
    do, new = faults_start, AppAfter.RESTARTED
    exits = partial(do.cannot_start, spoil=do.ends_by_itself, seen="rclone-exited", words="exit code 0")
    gone = partial(do.cannot_start, spoil=do.is_gone, seen="rclone-cannot-start", words="")
    by_itself, asked = (TOLD, Mark("serving_s", 6.0)), (TOLD, Mark("serving_s", 5.0))
    held, loop = (Mark("detected_s", 30.0), Mark("serving_s", 65.0)), Setup(pause_s=CALM_PAUSE_S)
    return (
        Fault("exit-0", "rclone exits 0 for 5 s", same(exits), by_itself, SCRIPTED, "exit-0", new),
        Fault("exit-2", "rclone refuses its flags", same(do.refuses_its_flags), asked, SCRIPTED, "exit-2", new),
        Fault("no-rclone", "rclone cannot start for 5 s", same(gone), by_itself, SCRIPTED, "no-rclone", new),
        Fault("hot-loop", "rclone killed after each start", same(do.hot_loop), held, loop, "loop", new, quick_runs=1),
    )


def _bucket(lasts_s: float) -> tuple[Fault, ...]:
    do, stuck = faults_bucket, replace(CALM, fresh=faults_bucket.STUCK_READERS)
    outage, hole = partial(do.outage, seconds=lasts_s), partial(do.black_hole, seconds=lasts_s)
    away = (Mark("detected_s", 17.0), Mark("serving_s", 5.0))
    expired = (Mark("detected_s", 17.0), Mark("serving_s", 10.0))
    faults = (
        Fault("outage", f"bucket down {lasts_s:g} s", same(outage), away, CALM, "outage"),
        Fault("black-hole", f"black hole {lasts_s:g} s", same(hole), BUCKET, stuck, "black-hole"),
        *_parts(),
        Fault("expired", "403 ExpiredToken, new key", do.expired, expired, replace(READING, keys=2), "answers"),
        *(
            Fault(name, title, same(partial(do.broken_answers, break_=break_)), (), FILES, "answers")
            for name, title, break_ in (
                ("slow-down", "503 SlowDown, 20 %", do.slow_down),
                ("resets", "resets, 1 %", do.resets),
                ("cut-bodies", "bodies cut short, 25 %", do.cut_bodies),
            )
        ),
        Fault("latency", "latency 5 s a request", same(do.latency), BUCKET, READING, "slow"),
    )
    return tuple(replace(fault, app=AppAfter.STAYS) for fault in faults)


def _parts() -> tuple[Fault, ...]:
    """Which kinds of request fail, how, what mountd reports, and in which lane."""
    counting, reported = replace(READING, prepare=faults_bucket.counts_its_cache), "bucket-slow"
    parts: tuple[tuple[str, str, dict[str, Failure], str, str], ...] = (
        ("head", "HEAD fails, GET and LIST work", {"HEAD": EXPIRED}, "", "head"),
        ("head-404", "HEAD finds nothing, GET and LIST work", {"HEAD": NO_KEY}, "", "head"),
        ("list", "LIST fails, GET and HEAD work", {"LIST": SLOW_DOWN}, reported, "list"),
        ("only-get", "HEAD and LIST fail, GET works", {"HEAD": SLOW_DOWN, "LIST": SLOW_DOWN}, reported, "list"),
        ("get", "GET fails, HEAD and LIST work", {"GET": SLOW_DOWN}, "reads-failing", "get"),
    )
    return tuple(
        Fault(name, title, same(partial(faults_bucket.partly, failing=failing, seen=seen)), marks, counting, lane)
        for name, title, failing, seen, lane in parts
        for marks in [BUCKET if seen else BUCKET[1:]]
    )


def _content() -> tuple[Fault, ...]:
    do = faults_start
    return (
        Fault("no-bucket", "bucket comes later", same(do.no_bucket), LATER, BARE, "later"),
        Fault("no-content", "content comes later", same(do.empty_bucket), LATER, BARE, "later"),
        Fault("no-version", "version comes later", same(do.no_version), LATER, BARE, "later"),
    )


def _cache() -> tuple[Fault, ...]:
    do, stays, new = faults_cache, AppAfter.STAYS, AppAfter.RESTARTED
    stops = replace(DISK, prepare=do.stop_the_app)
    # What is read again has no room in what rclone could give up of the model.
    own = replace(DISK, bare=True, fresh_bytes=2 * 1024**2, prepare=do.returns_soon)
    twice = replace(own, fresh=2)
    past = (Mark("detected_s", 7.0), Mark("serving_s", 12.0))
    back, again = (Mark("serving_s", 20.0),), (Mark("serving_s", 12.0),)

    def reads(name: str, title: str, spoil: faults_cache.Spoil, seen: str) -> tuple[Fault, ...]:
        stop, go, come = (partial(each, spoil=spoil) for each in (do.app_is_stopped, do.goes_past, do.comes_back))
        go, come = partial(go, seen=seen), partial(come, seen=seen)
        return (
            Fault(f"{name}-stop", f"{title}, app to stop", same(stop), DISK_SEEN, stops, f"{name}-stop", new),
            Fault(name, f"{title}, reads fail", same(go), past, own, name, new),
            Fault(f"{name}-back", f"{title}, then well again", same(come), back, twice, f"{name}-back", new),
        )

    return (
        Fault(
            "cache-calm", "cache disk full, nothing missed", same(do.nothing_is_missed), DISK_SEEN, DISK, "slow", stays
        ),
        *reads("cache-full", "cache disk full", do.is_full, "cache-full"),
        *reads("cache-read-only", "cache read-only", do.is_read_only, "cache-not-writable"),
        Fault("cache-removed", "cache removed", same(do.removed), again, DISK, "slow", stays),
    )


def _app() -> tuple[Fault, ...]:
    do, calm = faults_app, Setup(pause_s=CALM_PAUSE_S)
    children, deaf = replace(calm, prepare=do.detaches), replace(calm, prepare=do.is_deaf)
    back, new = (TOLD, Mark("serving_s", 5.0)), AppAfter.RESTARTED
    return (
        Fault("app", "app SIGKILL", same(do.kill), back, replace(calm, prepare=do.may_crash), "app", new),
        Fault("children", "app SIGKILL, children setsid", same(do.kill_with_children), back, children, "app", new),
        Fault("deaf", "app ignores SIGTERM", same(do.restart_deaf), back, deaf, "app", new),
    )


def _others() -> tuple[Fault, ...]:
    bare = replace(BARE, scripted=True)
    ends = (
        Fault(f"end-{name}", f"SIGTERM: {name}", same(partial(faults_stop.end, reach=reach)), (), bare, lane)
        for number, reach in enumerate((*START_STAGES, *WAITING))
        for name, lane in [(reach.__name__.replace("_", "-"), f"end-{number % 2}")]
    )
    return (
        Fault("clock", "wall clock 1 h forth and back", faults_clock.jump, (), CLOCK, "app", AppAfter.STAYS),
        *ends,
    )
