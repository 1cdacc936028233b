"""The cache probes, with a real directory and stand-ins for rclone and the bucket: when a mount goes on without its
cache, when it returns to it, and what is published of that."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Unpack, cast

import pytest

from mountd.cache import guard as guard_module
from mountd.cache.bypass import Bypass, CacheState
from mountd.cache.guard import CacheGuard
from mountd.cache.uploads import Uploads
from mountd.errors import FIX_RETRY_S, CannotStart, Unavailable
from mountd.mount import cache_probe
from mountd.mount.bucket import BucketProbe
from mountd.mount.cache_probe import CacheProbe, CacheStatsProbe
from mountd.mount.engine import Engine
from mountd.mount.health import FactChanges, Facts
from mountd.rclone.rc import RcClient
from mountd.rclone.stats import DiskCacheStats, VfsStats
from mountd.settings.schema import MountSettings
from mountd.status.snapshot import CacheStatus, MountStatus
from tests.support.vfs_cache import put
from tests.support.wait import until_async

SOON_S = 60.0


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy disk may need longer than what the product waits for it."""
    monkeypatch.setattr(guard_module, "LOOK_LIMIT_S", SOON_S)


WITH, OFF = VfsStats(DiskCacheStats(5, 2, 1, "/c/vfsMeta")), VfsStats(None)


class FakeEngine:
    """An rclone that says of its cache each of `answers` once, the last one for ever."""

    name = "m"

    def __init__(self, mount: MountSettings) -> None:
        self.mount = mount
        self.without_cache = False
        self.answers: list[VfsStats | None] = [WITH]

    @property
    def rc(self) -> RcClient:
        return cast(RcClient, self)

    async def vfs_stats(self, timeout_s: float) -> VfsStats:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise Unavailable("rclone does not answer")
        return answer


class FakeBucket:
    def __init__(self) -> None:
        self.usable = True
        self.probes = 0

    async def probe(self, timeout_s: float) -> bool:
        self.probes += 1
        return self.usable


class Cached:
    """The cache probe of a mount whose directory was never used, and what it has published and reported."""

    def __init__(self, cache: Path, **mount: object) -> None:
        self.cache = cache
        self.engine = FakeEngine(self.settings(**mount))
        self.bypass, self.bucket = Bypass("m"), FakeBucket()
        self.busy = False
        self.status = MountStatus("/mnt/m", "s:bkt")
        self.facts: list[FactChanges] = []
        self.guard = CacheGuard(self.engine.mount.cache, "m", self._settle)
        self.probe = CacheProbe(
            cast(Engine, self.engine),
            self.guard,
            self.bypass,
            cast(BucketProbe, self.bucket),
            self.publish,
            is_busy=lambda: self.busy,
        )

    def settings(self, **mount: object) -> MountSettings:
        cache = {"dir": self.cache, "on_failure": mount.pop("on_failure", "keep")}
        return MountSettings.model_validate({"remote": "s:bkt", "path": "/mnt/m", "cache": cache, **mount})

    async def _settle(self, then: Callable[[], None]) -> None:
        then()

    def publish(self, change: Callable[[MountStatus], MountStatus]) -> None:
        self.status = change(self.status)

    def report(self, **changes: Unpack[FactChanges]) -> Facts:
        self.facts.append(changes)
        return Facts()

    @property
    def shown(self) -> tuple[bool, bool]:
        return self.status.cache_broken, self.status.cache_bypassed

    def break_it(self) -> None:
        (self.cache / "vfsMeta").touch()

    def mend_it(self) -> None:
        (self.cache / "vfsMeta").unlink()


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cached:
    monkeypatch.setattr(guard_module, "MIN_FREE_BYTES", 1)
    return Cached(tmp_path / "c")


def use(cached: Cached) -> None:
    put(cached.cache, "s/bkt/a", dirty=False)
    if (cached.cache / "vfsMeta").is_dir():
        (cached.cache / "vfsMeta").rename(cached.cache / "former")


