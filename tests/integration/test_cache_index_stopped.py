"""Work on the index of a cache that takes too long, or whose result is no longer wanted.

It ends soon, what was done in time is noted, and until then the cache is locked.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mountd.cache import extents, index_repair, stamps
from mountd.cache import index as cache_index
from mountd.cache.guard import CacheGuard
from mountd.cache.index import CacheIndex
from mountd.cache.index_repair import Stopped, repair, stamp
from mountd.errors import CannotStart
from mountd.settings.schema import MountSettings
from tests.integration.test_cache_index import ALL, CONTENT, NAME, WHOLE, Cache, spoil

LATE_S = 60.0


def content(root: Path) -> dict[str, tuple[bytes, int]]:
    """Of each file, with its inode."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_ino) for path in files}


def to_drop(root: Path) -> Cache:
    cache = Cache(root, WHOLE)
    cache.repair()
    cache.end()
    spoil(cache)
    return cache


def to_verify(root: Path) -> Cache:
    cache = to_drop(root)
    cache.know(b"other".ljust(len(CONTENT)))
    return cache


def to_extend(root: Path) -> Cache:
    cache = Cache(root)
    cache.repair()
    return cache


@pytest.mark.parametrize("prepare", [to_drop, to_verify, to_extend, lambda root: Cache(root, WHOLE)])
def test_nothing_is_done_for_a_start_that_was_given_up(tmp_path: Path, prepare: Any) -> None:
    prepare(tmp_path)
    before = content(tmp_path)
    asked = 0

    def is_stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 1  # after the files were looked at

    for stop in (lambda: True, is_stopped):
        with pytest.raises(Stopped):
            repair(tmp_path, writes_back=False, may_guess=True, is_stopped=stop)
        left = content(tmp_path)
        if prepare is to_drop and stop is is_stopped:  # dropped already, and not noted
            assert left == {path: left[path] for path in before if path.endswith(stamps.NAME)}
        else:
            assert left == before
    assert asked == 2


@pytest.mark.parametrize("prepare", [to_verify, to_extend])
def test_a_long_file_is_left_in_the_middle(tmp_path: Path, prepare: Any) -> None:
    cache = prepare(tmp_path)
    index, pieces = cache.index, 0

    def is_stopped() -> bool:
        """In the second piece of the file: before it are a look, a note where there is one, and the first piece."""
        nonlocal pieces
        pieces += 1
        return pieces > (4 if prepare is to_extend else 3)

    with pytest.raises(Stopped):
        repair(tmp_path, writes_back=False, may_guess=True, is_stopped=is_stopped)
    assert cache.index == index


def test_each_piece_is_asked_for() -> None:
    asked = []
    with open(__file__, "rb") as file:
        given = ((0, 5 * extents.BLOCK), (700 * extents.BLOCK, 701 * extents.BLOCK))
        extents.filled(file.fileno(), given, time.monotonic() + LATE_S, lambda: asked.append(1))
    assert len(asked) == 2


def test_what_was_extended_without_a_digest_is_known_even_of_a_pass_that_was_stopped(tmp_path: Path) -> None:
    cache = to_extend(tmp_path)
    before = stamps.read(tmp_path)
    assert before is not None
    assert not before.files[NAME].is_guessed
    with pytest.raises(Stopped):
        repair(tmp_path, writes_back=False, may_guess=True, is_stopped=lambda: cache.index != [])
    after = stamps.read(tmp_path)
    assert after is not None
    assert after.files[NAME].is_guessed
    assert after.files[NAME].is_of(before.files[NAME])
    assert (after.boot, after.running) == (before.boot, before.running)


@pytest.mark.parametrize("goes_on", [0, 1, 2])
def test_a_stop_that_was_given_up_is_not_stamped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_on: int) -> None:
    Cache(tmp_path, WHOLE).repair()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    before = content(tmp_path)
    asked = 0

    def is_stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > goes_on

    with pytest.raises(Stopped):
        stamp(tmp_path, 5.0, is_stopped)
    assert (content(tmp_path) == before) == (goes_on < 2)
    assert synced == []


