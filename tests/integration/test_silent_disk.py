"""A disk that does not answer at all: mountd still answers, reports it, waits with one thread, and can be stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mountd.cache import guard as cache_guard
from mountd.cache.guard import CacheGuard
from mountd.cache.index import CacheIndex
from mountd.daemon import threads
from mountd.daemon.threads import Threads
from mountd.errors import FIX_RETRY_S, CannotStart
from mountd.process.slow_disk import SlowDisk
from mountd.settings.schema import CacheSettings
from tests.support.daemon import Daemon
from tests.support.frozen_disk import FrozenDisk
from tests.support.wait import until

LATE_S = 60.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FrozenDisk]:
    with FrozenDisk(tmp_path / "disk", tmp_path / "image") as frozen:
        yield frozen


async def test_what_overstays_is_waited_for_by_the_next_and_no_two_work_at_once() -> None:
    disk, go = SlowDisk(), threading.Event()
    seen: list[str] = []

    def first() -> None:
        go.wait(LATE_S)
        seen.append("first")

    try:
        with pytest.raises(TimeoutError):
            await disk.run(first, 0.05)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await disk.run(lambda: seen.append("never"), 0.05)
        cancelled = asyncio.create_task(disk.run(lambda: seen.append("never"), None))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert seen == []
        later = asyncio.create_task(disk.run(lambda: seen.append("second"), LATE_S))
    finally:
        go.set()
    await later
    assert seen == ["first", "second"]
    with pytest.raises(ZeroDivisionError):
        await disk.run(lambda: 1 // 0, LATE_S)


@pytest.mark.root
async def test_a_cache_on_a_silent_disk(disk: FrozenDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = CacheSettings(dir=disk.path / "cache")
    guard, other = (
        CacheGuard(settings, "m", CacheIndex("m").settle),
        CacheGuard(settings, "other", CacheIndex("other").settle),
    )
    monkeypatch.setattr(cache_guard, "LOOK_LIMIT_S", 0.3)
    disk.freeze()
    began = time.monotonic()
    waiting = [each for each in threading.enumerate() if each.name.startswith("asyncio")]
    for _ in range(3):
        with pytest.raises(CannotStart) as silent:
            await guard.begin(settings)
        assert (silent.value.code, silent.value.retry_s) == ("cache-silent", FIX_RETRY_S)
        reason = await guard.look()
        assert reason is not None
        assert reason.code == "cache-silent"
    assert 1.5 < time.monotonic() - began < LATE_S, "the event loop was not held"
    assert len([each for each in threading.enumerate() if each.name.startswith("asyncio")]) <= len(waiting) + 1
    # Nobody wants the lock any more: a thread that is still at it gives it back.
    await guard.release()
    monkeypatch.setattr(cache_guard, "LOOK_LIMIT_S", LATE_S)
    disk.thaw()
    async with asyncio.timeout(LATE_S):
        while not await begins(other, settings):
            await asyncio.sleep(0.01)
    await other.release()


async def begins(guard: CacheGuard, settings: CacheSettings) -> bool:
    try:
        await guard.begin(settings)
    except CannotStart as error:
        if error.code != "cache-taken":  # the late thread has it for a moment
            raise
        return False
    return True


async def test_the_lock_is_given_back_that_is_got_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, go, begun = CacheSettings(dir=tmp_path / "cache"), threading.Event(), threading.Event()
    real, taken = cache_guard.lock_cache, []

    def late(directory: Path, held: int | None = None) -> int:
        begun.set()
        go.wait(LATE_S)
        taken.append(real(directory, held))
        return taken[-1]

    monkeypatch.setattr(cache_guard, "lock_cache", late)
    taking = CacheGuard(settings, "m", CacheIndex("m").settle)
    beginning = asyncio.create_task(taking.begin(settings))
    await asyncio.to_thread(begun.wait, LATE_S)
    beginning.cancel()
    await asyncio.wait([beginning])
    await taking.release()
    go.set()

    await asyncio.to_thread(until, lambda: taken, LATE_S, "the lock to be taken")
    os.close(await asyncio.to_thread(until, lambda: real(settings.dir), LATE_S, "it to be given back"))


def test_a_stuck_thread_does_not_keep_the_loop_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "BUSY_S", 3.0)  # a busy machine has to get to the other thread by then
    go, begun, ended = threading.Event(), threading.Event(), threading.Event()

    def end_late() -> None:
        begun.set()
        time.sleep(0.1)
        ended.set()

    async def leave_stuck() -> None:
        asyncio.get_running_loop().set_default_executor(Threads())
        assert await asyncio.to_thread(lambda: 3) == 3
        stuck = asyncio.create_task(asyncio.to_thread(go.wait, LATE_S))
        late = asyncio.create_task(asyncio.to_thread(end_late))
        while not begun.is_set():  # what no thread has begun yet is given up
            await asyncio.sleep(0.01)
        stuck.cancel()
        late.cancel()

    began = time.monotonic()
    try:
        asyncio.run(leave_stuck())
        assert time.monotonic() - began < LATE_S
        assert ended.is_set(), "what is under way has a moment"
    finally:
        go.set()


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.fuse
@pytest.mark.root
def test_mountd_answers_and_can_be_stopped(make_daemon: Callable[..., Daemon], disk: FrozenDisk) -> None:
    """Its thread waits in the kernel, deaf to SIGKILL: the process cannot end, and its parent goes without it."""
    daemon = make_daemon()
    daemon.config["mounts"]["storage"]["cache"]["dir"] = str(disk.path / "cache")
    disk.freeze()
    daemon.start()
    reason = daemon.until_reason("cache-silent")
    assert f"{disk.path}/cache" in reason["text"]
    status = daemon.status()
    until(lambda: daemon.status()["mounts"]["storage"]["state"] == "backoff", 60, "the next try to be waited for")
    assert daemon.process is not None
    began = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait_exit(60.0) == 0
    took_s = time.monotonic() - began
    (stops,) = daemon.until_events("mountd stops")
    assert took_s < stops["at_most_s"]
    assert daemon.until_events("threads are still busy: exiting without them")
    assert os.path.exists(f"/proc/{status['pid']}"), "its parent has gone without it"
    disk.thaw()
    until(lambda: daemon.processes() == [], LATE_S, "the rest to be gone")
    assert daemon.mounts() == []
