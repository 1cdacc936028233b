"""A mount as its supervisor sees it: what is published of each state, and what an exit means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import CannotStart, MountdError, Unavailable, UsageError
from mountd.fuse import table
from mountd.mount import mount as mount_module
from mountd.mount.mount import RcloneMount
from mountd.mount.startup import StartUp
from mountd.process.child import Child, Exit
from mountd.process.lifecycle import STARTS_PER_WINDOW, Life
from mountd.status.board import Board
from mountd.status.snapshot import (
    Health,
    MountStage,
    MountStatus,
    Reason,
    RemoteStatus,
    State,
)
from tests.support.wait import until_async
from tests.unit.test_mount_verdict import board, mount, verdicts

__all__ = ["board", "mount"]

SOON_S = 30.0


def becomes(mount: RcloneMount, state: State, **life: Any) -> MountStatus:
    mount.changed(Life(state, wanted=life.pop("wanted", True), **life), "now", 7)
    return mount._status


def code_of(status: MountStatus) -> str:
    return status.reason.code if status.reason else ""


async def fails_to_start(mount: RcloneMount, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def run(_: StartUp, spawned: Callable[[Child], None]) -> None:
        raise error

    monkeypatch.setattr(StartUp, "run", run)
    with pytest.raises(MountdError):
        await mount.start(lambda child: None)


# -- status -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("life", "health", "code"),
    [
        (Life(State.STARTING, wanted=True), Health.PROGRESSING, ""),
        (Life(State.RUNNING, wanted=True), Health.HEALTHY, ""),
        (Life(State.RUNNING, wanted=True, cause="of before"), Health.HEALTHY, ""),
        (Life(State.STOPPING, wanted=True), Health.PROGRESSING, ""),
        (Life(State.BACKOFF, wanted=True, cause="away"), Health.DEGRADED, "mount-down"),
        (Life(State.FAILED, wanted=True, cause="refused"), Health.DEGRADED, "mount-down"),
        (Life(State.STOPPED, wanted=False, cause="away"), Health.PROGRESSING, ""),
    ],
)
async def test_what_is_published_of_a_state(
    mount: RcloneMount, board: Board, life: Life, health: Health, code: str
) -> None:
    mount.changed(life, "now", 7)
    status = board.snapshot.mounts["m"]
    assert (status.state, status.health, code_of(status)) == (life.state, health, code)
    assert (status.pid, status.since) == (7, "now")
    await mount.close()


async def test_what_a_down_mount_shows_is_its_failure(mount: RcloneMount, monkeypatch: pytest.MonkeyPatch) -> None:
    await fails_to_start(mount, monkeypatch, CannotStart("cannot  mount\nit", hint="h", code="no-fuse"))
    status = becomes(mount, State.BACKOFF, cause="x")
    assert status.reason == Reason("no-fuse", "cannot mount it", "mount", "m", "h")
    limited = becomes(mount, State.BACKOFF, cause="x", starts=(0.0,) * STARTS_PER_WINDOW)
    assert limited.reason is not None
    assert limited.reason.code == "no-fuse"
    assert "mountd restart m" in limited.reason.hint, "that it waits because of the limit"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no such flag"), "rclone-usage"),
        (Unavailable("rclone does not answer"), "mount-down"),
        (UsageError("no such flag", code="own"), "own"),
        (OSError(24, "too many open files"), "no-descriptors"),
    ],
)
async def test_the_code_of_a_failed_start(
    mount: RcloneMount, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    await fails_to_start(mount, monkeypatch, error)
    assert code_of(becomes(mount, State.BACKOFF, cause="x")) == code


async def test_a_start_that_succeeds_forgets_the_failure(mount: RcloneMount, monkeypatch: pytest.MonkeyPatch) -> None:
    await fails_to_start(mount, monkeypatch, CannotStart("cannot mount", code="no-fuse"))

    async def run(_: StartUp, spawned: Callable[[Child], None]) -> None:
        """It is ready."""

    monkeypatch.setattr(StartUp, "run", run)
    await mount.start(lambda child: None)
    assert code_of(becomes(mount, State.BACKOFF, cause="x")) == "mount-down"


async def test_what_an_rclone_that_is_gone_said_is_shown_no_longer(mount: RcloneMount) -> None:
    away = RemoteStatus(Health.DEGRADED, Reason("bucket-unreachable", "away"))
    for state in (State.STARTING, State.RUNNING, State.STOPPING, State.BACKOFF):
        mount._publish(
            lambda status: MountStatus(
                "/m", "r:b", stage=MountStage.READY, backend=away, cache_broken=True, cache_bypassed=True
            )
        )
        status, up = becomes(mount, state), state in (State.STARTING, State.RUNNING)
        assert (status.backend == away, status.cache_broken, status.cache_bypassed) == (up, up, up)
        assert status.stage is (MountStage.READY if up else MountStage.PREFLIGHT)
    await mount.close()


async def test_each_return_to_running_is_counted(mount: RcloneMount) -> None:
    counts = []
    for state in (State.STARTING, State.RUNNING, State.RUNNING, State.STOPPING, State.STARTING, State.RUNNING):
        counts.append(becomes(mount, state, restarts=3).restarts)
    assert counts == [0, 0, 0, 0, 0, 1]
    assert mount._status.unasked == 3
    await mount.close()


async def test_without_its_cache_it_is_degraded(mount: RcloneMount) -> None:
    mount._bypass.found = Reason("cache-full", "full")
    status = becomes(mount, State.RUNNING)
    assert (status.health, code_of(status)) == (Health.DEGRADED, "cache-full")


async def test_apps_have_lost_it_when_it_is_down_for_longer_than_a_repair(
    mount: RcloneMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount_module, "GONE_S", 0.0)
    becomes(mount, State.STARTING)
    await asyncio.sleep(0.001)
    assert not mount._status.gone, "it never ran"
    becomes(mount, State.RUNNING)
    becomes(mount, State.STOPPING)
    await asyncio.sleep(0.001)
    assert not mount._status.gone, "while it drains it is read as ever"
    becomes(mount, State.CLEANING)
    becomes(mount, State.STARTING)
    await until_async(lambda: mount._status.gone, SOON_S, "it to be gone")
    becomes(mount, State.RUNNING)
    assert not mount._status.gone
    becomes(mount, State.CLEANING)
    becomes(mount, State.RUNNING)
    await asyncio.sleep(0.001)
    assert not mount._status.gone, "it was back in time"
    becomes(mount, State.CLEANING)
    await mount.close()
    await asyncio.sleep(0.001)
    assert not mount._status.gone


# -- an exit ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "kept"), [(State.STARTING, []), (State.RUNNING, ["exited"]), (State.STOPPING, []), (State.BACKOFF, [])]
)
async def test_only_a_mount_that_ran_leaves_an_incident_when_rclone_exits(
    mount: RcloneMount, tmp_path: Path, state: State, kept: list[str]
) -> None:
    becomes(mount, state)
    mount.explain_exit(Exit(1))
    await mount.clean()
    assert verdicts(tmp_path) == kept
    await mount.close()


@pytest.mark.parametrize(
    ("code", "mounted", "permanent", "outside"),
    [
        (1, True, False, False),
        (1, False, False, False),
        (2, True, True, False),
        (-9, True, False, True),
        (0, True, False, False),
        (0, False, False, True),
    ],
)
async def test_what_an_exit_means(
    mount: RcloneMount, monkeypatch: pytest.MonkeyPatch, code: int, mounted: bool, permanent: bool, outside: bool
) -> None:
    entry = table.Entry(1, 0, "0:7", "/", mount._path, "fuse.rclone", mount._source)
    monkeypatch.setattr("mountd.mount.liveness.known_table", lambda **_: [entry] if mounted else [])
    found = mount.explain_exit(Exit(code))
    assert (found.permanent, found.outside) == (permanent, outside)
    assert code_of(becomes(mount, State.BACKOFF, cause=found.cause)).startswith("rclone-")