async def mounted_with(root: Path, files: int) -> CacheIndex:
    """`files` cached files, of which nothing is on disk yet, as far as anybody knows."""
    cache = Cache(root, WHOLE)
    for number in range(1, files):
        for path in (cache.data, cache.meta):
            shutil.copy(path, path.with_name(f"{path.name}.{number}"))
    index = CacheIndex("m")
    await index.repair(mount_of(root))
    return index


def mount_of(root: Path) -> MountSettings:
    return MountSettings.model_validate({"remote": "s:b", "path": "/m", "profile": "model-hub", "cache": {"dir": root}})


def durable(root: Path) -> list[bool]:
    found = stamps.read(root)
    assert found is not None
    return sorted(each.is_durable for each in found.files.values())


async def test_what_was_written_in_time_is_noted_when_not_all_of_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = await mounted_with(tmp_path, 4)
    monkeypatch.setattr(os, "fsync", lambda _: time.sleep(0.5))
    monkeypatch.setattr(cache_index, "DURABLE_LIMIT_S", 1.5)
    await index.after_stop(is_last=True)
    noted = await asyncio.to_thread(durable, tmp_path)
    assert any(noted)
    assert not all(noted)


async def test_a_file_whose_write_does_not_end_costs_none_of_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = await mounted_with(tmp_path, 4)
    go, calls = threading.Event(), 0

    def silent(fd: int) -> None:
        nonlocal calls
        is_data = "/vfs/" in os.readlink(f"/proc/self/fd/{fd}")
        calls += is_data
        if is_data and calls == 3:
            go.wait(LATE_S)  # what was written before it needs no disk, which others may keep busy

    monkeypatch.setattr(os, "fsync", silent)
    monkeypatch.setattr(index_repair, "NOTE_S", 0.0)
    monkeypatch.setattr(cache_index, "LAST_STAMP_LIMIT_S", 3.0)
    try:
        await index.after_stop(is_last=True)
        assert await asyncio.to_thread(durable, tmp_path) == [False, False, True, True]
    finally:
        go.set()


@contextlib.contextmanager
def silent_data(cache: Cache) -> Iterator[tuple[threading.Event, threading.Event]]:
    """The disk does not answer who opens the data: set when somebody does; to be set when it answers again."""
    asked, go, real = threading.Event(), threading.Event(), open

    def late(path: Any, *args: Any, **kwargs: Any) -> Any:
        if str(path) == str(cache.data):
            asked.set()
            go.wait(LATE_S)
        return real(path, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", late)
        try:
            yield asked, go
        finally:
            go.set()


@pytest.mark.parametrize("moves", [False, True])
async def test_a_cache_stays_locked_while_a_thread_is_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: bool
) -> None:
    monkeypatch.setattr(cache_index, "SETTLE_LIMIT_S", 0.2)
    cache = await asyncio.to_thread(to_verify, tmp_path / "cache")
    before = content(cache.root / "vfs")
    mount = mount_of(cache.root)
    index = CacheIndex("m")
    guard, other = (
        CacheGuard(mount.cache, "m", index.settle),
        CacheGuard(mount.cache, "other", CacheIndex("other").settle),
    )
    await guard.begin(mount.cache)
    with silent_data(cache) as (asked, go):
        repairing = asyncio.create_task(index.repair(mount))
        await asyncio.to_thread(asked.wait, LATE_S)
        repairing.cancel()
        await asyncio.wait([repairing])
        async with asyncio.timeout(LATE_S / 2):
            if moves:
                await guard.begin(mount.cache.model_copy(update={"dir": tmp_path / "another"}))
            else:
                await guard.release()
        with pytest.raises(CannotStart) as taken:
            await other.begin(mount.cache)
        assert taken.value.code == "cache-taken"
        go.set()
        async with asyncio.timeout(LATE_S):
            while not await begins(other, mount):
                await asyncio.sleep(0.01)
    assert content(cache.root / "vfs") == before
    assert cache.index == ALL
    await other.release()
    await guard.release()


async def begins(guard: CacheGuard, mount: MountSettings) -> bool:
    with contextlib.suppress(CannotStart):
        await guard.begin(mount.cache)
        return True
    return False