async def refusal(cached: Cached) -> CannotStart:
    with pytest.raises(CannotStart) as refused:
        await cached.probe.begin()
    return refused.value


# -- a start ----------------------------------------------------------------------------------------------------------


async def test_a_directory_that_is_well_is_used(cached: Cached) -> None:
    cached.engine.without_cache = True
    await cached.probe.begin()
    assert (cached.engine.without_cache, cached.shown, cached.probe.is_needed) == (False, (False, False), True)


async def test_a_directory_that_never_worked_is_a_mistake(cached: Cached) -> None:
    cached.cache.mkdir()
    cached.break_it()
    assert (await refusal(cached)).code == "cache-not-writable"
    assert not cached.bypass.active


async def test_a_start_goes_on_without_a_directory_that_worked_before(cached: Cached) -> None:
    use(cached)
    cached.break_it()
    await cached.probe.begin()
    assert (cached.engine.without_cache, cached.shown, cached.probe.is_needed) == (True, (True, True), False)
    assert cached.bypass.reason is not None
    assert cached.bypass.reason.code == "cache-not-writable"
    cached.mend_it()
    await cached.probe.begin()
    assert (cached.engine.without_cache, cached.shown) == (True, (False, True)), "until it is decided otherwise"


@pytest.mark.parametrize(
    "mount", [{"on_failure": "stop"}, {"profile": "outputs"}, {"options": {"vfs-cache-mode": "minimal"}}]
)
async def test_a_mount_that_may_not_do_without_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount: dict[str, object]
) -> None:
    monkeypatch.setattr(guard_module, "MIN_FREE_BYTES", 1)
    cached = Cached(tmp_path / "c", **mount)
    use(cached)
    cached.break_it()
    assert (await refusal(cached)).code == "cache-not-writable"


async def test_a_directory_that_another_mountd_uses_says_nothing_of_before(cached: Cached) -> None:
    use(cached)
    other = guard_module.lock_cache(cached.cache)
    try:
        assert (await refusal(cached)).code == "cache-taken"
    finally:
        os.close(other)


async def test_a_policy_that_has_changed_ends_a_bypass(cached: Cached) -> None:
    use(cached)
    cached.break_it()
    await cached.probe.begin()
    cached.mend_it()
    cached.engine.mount = cached.settings(on_failure="stop")
    await cached.probe.begin()
    assert (cached.engine.without_cache, cached.shown) == (False, (False, False))


async def test_an_rclone_that_comes_up_without_its_cache(cached: Cached) -> None:
    await cached.probe.begin()
    with pytest.raises(CannotStart) as refused:
        await cached.probe.check(OFF)
    assert (refused.value.code, refused.value.retry_s) == ("cache-off", FIX_RETRY_S), "it never worked"
    assert cached.bypass.state is CacheState.WITH
    put(cached.cache, "s/bkt/a", dirty=False)
    with pytest.raises(CannotStart) as refused:
        await cached.probe.check(OFF)
    assert (refused.value.code, refused.value.retry_s) == ("cache-off", 0.0), "the start without it comes at once"
    await cached.probe.begin()
    assert cached.engine.without_cache
    assert cached.bypass.reason is not None
    assert cached.bypass.reason.code == "cache-off"
    await cached.probe.check(OFF)


async def test_a_mount_without_a_cache_needs_none(tmp_path: Path) -> None:
    cached = Cached(tmp_path / "c", options={"vfs-cache-mode": "off"})
    await cached.probe.check(OFF)
    assert not cached.probe.is_needed


async def test_a_cache_that_works_was_tried(cached: Cached) -> None:
    cached.bypass.state = CacheState.TRYING
    await cached.probe.check(WITH)
    assert cached.bypass.state is CacheState.WITH


# -- while it runs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGAIN_S", "CACHE_INTERVAL_S"):
        monkeypatch.setattr(f"mountd.cache.bypass.{name}", 0.001)


async def run(cached: Cached) -> None:
    async with asyncio.timeout(SOON_S):
        await cached.probe.run(cached.report)


