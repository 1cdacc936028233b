"""Mounts, models and apps with their tasks: begun, paused, stopped and removed, also those that do not stop."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from mountd.cache.upload_state import Pending
from mountd.daemon import members as members_module
from mountd.errors import CannotStart, NotUploaded
from mountd.journal.journal import Committed
from mountd.process.lifecycle import Notice
from mountd.status.snapshot import State
from tests.support.fake_child import FakeChild
from tests.support.reloader import Bench, bench, carry_out, idle_bench, posted
from tests.support.shelf import until


def show(room: Bench, name: str, state: State) -> None:
    room.board.set_mount(name, replace(room.board.snapshot.mounts[name], state=state))


async def test_one_that_begins_is_wanted_and_reports_its_bugs(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench() as (room, group):
        members, error = room.members, KeyError("x")
        bugs: list[tuple[str, BaseException]] = []
        monkeypatch.setattr(members.tasks, "report_bug", lambda part, found: bugs.append((part, found)))
        members.begin("webui")
        supervisor = members.supervisors["webui"]
        supervisor.on_bug("webui", error)
        assert bugs == [("webui", error)]
        await until(lambda: supervisor.life.wanted, "it to be wanted")
        assert members.model_tasks() == []
        members.begin("hub")
        (task,) = members.model_tasks()
        await members.pause("hub")
        assert (task.cancelled(), members.model_tasks()) == (True, [])
        await members.pause("hub")
        members.begin("hub")
        (task,) = members.model_tasks()
        assert not task.done()
        members.cancel()
        await asyncio.wait([task])
        assert group is members.tasks


async def test_all_begin_from_the_bottom_up() -> None:
    async with idle_bench() as (room, begun):
        room.members.run()
        assert begun == ["storage", "hub", "webui"]


@pytest.mark.parametrize("kind", ["mounts", "apps"])
async def test_a_stop_reaches_each_and_waits_until_all_are_down_or_its_time_is_over(kind: str) -> None:
    async with bench() as (room, _):
        members, board = room.members, room.board
        name = {"mounts": "storage", "apps": "webui"}[kind]
        stop = {"mounts": members.stop_mounts, "apps": members.stop_apps}[kind]

        def show(state: State) -> None:
            if kind == "mounts":
                board.set_mount(name, replace(board.snapshot.mounts[name], state=state))
            else:
                board.set_app(name, replace(board.snapshot.apps[name], state=state))

        for down in (State.STOPPED, State.FAILED):
            show(State.CLEANING)
            stopping = asyncio.create_task(stop(20.0))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not stopping.done()
            assert posted(members.supervisors[name]) == [Notice.UNWANTED]
            show(down)
            async with asyncio.timeout(60):
                await stopping
        show(State.STOPPING)
        async with asyncio.timeout(60):
            await stop(0.01)


async def test_a_removed_mount_that_does_not_exit_is_killed_and_gone_once_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(members_module, "mount_stop_s", lambda _: 0.01)
    monkeypatch.setattr(members_module, "KILL_WAIT_S", 0.005)
    monkeypatch.setattr(members_module, "CLEAR_TIMEOUT_S", 0.005)
    async with idle_bench() as (room, _):
        members = room.members
        room.config["mounts"]["more"] = room.mount("more")
        await carry_out(room)
        child = members.supervisors["more"].child = FakeChild(signal.SIGKILL)
        show(room, "more", State.STOPPING)
        was = members.settings.mounts["more"]
        removal = asyncio.create_task(members.remove_mount("more", was))
        await asyncio.sleep(0)
        assert members.leaving == {"more": was}
        del room.config["mounts"]["more"]
        await removal
        assert child.signals == [signal.SIGKILL]
        assert (members.leaving, "more" in members.mounts, "more" in members.supervisors) == ({}, False, False)
        (task,) = members._stuck
        await asyncio.sleep(0)
        assert not task.done()
        child.end(-9)
        await until(task.done, "its end")
        assert "more" not in room.board.snapshot.mounts
        assert not members._stuck


async def test_files_that_no_mount_could_upload_end_mountd_with_a_failure() -> None:
    async with bench() as (room, _):
        members = room.members
        members.check_uploaded()
        members.mounts["storage"]._uploads.left = Pending(1, 5, ("a.wav",))
        with pytest.raises(NotUploaded) as failed:
            members.check_uploaded()
        assert "a.wav" in failed.value.text


async def test_one_that_exits_in_time_is_not_killed() -> None:
    async with idle_bench() as (room, _):
        members = room.members
        room.config["mounts"]["more"] = room.mount("more")
        await carry_out(room)
        child = members.supervisors["more"].child = FakeChild()
        show(room, "more", State.STOPPING)
        removal = asyncio.create_task(members.remove_mount("more", members.settings.mounts["more"]))
        await asyncio.sleep(0)
        show(room, "more", State.STOPPED)
        async with asyncio.timeout(60):
            await removal
        assert (child.signals, members._stuck) == ([], set())
        assert "more" not in room.board.snapshot.mounts


async def test_what_is_read_as_a_proof_of_a_mount() -> None:
    """Its live version, else the wanted one; nothing of other mounts."""
    async with bench() as (room, _):
        hub = room.members.models["hub"]
        assert room.members.probe_paths("storage") == hub.versions.paths("v22")
        await room.journal.commit("hub", Committed("v21", None, "v23", "v23"))
        await hub.load()
        assert room.members.probe_paths("storage") == hub.versions.paths("v21")
        assert room.members.probe_paths("storage") != hub.versions.paths("v23")
        assert room.members.probe_paths("more") == []


async def test_a_mount_point_is_one_also_while_nothing_is_mounted() -> None:
    async with bench() as (room, _):
        assert room.members.mount_points() == {str(room.root / "storage")}


async def removed_and_stuck(room: Bench, monkeypatch: pytest.MonkeyPatch) -> tuple[FakeChild, asyncio.Task[None]]:
    """The mount `more`, whose rclone not even SIGKILL ends, is removed: its rclone, and what waits for its end."""
    monkeypatch.setattr(members_module, "mount_stop_s", lambda _: 0.01)
    monkeypatch.setattr(members_module, "KILL_WAIT_S", 0.005)
    monkeypatch.setattr(members_module, "CLEAR_TIMEOUT_S", 0.005)
    child = room.members.supervisors["more"].child = FakeChild(signal.SIGKILL)
    show(room, "more", State.STOPPING)
    del room.config["mounts"]["more"]
    await carry_out(room)
    (task,) = room.members._stuck
    return child, task


@pytest.mark.parametrize(("successor", "cleared"), [("", 1), ("more", 0), ("other", 0)])
async def test_what_a_stuck_rclone_leaves_is_cleared_unless_another_mount_has_its_name_or_place(
    monkeypatch: pytest.MonkeyPatch, successor: str, cleared: int
) -> None:
    async with idle_bench() as (room, _):
        mount = room.config["mounts"]["more"] = room.mount("more")
        await carry_out(room)
        cleans: list[str] = []

        async def clean() -> None:
            cleans.append("more")

        monkeypatch.setattr(room.members.mounts["more"], "clean", clean)
        child, task = await removed_and_stuck(room, monkeypatch)
        assert list(room.board.snapshot.mounts) == ["storage"]
        if successor:
            elsewhere = {"path": str(room.root / "elsewhere")} if successor == "more" else {}
            room.config["mounts"][successor] = mount | elsewhere
            await carry_out(room)
        child.end(-9)
        await until(task.done, "its end")
        assert len(cleans) == cleared
        assert list(room.board.snapshot.mounts) == ["storage", *[successor] * bool(successor)]


async def test_a_stop_waits_for_no_removed_mount_that_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    async with idle_bench() as (room, _):
        room.config["mounts"]["more"] = room.mount("more")
        await carry_out(room)
        _, task = await removed_and_stuck(room, monkeypatch)
        room.members.cancel()
        await asyncio.wait([task], timeout=60)
        assert task.cancelled()


async def test_an_app_that_cannot_be_stopped_is_removed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck() -> None:
        raise CannotStart("it hangs in the kernel", code="app-stuck")

    async with idle_bench() as (room, _):
        monkeypatch.setattr(room.members.apps["webui"], "stop", stuck)
        with capture_logs() as logs:
            await room.members.remove_app("webui")
        assert [each["cause"] for each in logs if each["log_level"] == "error"] == ["it hangs in the kernel"]
        assert (room.members.apps, dict(room.board.snapshot.apps)) == ({}, {})


async def test_what_was_a_secret_is_kept_from_apps_that_a_reload_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in mountd's own environment still."""
    monkeypatch.setenv("HF_HOME", "the-secret")
    async with idle_bench() as (room, _):
        assert (await room.members.apps["webui"]._build_environment())["HF_HOME"] == "the-secret"
        room.config["remotes"]["store"]["token"] = {"env": "HF_HOME"}
        await carry_out(room)
        del room.config["remotes"]["store"]["token"]
        room.config["apps"]["second"] = {"command": ["sleep", "60"]}
        await carry_out(room)
        for app in room.members.apps.values():
            assert "HF_HOME" not in await app._build_environment(), app.name


