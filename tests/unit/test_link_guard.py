"""A guard of a link on a real directory: what somebody does to it, and how soon it is right again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mountd.model import link, link_guard
from mountd.model.drift import BLOCKED, DRIFTED, HEALS_PER_WINDOW, FoundLink, WantedLink
from mountd.model.link_guard import LinkGuard
from mountd.status.snapshot import DriftStatus, Health

TARGET = "/mnt/storage/cache_hub_v23"
SOON_S = 60.0
HEALED_S = 2.0
"""What is promised of all pauses together; a busy machine may need longer."""
PAUSES_S = link_guard.SETTLE_S + link_guard.DRIFT_SETTLE_S + link_guard.HEAL_AFTER_S


class Kept:
    """A link with its guard; `shown` is the latest that it reported."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.link = directory / "cache_hub"
        self.wanted: WantedLink | None = WantedLink(self.link, TARGET)
        self.shown = DriftStatus()
        self.reasons: list[str] = []
        self.guard = LinkGuard("cache_hub", lambda: self.wanted, self._show, link.refuse_unsafe)

    def _show(self, status: DriftStatus) -> None:
        self.shown = status
        if status.reason:
            self.reasons.append(status.reason.code)

    @property
    def right(self) -> bool:
        return link.read(self.link) == TARGET

    async def until(self, condition: Callable[[], bool], limit_s: float = SOON_S) -> None:
        async with asyncio.timeout(limit_s):
            while not condition():
                await asyncio.sleep(0.005)

    async def until_watching(self) -> None:
        """A change is noticed at once from now on."""
        heals = self.shown.heals
        self.link.unlink()
        await self.until(lambda: self.right and self.shown.heals > heals)


@pytest.fixture
async def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kept]:
    monkeypatch.setattr(link_guard, "TICK_S", 600.0)  # the net must not catch what was not heard
    monkeypatch.setattr(link_guard, "DRIFT_SETTLE_S", 0.2)
    directory = tmp_path / "app"
    directory.mkdir()
    found = Kept(directory)
    link.point(found.link, TARGET)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(found.guard.run(lambda: found.link))
        await found.until_watching()
        yield found
        task.cancel()


def _remove(kept: Kept) -> None:
    kept.link.unlink()


def _point_elsewhere(kept: Kept) -> None:
    other = kept.directory / "other"
    other.symlink_to("/somewhere/else")
    other.rename(kept.link)


def _move_away(kept: Kept) -> None:
    kept.link.rename(kept.directory / "moved")


def _remake_directory(kept: Kept) -> None:
    """Until the new one has the number of the one before, as it has more often than not."""
    for _ in range(50):
        former = kept.directory.stat().st_ino
        shutil.rmtree(kept.directory)
        kept.directory.mkdir()
        if kept.directory.stat().st_ino == former:
            return


def _replace_directory(kept: Kept) -> None:
    kept.directory.rename(kept.directory.with_name("app.old"))
    kept.directory.mkdir()


async def _healed(kept: Kept, change: Callable[[Kept], None]) -> None:
    """Returns when the link is right again: only a change that was heard is healed before the test's limit."""
    heals = kept.shown.heals
    change(kept)
    await kept.until(lambda: kept.right and kept.shown.heals > heals)


@pytest.mark.parametrize("change", [_remove, _point_elsewhere, _move_away, _remake_directory, _replace_directory])
async def test_a_changed_link_is_put_right_within_two_seconds(kept: Kept, change: Callable[[Kept], None]) -> None:
    # The last one shows that a directory that came back is watched itself, whatever its number is.
    assert PAUSES_S < HEALED_S
    for each in (change, change, _remove):
        await _healed(kept, each)
        assert kept.shown.reason is None
        shutil.rmtree(kept.directory.with_name("app.old"), ignore_errors=True)


@pytest.mark.parametrize("kind", ["file", "directory", "no directory"])
async def test_what_may_be_data_stays_until_somebody_moves_it(kept: Kept, kind: str) -> None:
    heals = kept.shown.heals
    theirs = kept.directory.with_name("theirs")
    if kind == "file":
        theirs.write_text("precious")
        theirs.rename(kept.link)
    elif kind == "directory":
        kept.wanted, wanted = None, kept.wanted  # no race with the guard for the moment without a link
        kept.link.unlink()
        kept.link.mkdir()
        (kept.link / "gpt.pth").write_text("precious")
        kept.wanted = wanted
        kept.guard.wake()
    else:
        kept.directory.rename(theirs)
    await kept.until(lambda: kept.shown.reason is not None and kept.shown.reason.code == BLOCKED)
    assert kept.shown.absent
    assert kept.shown.health is Health.DEGRADED
    if kind == "no directory":
        assert not kept.directory.exists()
        kept.directory.mkdir()
    else:
        moved = kept.link.rename(kept.directory / "moved")
        assert (moved if kind == "file" else moved / "gpt.pth").read_text() == "precious"
    await kept.until(lambda: kept.right)
    await kept.until(lambda: kept.shown.reason is None and kept.shown.heals > heals)
    assert not kept.shown.absent


