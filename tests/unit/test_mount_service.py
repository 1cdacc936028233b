"""A mount as its supervisor sees it: what is published of each state, what an exit means, a start, a stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mountd.cache.upload_state import Pending
from mountd.errors import CannotStart, MountdError, Unavailable, UsageError
from mountd.fuse import table
from mountd.fuse.unmount import Cleared
from mountd.mount import mount as mount_module
from mountd.mount.health import RestartRclone
from mountd.mount.mount import STOP_GRACE_S, RcloneMount
from mountd.mount.startup import StartUp
from mountd.process.child import Child, Exit
from mountd.process.lifecycle import STARTS_PER_WINDOW, Life
from mountd.process.supervisor import MustReplace, ShouldRestart
from mountd.rclone.conf_file import SecretChange
from mountd.settings.schema import Settings
from mountd.status.board import Board
from mountd.status.snapshot import AppStatus, Health, MountStage, MountStatus, Reason, RemoteStatus, State
from tests.support.wait import until_async
from tests.unit.test_mount_verdict import board, decides, mount, verdicts

__all__ = ["board", "mount"]

SOON_S = 10.0


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
    monkeypatch.setattr("mountd.mount.liveness.read_table", lambda: [entry] if mounted else [])
    found = mount.explain_exit(Exit(code))
    assert (found.permanent, found.outside) == (permanent, outside)
    assert code_of(becomes(mount, State.BACKOFF, cause=found.cause)).startswith("rclone-")


# -- a start ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lacks_room", "active", "known", "leaves"),
    [(True, False, True, True), (False, False, True, False), (True, True, True, False), (True, False, False, False)],
)
async def test_a_start_that_fails_for_lack_of_room_is_followed_by_one_without_the_cache(
    mount: RcloneMount,
    monkeypatch: pytest.MonkeyPatch,
    lacks_room: bool,
    active: bool,
    known: bool,
    leaves: bool,
) -> None:
    bypass = mount._bypass
    bypass.lacks_room, bypass.active = lacks_room, active
    bypass._is_known = known
    await fails_to_start(mount, monkeypatch, CannotStart("not proven"))
    bypass.begin(None)
    assert (bypass.active, bypass.is_strict) == (leaves, leaves)


# -- what is asked of it ----------------------------------------------------------------------------------------------


async def test_the_apps_that_stalled_reads_are_looked_for_in(mount: RcloneMount, board: Board, tmp_path: Path) -> None:
    app = {"command": ["/bin/true"], "needs": ["m"]}
    mounts = {
        name: {"remote": "r:bkt", "path": str(tmp_path / name), "cache": {"dir": str(tmp_path / f"c{name}")}}
        for name in ("m", "n")
    }
    mount.reconfigure(
        Settings.model_validate(
            {
                "remotes": {"r": {"type": "s3", "endpoint": "http://127.0.0.1:1"}},
                "mounts": mounts,
                "apps": {"a": app, "b": app | {"needs": ["n"]}, "c": app, "d": app},
                "control": {"socket": str(tmp_path / "s")},
                "state": str(tmp_path / "state"),
                "runtime": str(tmp_path / "run"),
            }
        )
    )
    for name, pid in {"a": 11, "b": 12, "c": None}.items():
        board.set_app(name, AppStatus(pid=pid))
    assert list(mount._app_pids()) == [11]


def settings_of(tmp_path: Path, **mount: object) -> Settings:
    given = {
        "remote": "r:other",
        "path": str(tmp_path / "m"),
        "cache": {"dir": str(tmp_path / "c"), "on_failure": "stop"},
    }
    return Settings.model_validate(
        {
            "remotes": {"r": {"type": "s3", "endpoint": "http://127.0.0.1:1"}},
            "mounts": {"m": {**given, **mount}},
            "control": {"socket": str(tmp_path / "s")},
            "state": str(tmp_path / "state"),
            "runtime": str(tmp_path / "run"),
        }
    )


async def test_new_settings_are_shown_at_once(mount: RcloneMount, board: Board, tmp_path: Path) -> None:
    before = board.snapshot.mounts["m"]
    mount.reconfigure(settings_of(tmp_path, profile="outputs", drain="33s"))
    after = board.snapshot.mounts["m"]
    assert (before.remote, before.cache_stops_apps) == ("r:bkt", False)
    assert (after.remote, after.cache_stops_apps) == ("r:other", True)
    assert (mount.policy.grace_s, mount.policy.prepare_s) == (STOP_GRACE_S, 33.0)


async def test_a_detour_is_of_the_next_start(mount: RcloneMount) -> None:
    mount.detour({"HTTPS_PROXY": "http://127.0.0.1:1"})
    assert mount._engine.detour == {"HTTPS_PROXY": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("change", "could_start", "restarts"),
    [
        (SecretChange.REMOUNT, True, True),
        (SecretChange.REMOUNT, False, False),
        (SecretChange.LIVE, True, False),
        (SecretChange.NOTHING, True, False),
    ],
)
async def test_new_secrets_need_a_new_rclone_only_when_it_could_start(
    mount: RcloneMount, monkeypatch: pytest.MonkeyPatch, change: SecretChange, could_start: bool, restarts: bool
) -> None:
    async def changed() -> SecretChange:
        return change

    async def could() -> bool:
        return could_start

    monkeypatch.setattr(mount._engine, "refresh_secrets", changed)
    monkeypatch.setattr(mount._bucket, "could_start", could)
    assert await mount.refresh_credentials() is restarts


# -- a stop -----------------------------------------------------------------------------------------------------------


async def test_a_restart_that_was_asked_for_tries_the_cache_and_one_by_itself_does_not(
    mount: RcloneMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(mount._bypass, "ask", lambda: asked.append("cache"))
    decides(monkeypatch, RestartRclone("new keys"))
    with pytest.raises(ShouldRestart):
        await mount.watch()
    await mount.prepare_end()
    assert asked == []
    await fails_to_start(mount, monkeypatch, CannotStart("x"))
    await mount.prepare_end()
    assert asked == ["cache"], "the next stop is another one"


async def test_a_stop_of_an_rclone_that_hangs_is_a_replacement(
    mount: RcloneMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    async def drain(limit_s: float) -> bool:
        limits.append(limit_s)
        return False

    monkeypatch.setattr(mount._uploads, "drain", drain)
    with pytest.raises(MustReplace):
        await mount.prepare_end()
    assert limits == [mount._engine.mount.drain]


async def test_what_cannot_be_unmounted_is_shown(
    mount: RcloneMount, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> Cleared:
        raise Unavailable("cannot unmount it", hint="by hand")

    monkeypatch.setattr("mountd.fuse.unmount.clear", refuse)
    with pytest.raises(Unavailable):
        await mount.clean()
    status = board.snapshot.mounts["m"]
    assert (status.health, status.reason) == (
        Health.DEGRADED,
        Reason("cannot-unmount", "cannot unmount it", "mount", "m", "by hand"),
    )


@pytest.mark.parametrize(("wanted", "is_last"), [(True, False), (False, True)])
async def test_the_cache_is_made_durable_after_the_last_rclone(
    mount: RcloneMount, monkeypatch: pytest.MonkeyPatch, wanted: bool, is_last: bool
) -> None:
    lasts: list[bool] = []

    async def after_stop(*, is_last: bool) -> None:
        lasts.append(is_last)

    monkeypatch.setattr(mount._index, "after_stop", after_stop)
    becomes(mount, State.CLEANING, wanted=wanted)
    await mount.clean()
    assert lasts == [is_last]


async def test_what_a_stop_left_in_the_cache_is_shown_while_it_is_stopped(mount: RcloneMount) -> None:
    mount._uploads.left = Pending(1, 5, ("a.wav",))
    shown = [code_of(becomes(mount, state, wanted=False)) for state in (State.STOPPED, State.STOPPING)]
    assert shown == ["uploads-pending", ""]


async def test_at_the_end_nothing_is_left(mount: RcloneMount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mountd.cache.guard.MIN_FREE_BYTES", 1)
    await mount._cache.begin()
    looked: list[str] = []

    async def look_last() -> None:
        looked.append("uploads")

    monkeypatch.setattr(mount._uploads, "look_last", look_last)
    await mount.close()
    assert looked == ["uploads"]
    assert mount._guard._lock._fd is None