DATA = [{"model": "hub", "level": "data"}]
METADATA = [{"model": "hub", "level": "metadata"}]


@pytest.mark.parametrize(
    ("needs", "level"),
    [
        ([["hub"]], "pin"),
        ([DATA], "data"),
        ([["hub"], DATA, METADATA], "metadata"),
        ([DATA, ["hub"]], "data"),
        ([[]], "pin"),  # nobody waits for it
    ],
)
async def test_a_model_is_linked_once_the_app_that_needs_the_least_of_it_can_start(
    needs: list[list[Any]], level: str
) -> None:
    async with idle_bench() as (room, _):
        room.config["models"]["hub"]["warm"] = {"level": "pin"}
        room.config["apps"] = {
            f"app-{number}": {"command": ["sleep", "60"], "needs": each} for number, each in enumerate(needs)
        }
        await carry_out(room)
        assert room.members.models["hub"].levels.first() == level


@pytest.mark.parametrize(("profile", "uploads"), [("model-hub", False), ("outputs", True)])
async def test_only_a_mount_that_is_written_to_uploads_what_waits_in_its_cache(profile: str, uploads: bool) -> None:
    async with idle_bench() as (room, _):
        room.config["mounts"]["more"] = room.mount("more") | {"profile": profile}
        await carry_out(room)
        assert room.members._uploads_from(room.root / "cache-more") is uploads
        assert not room.members._uploads_from(room.root / "cache-of-nobody")
