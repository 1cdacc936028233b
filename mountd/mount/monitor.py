"""The watch over a mount that runs: each question at its own pace, all answers into one verdict."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Set
from dataclasses import replace

from mountd.cache.bypass import Looks, may_bypass
from mountd.errors import CannotStart, DiskError, Exhausted, MountdError
from mountd.fuse.unmount import unanswered
from mountd.fuse.watch import TableWatch
from mountd.mount import stalls
from mountd.mount.bucket import NOOP_S, TIMEOUT_S
from mountd.mount.health import STALL_S, Beats, Facts, Reads, Silence, Stall, Verdict, verdict
from mountd.mount.parts import Parts
from mountd.process.steady import keep
from mountd.process.supervisor import MustReplace, ShouldRestart
from mountd.rclone.conf_file import SecretChange
from mountd.rclone.failures import classify
from mountd.status.snapshot import CacheStatus, Health, Reason, State

ASK_INTERVAL_S = 1.0
"""Between two questions to a bucket that does not answer."""
TROUBLE_INTERVAL_S = 2.0
"""Errors that rclone logs make the next question come early, but not more often than this."""
STATS_INTERVAL_S = 10.0
TURN_S = 0.5
"""Whoever asks the bucket in place of a health question is answered by then, or it is asked beside him."""
READERS_INTERVAL_S = 5.0
FAILING_INTERVAL_S = 2.0
"""While reads have begun to fail: a few more of them, and it is told."""
SECRETS_INTERVAL_S = 2.0
LOOK_LIMIT_S = 10.0
OF_A_READ = "vfs reader: "
"""In what rclone counts as errors: those of uploads are told by `Uploads`."""
STALL_TOLD_S = 15.0
"""A read that waits as long is told; it is rclone's to give up on it first."""
LISTING_TOLD_S = STALL_S


