"""The cache directory as its guard sees it: its room, its lock, what it holds, and what is said when it is unusable."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mountd.cache import guard
from mountd.cache.guard import CacheGuard, broken, check_space, held_bytes, lock_cache
from mountd.errors import FIX_RETRY_S, CannotStart, Exhausted
from mountd.settings.schema import CacheSettings
from mountd.settings.units import Size
from tests.support.vfs_cache import put


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy disk may need longer than what the product waits for it."""
    monkeypatch.setattr(guard, "LOOK_LIMIT_S", 60.0)


MIB = 1024**2


def disk(
    monkeypatch: pytest.MonkeyPatch, *, free: float, blocks: int = 1000, files: int = 1000, free_files: int = 1000
) -> None:
    """As `statvfs` shows it: blocks of 1 MiB; `free` in MiB for everybody, and more for root."""
    usage = SimpleNamespace(
        f_frsize=MIB // 4,
        f_bavail=int(free * 4),
        f_bfree=10**9,
        f_blocks=blocks * 4,
        f_files=files,
        f_favail=free_files,
        f_ffree=10**9,
        f_bsize=1,
    )
    monkeypatch.setattr(os, "statvfs", lambda _: usage)


def code_of(check: Callable[[], object]) -> str:
    """Of what `check` refuses, after which it is tried again; empty when it refuses nothing."""
    try:
        check()
    except CannotStart as error:
        return error.code if error.retry_s == FIX_RETRY_S else "no retry"
    return ""


@pytest.mark.parametrize(
    ("free", "held", "min_free", "code"),
    [
        (64, 0, None, ""),
        (63.75, 0, None, "cache-full"),
        (0, 64, None, ""),  # rclone gives up what it holds
        (40, 23.75, None, "cache-full"),
        (40, 24, None, ""),
        (10, 0, "20M", ""),  # in use: half of what it leaves free
        (9.75, 0, "20M", "cache-full"),
        (5, 0, "1%", ""),  # of 1000 MiB
        (4.75, 0, "1%", "cache-full"),
        (64, 0, "10G", ""),  # never more than a start needs
        (63.75, 0, "10G", "cache-full"),
        (1, 0, "0", ""),
        (0.75, 0, "0", "cache-full"),
    ],
)
def test_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, held: float, min_free: str | None, code: str
) -> None:
    disk(monkeypatch, free=free)
    left = Size.parse(min_free) if min_free else None
    assert code_of(lambda: check_space(tmp_path, held_bytes=int(held * MIB), min_free=left)) == code


@pytest.mark.parametrize(
    ("files", "free_files", "code"),
    [
        (1000, guard.MIN_FREE_FILES, ""),
        (1000, guard.MIN_FREE_FILES - 1, "cache-full"),
        (1, 0, "cache-full"),
        (0, 0, ""),  # btrfs counts none
    ],
)
def test_room_for_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, free_files: int, code: str
) -> None:
    disk(monkeypatch, free=1000, files=files, free_files=free_files)
    assert code_of(lambda: check_space(tmp_path)) == code


def test_a_file_system_that_is_gone_has_no_room(tmp_path: Path) -> None:
    assert code_of(lambda: check_space(tmp_path / "gone")) == "cache-not-writable"


def test_what_rclone_holds_is_counted_as_it_lies_on_disk(tmp_path: Path) -> None:
    assert held_bytes(tmp_path) == 0
    put(tmp_path, "r/b/a", dirty=False, data=b"x" * 8192)
    put(tmp_path, "r/b/hole", dirty=False)
    os.truncate(tmp_path / "vfs/r/b/hole", 10 * MIB)
    on_disk = sum((tmp_path / "vfs/r/b" / name).stat().st_blocks * 512 for name in ("a", "hole"))
    assert held_bytes(tmp_path) == on_disk < 10 * MIB


@pytest.mark.parametrize("below", ["vfs", "vfsMeta"])
def test_what_rclone_makes_in_it_must_be_a_directory(tmp_path: Path, below: str) -> None:
    (tmp_path / below).touch()
    assert code_of(lambda: lock_cache(tmp_path)) == "cache-not-writable"
    (tmp_path / below).unlink()
    (tmp_path / below).mkdir()
    os.close(lock_cache(tmp_path))


def test_a_lock_that_is_held_stays_the_same_until_its_directory_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    held = lock_cache(directory)
    assert lock_cache(directory, held) == held
    (directory / guard.LOCK_NAME).unlink()
    other = lock_cache(directory, held)
    assert other != held
    os.close(held)
    os.close(other)