def restarts(cached: Cached) -> list[str]:
    return [each["restart"] for each in cached.facts if "restart" in each]


async def test_a_directory_that_breaks_makes_rclone_go_on_without(cached: Cached, quick: None) -> None:
    await cached.probe.begin()
    await cached.probe.check(WITH)
    cached.break_it()
    await run(cached)
    assert len(restarts(cached)) == 1
    assert (cached.shown, cached.bypass.state) == ((True, False), CacheState.WITHOUT)
    assert {} in cached.facts, "what is wrong is shown"
    assert cached.bucket.probes == 1


async def test_a_remount_waits_for_the_bucket(cached: Cached, quick: None) -> None:
    await cached.probe.begin()
    await cached.probe.check(WITH)
    cached.break_it()
    cached.bucket.usable = False
    running = asyncio.create_task(run(cached))
    await until_async(lambda: cached.bucket.probes >= 3, SOON_S, "the bucket to be asked")
    assert (restarts(cached), cached.bypass.state) == ([], CacheState.WITH)
    cached.bucket.usable = True
    await running
    assert restarts(cached)


async def test_going_on_without_does_not_wait_for_an_operation_and_the_way_back_does(
    cached: Cached, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mountd.cache.bypass.HOLD_S", 0.0)
    cached.busy = True
    await cached.probe.begin()
    await cached.probe.check(WITH)
    cached.break_it()
    await run(cached)
    await cached.probe.begin()
    cached.mend_it()
    cached.bucket.probes = 0
    running = asyncio.create_task(run(cached))
    await until_async(lambda: cached.bucket.probes >= 3, SOON_S, "looks at the directory")
    assert (len(restarts(cached)), cached.bypass.state) == (1, CacheState.WITHOUT)
    cached.busy = False
    await running
    assert (len(restarts(cached)), cached.bypass.state) == (2, CacheState.TRYING)


async def test_a_bypass_that_the_policy_no_longer_allows_is_shown_as_broken(cached: Cached, quick: None) -> None:
    use(cached)
    cached.break_it()
    await cached.probe.begin()
    cached.mend_it()
    cached.engine.mount = cached.settings(on_failure="stop")
    await run(cached)
    assert cached.status.cache_broken, "its app waits until the cache is used"


# -- what rclone says of its cache ------------------------------------------------------------------------------------


class HeardUploads:
    def __init__(self) -> None:
        self.heard: list[VfsStats] = []
        self.stranded = 0

    def noticed(self, stats: VfsStats) -> None:
        self.heard.append(stats)

    async def report_stranded(self) -> None:
        self.stranded += 1


@pytest.mark.parametrize(("bypassed", "expected"), [(False, ["", "its disk cache is off"]), (True, ["", ""])])
async def test_a_cache_that_rclone_switched_off_is_a_fact(
    cached: Cached, monkeypatch: pytest.MonkeyPatch, bypassed: bool, expected: list[str]
) -> None:
    monkeypatch.setattr(cache_probe, "STATS_INTERVAL_S", 0.001)
    cached.bypass.active = bypassed
    cached.engine.answers = [WITH, None, OFF]
    uploads = HeardUploads()
    probe = CacheStatsProbe(cast(Engine, cached.engine), cached.probe, cast(Uploads, uploads), cached.publish)
    shown: list[CacheStatus] = []

    def report(**changes: Unpack[FactChanges]) -> Facts:
        shown.append(cached.status.cache)
        return cached.report(**changes)

    running = asyncio.create_task(probe.run(report))
    await until_async(lambda: len(cached.facts) >= 2 or running.done(), SOON_S, "two answers")
    running.cancel()
    await asyncio.wait({running})
    assert [each["misconfigured"] for each in cached.facts[:2]] == expected
    assert shown[:2] == [CacheStatus(2, 5, 1), CacheStatus()]
    assert uploads.heard[:2] == [WITH, OFF]
    assert uploads.stranded >= 2
