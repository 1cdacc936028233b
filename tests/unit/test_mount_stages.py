"""A mount as its supervisor uses it: what a start consists of, what is asked of it, what a stop leaves."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mountd.cache.bypass import CacheState
from mountd.cache.upload_state import Pending
from mountd.cache.uploads import Uploads
from mountd.errors import CannotStart, Unavailable
from mountd.fuse.unmount import Cleared
from mountd.mount import mount as mount_module
from mountd.mount import preflight
from mountd.mount.bucket import Witness
from mountd.mount.health import RestartRclone
from mountd.mount.mount import STOP_GRACE_S, RcloneMount
from mountd.process.supervisor import MustReplace, ShouldRestart
from mountd.rclone.conf_file import SecretChange
from mountd.rclone.stats import DiskCacheStats, VfsStats
from mountd.settings.schema import Settings
from mountd.status.board import Board
from mountd.status.snapshot import (
    AppStatus,
    CacheStatus,
    Health,
    Operation,
    Reason,
    State,
)
from tests.support.fake_child import FakeChild
from tests.unit.test_mount_service import becomes, code_of, fails_to_start
from tests.unit.test_mount_verdict import board, decides, mount

__all__ = ["board", "mount"]

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


@pytest.mark.parametrize("without_cache", [False, True])
async def test_what_comes_before_rclone(
    mount: RcloneMount, board: Board, monkeypatch: pytest.MonkeyPatch, without_cache: bool
) -> None:
    """An rclone without the cache leaves what lies there for one with it."""
    monkeypatch.setattr("mountd.cache.guard.MIN_FREE_BYTES", 1)
    done: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        async def note(*_: object, **__: object) -> None:
            done.append(name)

        return note

    apart = Reason("mount-not-visible", "apart", "mount", "m")
    monkeypatch.setattr(preflight, "check", noting("preflight"))
    monkeypatch.setattr(preflight, "apart", lambda *_: apart)
    monkeypatch.setattr(mount._uploads, "repair", noting("uploads"))
    for each in ("evict", "repair"):
        monkeypatch.setattr(mount._index, each, noting(each))
    mount._bypass.state = CacheState.WITHOUT if without_cache else CacheState.WITH
    mount._bucket.witness = Witness("r:former", "v1", kept=True)
    mount._uploads.left = Pending(1, 5, ("a",))
    await mount._prepare()
    assert done == ["preflight", "uploads", *([] if without_cache else ["evict", "repair"])]
    assert list(board.snapshot.lacks.values()) == [apart]
    assert [mount._bucket.witness] == [None], "the remote is another one"
    assert not mount.not_uploaded
    await mount.close()


async def test_the_first_answer_of_rclone(mount: RcloneMount, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[str] = []

    async def hold() -> None:
        held.append(mount._uploads._meta)

    monkeypatch.setattr(mount._uploads, "hold", hold)
    await mount._accept(VfsStats(DiskCacheStats(5, 2, 1, "/c/vfsMeta/r")))
    assert held == ["/c/vfsMeta/r"], "before uploads begin, and it is known whose they are"
    assert mount._status.cache == CacheStatus(2, 5, 1)
    with pytest.raises(CannotStart) as refused:
        await mount._accept(VfsStats(None))
    assert refused.value.code == "cache-off"


@pytest.mark.parametrize("witness", ["v1", None])
async def test_the_witness_of_the_proof_is_what_the_bucket_is_asked_for(
    mount: RcloneMount, monkeypatch: pytest.MonkeyPatch, witness: str | None
) -> None:
    done: list[str] = []

    async def reopen(*_: object) -> None:
        done.append("reopened")

    async def prove(*_: object) -> str | None:
        done.append("proven")
        return witness

    monkeypatch.setattr(mount._uploads, "reopen", reopen)
    monkeypatch.setattr(mount_module, "prove", prove)
    await mount._prove()
    assert done == ["reopened", "proven"]
    assert mount._bucket.witness == (Witness("r:bkt", "v1", kept=True) if witness else None)


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


async def test_new_settings_count_for_the_next_probe(mount: RcloneMount, tmp_path: Path) -> None:
    mount.reconfigure(settings_of(tmp_path, health={"failures": 5, "timeout": "7s"}))
    assert (mount._monitor.failures(), mount._liveness.health().timeout) == (5, 7.0)


async def test_what_is_wrong_with_its_cache_or_its_uploads_is_reported(
    mount: RcloneMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads, cache = Reason("uploads-failing", "refused"), Reason("cache-full", "full")
    known = [mount._monitor.known()]
    monkeypatch.setattr(Uploads, "trouble", uploads)
    known.append(mount._monitor.known())
    mount._bypass.found = cache
    assert [*known, mount._monitor.known()] == [None, uploads, cache]


async def test_the_way_back_to_the_cache_waits_for_operations(mount: RcloneMount, board: Board) -> None:
    before = mount._cache.is_busy()
    board.set_operations(Operation(1, "switch", "hub", "v22", "v23", "tina", "cli", "warm", "2026-01-01T00:00:00Z"))
    assert (before, mount._cache.is_busy()) == (False, True)


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


async def test_what_rclone_has_left_in_its_group_is_killed_before_it_is_unmounted(
    mount: RcloneMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = FakeChild()
    child.end(0)
    mount._engine.child = child
    signals: list[list[signal.Signals]] = []

    async def clear(*_: object, **__: object) -> Cleared:
        signals.append([*child.signals])
        return Cleared(0)

    monkeypatch.setattr("mountd.fuse.unmount.clear", clear)
    await mount.clean()
    assert signals == [[signal.SIGKILL]]
    assert mount._engine.child is None


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