class Watching:
    """`condemn` keeps the evidence of a verdict; after it the mount is given up."""

    def __init__(self, parts: Parts, condemn: Callable[[Verdict, str], Awaitable[None]]) -> None:
        self._parts = parts
        self._condemn = condemn
        self._facts = Facts()
        self._told: Reason | None = None
        self._lacks: dict[str, Exhausted] = {}  # by question: what the machine lacks to put it

    async def run(self) -> None:
        """Until cancelled. Raises MustReplace, ShouldRestart."""
        self._facts, self._lacks = Facts(bucket=self._parts.backend.status), {}
        await _all_of(
            self._kept(self._beats),
            self._kept(self._bucket),
            self._kept(self._table),
            self._kept(self._stats),
            self._kept(self._cache_directory),
            self._kept(self._readers),
            self._kept(self._secrets),
        )

    async def _kept(self, question: Callable[[], Coroutine[None, None, None]]) -> None:
        """What the machine does not let us ask says nothing of the mount, which serves: it is told and asked again."""

        def tell(lack: Exhausted | None) -> None:
            if lack is None:
                self._lacks.pop(question.__name__, None)
            else:
                self._lacks[question.__name__] = lack
            found = verdict(self._facts, failures=self._parts.mount.health.failures, now=time.monotonic())
            if not found.replaces:
                self._tell(found, time.monotonic())

        await keep(question, tell)

    async def while_it_beats(self, work: Coroutine[None, None, None]) -> None:
        """Ends `work` when rclone hangs meanwhile: by itself it would wait for its own, much longer deadlines.

        Raises what `work` raises, and CannotStart when it is hung or dead.
        """
        self._facts = Facts()
        try:
            async with asyncio.TaskGroup() as group:
                beating = group.create_task(self._beats())
                await work
                beating.cancel()
        except BaseExceptionGroup as failures:
            failure = _gravest(failures)
            if isinstance(failure, MustReplace):
                raise CannotStart(failure.text, code="mount-hung") from None
            raise failure from None

    # -- one verdict ----------------------------------------------------------------------------------------------

    async def _learn(self, **facts: object) -> None:
        """Raises MustReplace when nothing serves there any more."""
        self._facts = replace(self._facts, answers=self._parts.backend.answers, **facts)  # type: ignore[arg-type]
        parts, now = self._parts, time.monotonic()
        failures = parts.mount.health.failures
        found = verdict(self._facts, failures=failures, now=now)
        if found.replaces:
            text = _in_words(found, self._facts, parts.name, failures, now)
            await self._condemn(found, text)
            raise MustReplace(text)
        self._tell(found, now)

    def _tell(self, found: Verdict, now: float) -> None:
        reason, name = self._parts.bypass.reason or self._parts.uploads.trouble, self._parts.name
        if found is Verdict.SUSPECTED:
            hint = "rclone itself answers: it may wait for its bucket" if self._facts.silence.awake else ""
            reason = Reason("mount-silent", f"mount {name} did not answer", "mount", name, hint)
        elif (stuck := _stuck(self._facts, name, now)) and reason is None:
            reason = stuck
        elif self._lacks and reason is None:
            lack = next(iter(self._lacks.values()))
            reason = Reason(lack.code, f"cannot look after mount {name}: {lack.text}", "mount", name, lack.hint)
        elif self._facts.reads.failing and reason is None:
            failure = classify(self._facts.reads.cause)
            text = f"reads through mount {name} fail, although the bucket can be listed: {failure.text}"
            reason = Reason("reads-failing", text, "mount", name, failure.hint)
        if reason == self._told:
            return
        self._told = reason
        running = self._parts.status.state is State.RUNNING
        health = Health.DEGRADED if reason else Health.HEALTHY if running else Health.PROGRESSING
        self._parts.publish(lambda status: replace(status, health=health, reason=reason))

    # -- the questions --------------------------------------------------------------------------------------------

    async def _beats(self) -> None:
        while True:
            began, before = time.monotonic(), self._facts.beats
            beats, awake = await self._ask_beat(before)
            await self._learn(
                beats=beats, silence=Silence(self._facts.silence.since if before.missed else began, awake)
            )
            # After a silence the next question comes at once; but one that a stuck worker could not even put counts
            # as a silence only after as long a time.
            pause_s = self._parts.mount.health.interval
            if beats.missed:
                pause_s = began + self._parts.mount.health.timeout - time.monotonic()
            await asyncio.sleep(max(0.0, pause_s))

    async def _ask_beat(self, before: Beats) -> tuple[Beats, bool]:
        """One more beat; and when it is late, and may be for the bucket's sake, whether rclone itself is awake."""
        parts = self._parts
        if not parts.backend.is_asked_for_room:
            return await parts.beat.ask(before), False
        asking = asyncio.create_task(parts.beat.ask(before))
        try:
            answered, _ = await asyncio.wait({asking}, timeout=parts.beat.timeout_s / 2)
            if answered and not asking.result().missed:
                return asking.result(), False
            parts.engine.trouble.set()  # perhaps for the bucket: ask it now
            awake = await parts.backend.rclone_answers(min(NOOP_S, parts.beat.timeout_s / 2))
            return await asking, awake
        finally:
            asking.cancel()

    async def _bucket(self) -> None:
        parts = self._parts
        while True:
            began = time.monotonic()
            usable = await parts.ask_backend(TIMEOUT_S)
            await self._learn(bucket=parts.backend.status)
            if not usable and parts.backend.is_refusing and await parts.engine.has_stale_secrets():
                raise ShouldRestart("the store refuses the old credentials: starting again with the new ones")
            if parts.engine.signs_with_old_secret(usable=usable):
                raise ShouldRestart("rclone goes on with the old secret of its key: starting again with the new one")
            if usable:
                pause_s = parts.mount.health.backend
                if parts.backend.status.reason:  # it is slow: that it is quick again is seen as soon as any change
                    pause_s = max(ASK_INTERVAL_S, pause_s - ASK_INTERVAL_S - (time.monotonic() - began))
                await self._until_time(pause_s)
                await asyncio.sleep(max(0.0, TROUBLE_INTERVAL_S - (time.monotonic() - began)))
            else:
                await asyncio.sleep(ASK_INTERVAL_S)

    async def _until_time(self, pause_s: float) -> None:
        """Until it is time to ask: after `pause_s` seconds, as long as nobody else asks then and is answered soon."""
        trouble = self._parts.engine.trouble
        while not await self._is_trouble(pause_s):
            turn = None if self._parts.backend.status.reason else self._parts.turns.give()
            if turn is None or not await turn.is_answered(TURN_S) or trouble.is_set():
                return

    async def _is_trouble(self, limit_s: float) -> bool:
        """Whether rclone logs an error within `limit_s` seconds."""
        trouble = self._parts.engine.trouble
        trouble.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await trouble.wait()
        return trouble.is_set()

    async def _table(self) -> None:
        gone = asyncio.Event()
        beat = self._parts.beat
        watch = TableWatch(lambda entries: None if beat.entry(entries) else gone.set())
        watch.start()
        try:
            if beat.entry():
                await gone.wait()
        finally:
            watch.close()
        await self._learn(beats=Beats(gone=f"{self._parts.path} was unmounted by somebody else"))

    async def _stats(self) -> None:
        parts = self._parts
        while True:
            stats: Mapping[str, object] | None = None
            with contextlib.suppress(MountdError):
                stats = await parts.engine.rc.vfs_stats(timeout_s=parts.mount.health.timeout)
            if stats is not None:
                self._publish_cache(cache_status(stats))
                parts.uploads.noticed(stats)
                await parts.uploads.report_stranded()
                lies = parts.needs_cache and "diskCache" not in stats
                await self._learn(lie="its disk cache is off" if lies else "")
            await asyncio.sleep(STATS_INTERVAL_S)

    def _publish_cache(self, cache: CacheStatus) -> None:
        self._parts.publish(lambda status: replace(status, cache=cache))

    def _publish_cache_broken(self, broken: bool) -> None:
        self._parts.publish(lambda status: replace(status, cache_broken=broken))

    async def _cache_directory(self) -> None:
        """Whether it can be used; rclone goes on without it when reads fail for its sake, and goes back to it.

        The remount waits while the bucket gives nothing, for a new rclone could not serve anything then; and the way
        back, which is not urgent, while an operation runs.
        """
        parts, bypass = self._parts, self._parts.bypass
        looks, waits = Looks(), False
        while True:
            await asyncio.sleep(looks.pause_s)
            before = bypass.found
            found = await parts.cache.look(bypassed=bypass.active, strict=bypass.is_strict)
            if found and (before is None or before.code != found.code):
                parts.log.warning("cache cannot be used", cause=found.text, hint=found.hint)
            elif before and found is None:
                parts.log.info("cache can be used again")
            looks = bypass.look(looks, time.monotonic(), found)
            waits_for_it = bypass.active and not may_bypass(parts.mount)
            self._publish_cache_broken(found is not None or waits_for_it)
            await self._learn()
            cause = bypass.restart(looks, time.monotonic(), parts.mount)
            if cause and await parts.ask_backend(TIMEOUT_S):
                if bypass.active and parts.board.snapshot.operations:
                    continue
                bypass.decide(looks)
                raise ShouldRestart(cause)
            if cause and not waits:
                parts.log.info("the remount waits for the bucket", cause=cause)
            waits = bool(cause)

    async def _secrets(self) -> None:
        """New keys reach rclone, and tokens that it renewed are kept, whatever the configuration file says.

        What only a new rclone reads waits while the bucket is away: a new one could not serve what is cached.
        """
        parts, told = self._parts, False
        while True:
            await asyncio.sleep(SECRETS_INTERVAL_S)
            if await parts.engine.refresh_secrets() is not SecretChange.REMOUNT:
                continue
            if await parts.could_begin():
                raise ShouldRestart("a secret has changed that only a new rclone reads")
            if not told:
                parts.log.info("a secret has changed, and the remount waits for the bucket")
            told = True

    async def _readers(self) -> None:
        """Readers that the beat does not see: our own look at the root, and the threads of the apps."""
        looking: asyncio.Task[None] | None = None
        looked = time.monotonic()
        # What is counted from here on happened while it runs.
        await self._learn(reads=(await self._look_at_readers())["reads"])
        try:
            while True:
                fails = self._facts.reads.last > self._facts.reads.first
                await asyncio.sleep(FAILING_INTERVAL_S if fails else READERS_INTERVAL_S)
                if looking is None or (
                    looking.done() and time.monotonic() - looked >= self._parts.mount.health.backend
                ):
                    looked, looking = time.monotonic(), asyncio.create_task(self._look_at_root())
                await self._learn(**await self._look_at_readers())
        finally:
            if looking is not None:
                looking.cancel()

    async def _look_at_root(self) -> None:
        """A directory that rclone knows already: no request to the bucket, no file opened."""
        if not self._parts.looker.stuck:
            with contextlib.suppress(DiskError):
                await self._parts.looker.list(self._parts.path, limit=1, timeout_s=LOOK_LIMIT_S)

    async def _look_at_readers(self) -> dict[str, Stall | Reads]:
        """The facts about readers after one more look."""
        parts, snapshot = self._parts, self._parts.board.snapshot
        users = [name for name, app in parts.settings.apps.items() if parts.name in parts.settings.mounts_of(app)]
        pids = [app.pid for name in users if (app := snapshot.apps.get(name)) and app.pid]
        waiting = await asyncio.to_thread(stalls.waiting, pids, parts.path)
        if waiting:
            entry = None
            with contextlib.suppress(OSError):
                entry = parts.beat.entry()
            waiting = waiting.given(await unanswered(entry.minor if entry else None, NOOP_S))
        listing = set(waiting.answer)
        if parts.looker.stuck:
            listing.add(f"look/{parts.looker.pid}")
        if waiting or listing:
            parts.engine.trouble.set()  # perhaps for the bucket: ask it now
        quick = parts.backend.status.health is Health.HEALTHY
        stats: dict[str, object] = {}
        if quick:
            with contextlib.suppress(MountdError):
                stats = await parts.engine.rc.stats(timeout_s=parts.mount.health.timeout)
        now, moved_bytes, errors = time.monotonic(), _count(stats, "bytes"), _count(stats, "errors")
        cause = str(stats.get("lastError") or "")

        def look(stall: Stall, keys: Set[str]) -> Stall:
            return stall.look(now, keys, moved_bytes=moved_bytes, errors=errors, bucket_quick=quick)

        return {
            "stall": look(self._facts.stall, waiting.content),
            "listing": look(self._facts.listing, listing),
            "perhaps": look(self._facts.perhaps, waiting.unknown),
            "reads": self._facts.reads.look(
                now,
                moved_bytes=moved_bytes,
                errors=errors,
                cause=cause if OF_A_READ in cause else "",
                bucket_quick=quick and bool(stats),
            ),
        }