@pytest.mark.parametrize(
    ("number", "code", "kind"),
    [(errno.EIO, "cache-broken", CannotStart), (errno.ENOMEM, "no-memory", Exhausted)],
)
def test_a_disk_that_answers_with_an_error(number: int, code: str, kind: type[Exception]) -> None:
    found = broken(Path("/c"), OSError(number, os.strerror(number), "/c/vfs/a"))
    assert (type(found), found.code) == (kind, code)
    if kind is CannotStart:
        assert "/c/vfs/a" in found.hint


# -- from one start to the next ----------------------------------------------------------------------------------------


class Held:
    """A guard of a directory, and whether that is locked."""

    def __init__(self, cache: Path) -> None:
        self.settings = CacheSettings(dir=cache)
        self.settled = 0
        self.guard = CacheGuard(self.settings, "m", self._settle)

    def _settle(self, then: Callable[[], None]) -> Awaitable[None]:
        async def settle() -> None:
            self.settled += 1
            then()

        return settle()


def is_locked(directory: Path) -> bool:
    with (directory / guard.LOCK_NAME).open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def test_it_is_locked_from_the_start_until_no_rclone_is_to_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, free=64)
    held = Held(tmp_path)
    for _ in range(2):
        await held.guard.begin(held.settings)
        assert (is_locked(tmp_path), held.settled) == (True, 0)
    await held.guard.release()
    assert (is_locked(tmp_path), held.settled) == (False, 1)
    assert await held.guard.look() is None
    assert not is_locked(tmp_path), "a late look takes no lock"


async def test_with_another_directory_the_former_one_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, free=64)
    held = Held(tmp_path / "a")
    await held.guard.begin(held.settings)
    await held.guard.begin(CacheSettings(dir=tmp_path / "b"))
    assert (is_locked(tmp_path / "a"), is_locked(tmp_path / "b")) == (False, True)
    assert held.guard.cache.dir == tmp_path / "b"
    await held.guard.release()
    assert not is_locked(tmp_path / "b")


@pytest.mark.parametrize(("strict", "starts"), [(False, True), (True, False)])
async def test_a_start_counts_what_rclone_holds_unless_it_is_strict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strict: bool, starts: bool
) -> None:
    disk(monkeypatch, free=0)
    monkeypatch.setattr(guard, "held_bytes", lambda _: 64 * MIB)
    held = Held(tmp_path)
    if starts:
        await held.guard.begin(held.settings, strict=strict)
    else:
        with pytest.raises(CannotStart) as refused:
            await held.guard.begin(held.settings, strict=strict)
        assert refused.value.code == "cache-full"
    found = await held.guard.look(bypassed=True, strict=strict)
    assert (found is None) is starts, "as it would be at a start"
    in_use = await held.guard.look()
    assert in_use is not None
    assert in_use.code == "cache-full", "what is in use must have room now"
    await held.guard.release()


async def test_what_a_look_says_of_reads(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    held = Held(tmp_path / "file")
    seen = [await held.guard.look(), await held.guard.look(bypassed=True)]
    full = held.guard.reason(CannotStart("full", code="cache-full", hint="h"), bypassed=False)
    assert [(each.code, each.layer, each.object) for each in seen if each] == [
        ("cache-not-writable", "rclone", "m")
    ] * 2
    assert full.hint == "h"
    assert len({each.text.rpartition(";")[2] for each in (*seen, full) if each}) == 3, "three consequences"


async def test_whether_it_was_used_before(tmp_path: Path) -> None:
    held = Held(tmp_path)
    assert not await held.guard.was_used()
    put(tmp_path, "r/b/a", dirty=False)
    assert await held.guard.was_used()


async def test_what_it_could_hold_is_what_is_free_and_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, free=3)
    monkeypatch.setattr(guard, "held_bytes", lambda _: 7)
    assert await Held(tmp_path).guard.could_hold() == 3 * MIB + 7


async def test_a_disk_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LOOK_LIMIT_S", 0.01)
    monkeypatch.setattr(guard, "WALK_LIMIT_S", 0.01)
    answers = threading.Event()

    def wait(*_: object) -> int:
        answers.wait()
        return os.open(os.devnull, os.O_RDONLY)

    monkeypatch.setattr(guard, "lock_cache", wait)
    held = Held(tmp_path)
    try:
        with pytest.raises(CannotStart) as refused:
            await held.guard.begin(held.settings)
        assert (refused.value.code, refused.value.retry_s) == ("cache-silent", FIX_RETRY_S)
        found = await held.guard.look()
        assert found is not None
        assert found.code == "cache-silent"
        assert not await held.guard.was_used()
        with pytest.raises(CannotStart):
            await held.guard.could_hold()
    finally:
        answers.set()
        await held.guard.release()


def test_a_process_without_a_free_descriptor_is_not_the_fault_of_the_directory(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(CannotStart) as caught:
            lock_cache(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "LimitNOFILE" in caught.value.hint