def test_a_link_that_is_about_to_be_healed_takes_nothing_from_readiness(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    assert kept.guard.look() == link_guard.HEAL_AFTER_S
    shown = kept.shown
    assert (shown.absent, shown.health, shown.times, shown.heals) == (False, Health.PROGRESSING, 1, 0)
    assert (kept.reasons, kept.right) == ([DRIFTED], False)
    assert kept.guard.look() == link_guard.TICK_S
    assert kept.right
    assert kept.shown == DriftStatus(times=1, heals=1, last=shown.last)


async def test_where_another_user_can_move_the_directory_no_link_is_made(kept: Kept) -> None:
    kept.directory.parent.chmod(0o777)
    heals = kept.shown.heals
    _remove(kept)
    await kept.until(lambda: kept.shown.reason is not None and kept.shown.reason.code == BLOCKED)
    assert kept.shown.reason is not None
    assert "every user" in kept.shown.reason.text
    assert (kept.shown.heals, kept.shown.absent) == (heals, True)
    assert not os.path.lexists(kept.link)
    kept.directory.parent.chmod(0o755)
    kept.guard.wake()
    await kept.until(lambda: kept.right and kept.shown.reason is None)


async def test_somebody_who_changes_it_all_the_time_makes_no_busy_daemon(kept: Kept) -> None:
    async def fight() -> None:
        while True:
            with contextlib.suppress(OSError):
                _point_elsewhere(kept)
            await asyncio.sleep(0.002)

    fighting = asyncio.create_task(fight())
    try:
        await kept.until(lambda: kept.shown.health is Health.DEGRADED)
        assert kept.shown.heals == HEALS_PER_WINDOW
        assert kept.shown.reason is not None
        assert "repeatedly" in kept.shown.reason.text
        cpu, times = time.thread_time(), kept.shown.times
        await asyncio.sleep(2 * link_guard.DRIFT_SETTLE_S)  # of being fought
        assert kept.shown.heals == HEALS_PER_WINDOW
        assert kept.shown.times == times, "one fight is reported once"
        assert time.thread_time() - cpu < link_guard.DRIFT_SETTLE_S, "it and its enemy share this thread"
    finally:
        fighting.cancel()


async def test_paused_it_is_left_and_put_right_at_once_when_that_ends(kept: Kept) -> None:
    kept.wanted = WantedLink(kept.link, TARGET, "it is not healed while paused", "resume")
    _point_elsewhere(kept)
    await kept.until(lambda: kept.shown.reason is not None)
    _remove(kept)
    await kept.until(lambda: kept.shown.absent)
    assert kept.shown.reason is not None
    assert (kept.shown.reason.code, kept.shown.health) == (DRIFTED, Health.MISSING)
    assert not os.path.lexists(kept.link)
    kept.wanted = WantedLink(kept.link, TARGET)
    kept.guard.wake()
    await kept.until(lambda: kept.right and kept.shown.reason is None)


async def test_an_operation_has_the_link_alone(kept: Kept) -> None:
    kept.wanted = None
    _remove(kept)
    looked = asyncio.get_running_loop().time() + 0.3
    await kept.until(lambda: asyncio.get_running_loop().time() > looked)
    assert not os.path.lexists(kept.link)
    kept.wanted = WantedLink(kept.link, TARGET)
    kept.guard.wake()
    await kept.until(lambda: kept.right)


async def test_a_link_that_the_model_has_placed_again_is_right(kept: Kept) -> None:
    """A remount's start-up puts it back before the guard does: the drift is over, and the new target is kept."""
    kept.wanted = WantedLink(kept.link, TARGET, "it is not healed while paused", "resume")
    _point_elsewhere(kept)
    await kept.until(lambda: kept.shown.reason is not None)
    assert kept.shown.target == "/somewhere/else"
    heals = kept.shown.heals
    newer = f"{TARGET}-newer"
    link.point(kept.link, newer)
    kept.wanted = WantedLink(kept.link, newer)
    kept.guard.placed(kept.link, newer)
    right = kept.shown
    assert (right.reason, right.target, right.health) == (None, None, Health.HEALTHY)
    assert right.heals == heals  # nobody had to heal
    _remove(kept)
    await kept.until(lambda: link.read(kept.link) == newer)


async def test_what_else_happens_in_a_busy_directory_wakes_nobody(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    former = link.look

    def counted(path: Path) -> FoundLink:
        nonlocal looks
        looks += 1
        return former(path)

    monkeypatch.setattr(link, "look", counted)
    for number in range(300):
        (kept.directory / f"log-{number}").touch()
        await asyncio.sleep(0)
    await kept.until_watching()
    assert looks < 20