def _count(stats: Mapping[str, object], name: str) -> int:
    value = stats.get(name)
    return int(value) if isinstance(value, int | float) else -1


def cache_status(stats: Mapping[str, object]) -> CacheStatus:
    """What `vfs/stats` says of the cache."""
    disk = stats.get("diskCache")
    if not isinstance(disk, dict):
        return CacheStatus()
    queued = int(disk.get("uploadsQueued", 0)) + int(disk.get("uploadsInProgress", 0))
    return CacheStatus(int(disk.get("bytesUsed", 0)), int(disk.get("files", 0)), queued)


def _in_words(found: Verdict, facts: Facts, name: str, failures: int, now: float) -> str:
    if found is Verdict.DEAD:
        return f"mount {name} is dead: {facts.beats.gone}"
    if found is Verdict.LYING:
        return f"mount {name} is not what was asked for: {facts.lie}"
    if facts.is_silent(failures, now):
        return f"mount {name} is hung: {facts.beats.missed} beats unanswered"
    longest_s = max(facts.stall.lasts_s(now), facts.listing.lasts_s(now))
    return f"mount {name} is hung: a read waits for {longest_s:.0f} s although the bucket answers"


def _stuck(facts: Facts, name: str, now: float) -> Reason | None:
    """What waits for so long that it is told."""
    text, hint = f"a read through mount {name} waits, although the bucket answers", ""
    if facts.stall.lasts_s(now) >= STALL_TOLD_S:
        hint = "mountd replaces the mount when it lasts a minute"
    elif facts.listing.lasts_s(now) >= LISTING_TOLD_S:
        text = f"a listing, or what waits for one, lasts long on mount {name}"
        hint = "a directory takes one request for each 1,000 objects; mountd replaces the mount after ten minutes"
    elif facts.perhaps.lasts_s(now) >= STALL_TOLD_S:
        text = f"a program that uses mount {name} waits for something, perhaps for the mount"
        hint = "the kernel does not tell mountd for what: see with `cat /proc/PID/task/*/wchan`, as root"
    return Reason("read-stuck", text, "mount", name, hint) if hint else None


async def _all_of(*works: Coroutine[None, None, None]) -> None:
    """Together, until one fails."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as failures:
        raise _gravest(failures) from None


def _gravest(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of those that came at once: a verdict before what else may be wrong."""
    for kind in (MustReplace, ShouldRestart):
        for failure in failures.exceptions:
            if isinstance(failure, kind):
                return failure
    return failures.exceptions[0]
