"""What a reload makes of each kind of change: who is stopped, replaced, begun and restarted, and when."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from mountd.daemon import logs
from mountd.errors import CannotStart
from mountd.process.lifecycle import Life, Notice, RestartAsked
from mountd.process.supervisor import Supervisor
from mountd.rclone import binary
from mountd.settings.change import Names
from mountd.settings.load import load
from mountd.settings.source import Place
from mountd.status.snapshot import ModelStage, State
from tests.support.reloader import bench, carry_out, idle_bench, posted
from tests.support.shelf import until

SECRET: Place = ("remotes", "store", "token")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rclone, to say what it can do."""
    monkeypatch.setattr(binary, "DEADLINE_S", 60.0)


def restarts(supervisor: Supervisor) -> int:
    events = posted(supervisor)
    assert all(isinstance(each, RestartAsked) for each in events)
    return len(events)


@pytest.mark.parametrize(
    ("state", "edit", "asked"),
    [
        (State.FAILED, {"ready": {"command": ["true"]}}, 1),
        (State.BACKOFF, {"stop": {"grace": "1s"}}, 1),
        (State.BACKOFF, {"restart": {"after": ["crash"]}}, 1),
        (State.RUNNING, {"ready": {"command": ["true"]}}, 0),
        (State.STARTING, {"stop": {"grace": "1s"}}, 0),
        (State.RUNNING, {"command": ["sleep", "60"]}, 1),
        (State.FAILED, {"command": ["sleep", "60"]}, 1),
        (State.FAILED, {}, 0),
    ],
)
async def test_which_changes_restart_an_app(state: State, edit: dict[str, Any], asked: int) -> None:
    async with bench() as (room, _):
        supervisor = room.members.apps["webui"].supervisor
        supervisor.life = Life(state, wanted=True)
        room.config["apps"]["webui"] |= edit
        room.config["models"]["hub"]["keep"] = "3"
        await carry_out(room)
        assert restarts(supervisor) == asked
        assert room.members.apps["webui"].settings == room.members.settings.apps["webui"]
        assert room.members.models["hub"].settings.keep == 3


@pytest.mark.parametrize("stopping", [False, True])
async def test_an_app_is_down_while_its_mount_is_replaced(stopping: bool) -> None:
    async with idle_bench() as (room, begun):
        members, webui = room.members, room.members.apps["webui"].supervisor
        room.config["apps"]["other"] = {"command": ["sleep", "60"]}
        await carry_out(room)
        begun.clear()
        posted(members.apps["other"].supervisor)
        before, its_supervisor = members.mounts["storage"], members.supervisors["storage"]
        room.config["mounts"]["storage"]["path"] = str(room.root / "elsewhere")
        if stopping:
            room.board.set_stopping()
        await carry_out(room)
        assert posted(webui) == ([Notice.UNWANTED] if stopping else [Notice.UNWANTED, Notice.WANTED])
        assert posted(members.apps["other"].supervisor) == []
        assert members.mounts["storage"] is not before
        assert posted(its_supervisor) == [Notice.UNWANTED]
        assert members.models["hub"].versions.disk is members.mounts["storage"].disk
        assert begun == ["storage", "hub"]
        assert room.board.snapshot.mounts["storage"].path == str(room.root / "elsewhere")


async def test_what_is_added_is_begun_from_the_bottom_up_and_what_is_removed_is_gone() -> None:
    async with idle_bench() as (room, begun):
        members = room.members
        room.config["apps"]["second"] = {"command": ["sleep", "60"], "needs": ["extra"]}
        room.config["models"]["extra"] = room.model("extra") | {"mount": "more"}
        room.config["mounts"]["more"] = room.mount("more")
        assert (await carry_out(room)).added == Names(("more",), ("extra",), ("second",))
        assert begun == ["more", "extra", "second"]
        assert members.models["extra"].committed.desired == "v22"
        now = room.board.snapshot
        assert (list(now.mounts), list(now.models), list(now.apps)) == (
            ["storage", "more"],
            ["hub", "extra"],
            ["webui", "second"],
        )
        second = members.apps["second"].supervisor
        for section, name in (("apps", "second"), ("models", "extra"), ("mounts", "more")):
            del room.config[section][name]
        await carry_out(room)
        now = room.board.snapshot
        assert (list(now.mounts), list(now.models), list(now.apps)) == (["storage"], ["hub"], ["webui"])
        assert (list(members.mounts), list(members.models), list(members.apps)) == (["storage"], ["hub"], ["webui"])
        assert list(members.supervisors) == list(members.rings) == ["storage", "webui"]
        assert (members.leaving, members.left) == ({}, {})
        assert posted(second) == [Notice.WANTED, Notice.UNWANTED]


async def test_a_mount_whose_model_goes_elsewhere_can_be_removed() -> None:
    async with idle_bench() as (room, begun):
        room.config["mounts"]["more"] = room.mount("more")
        del room.config["mounts"]["storage"]
        room.config["models"]["hub"]["mount"] = "more"
        await carry_out(room)
        assert begun == ["more", "hub"]
        hub = room.members.models["hub"]
        assert hub.versions.disk is room.members.mounts["more"].disk
        webui = room.members.apps["webui"].supervisor
        assert posted(webui) == [Notice.UNWANTED, Notice.WANTED]
        room.board.set_model("hub", replace(hub.status, stage=ModelStage.LINKED))
        await until(lambda: all(task.done() for task in room.reloader._applier.tasks()), "nothing to follow")
        assert posted(webui) == [], "it starts once the model is linked, and not twice"


async def test_an_app_follows_its_model_once_that_is_linked_in_its_new_place() -> None:
    async with idle_bench() as (room, begun):
        hub, webui = room.members.models["hub"], room.members.apps["webui"].supervisor
        for directory in ("a/{version}", "b/{version}"):
            room.config["models"]["hub"]["directory"] = directory
            await carry_out(room)
            assert len(room.reloader._applier.tasks()) == 1
            for _ in range(5):
                await asyncio.sleep(0)
        assert begun == ["hub", "hub"]
        assert restarts(webui) == 0
        room.board.set_model("hub", replace(hub.status, stage=ModelStage.LINKED))
        await until(room.reloader._applier.tasks()[0].done, "it to follow")
        assert restarts(webui) == 1


async def test_an_app_follows_its_own_model_alone() -> None:
    async with idle_bench() as (room, _):
        models, apps = room.members.models, room.members.apps
        room.config["models"]["voices"] = room.model("voices")
        room.config["apps"]["batch"] = {"command": ["sleep", "60"], "needs": ["voices"]}
        await carry_out(room)
        for name in ("hub", "voices"):
            room.config["models"][name]["directory"] = f"moved-{name}/{{version}}"
        await carry_out(room)
        of_hub, of_voices = room.reloader._applier.tasks()
        posted(apps["batch"].supervisor)
        room.board.set_model("hub", replace(models["hub"].status, stage=ModelStage.LINKED))
        await until(of_hub.done, "it to follow")
        assert (restarts(apps["webui"].supervisor), restarts(apps["batch"].supervisor)) == (1, 0)
        room.board.set_model("voices", replace(models["voices"].status, stage=ModelStage.LINKED))
        await until(of_voices.done, "it to follow")
        assert (restarts(apps["webui"].supervisor), restarts(apps["batch"].supervisor)) == (0, 1)


async def test_a_model_in_another_place_is_started_again() -> None:
    async with bench() as (room, _):
        room.members.begin("hub")
        (before,) = room.members.model_tasks()
        room.config["models"]["hub"]["directory"] = "a/{version}"
        await carry_out(room)
        (after,) = room.members.model_tasks()
        assert (before.cancelled(), after.done()) == (True, False)


async def test_an_app_that_is_removed_meanwhile_follows_nobody() -> None:
    async with idle_bench() as (room, begun):
        hub = room.members.models["hub"]
        room.config["models"]["hub"]["directory"] = "a/{version}"
        await carry_out(room)
        del room.config["apps"]["webui"]
        await carry_out(room)
        room.board.set_model("hub", replace(hub.status, stage=ModelStage.LINKED))
        await until(room.reloader._applier.tasks()[0].done, "its end")
        assert begun == ["hub"]


async def test_a_model_that_is_removed_is_no_longer_waited_for() -> None:
    async with idle_bench() as (room, begun):
        room.config["models"]["hub"]["directory"] = "a/{version}"
        await carry_out(room)
        (following,) = room.reloader._applier.tasks()
        room.config["apps"]["webui"]["needs"] = []
        del room.config["models"]["hub"]
        await carry_out(room)
        await until(following.cancelled, "it to be given up")
        assert room.reloader._applier.tasks() == []
        assert begun == ["hub"]


async def test_a_pending_switch_of_a_model_that_is_removed_is_given_up() -> None:
    async with idle_bench() as (room, begun):
        hub = room.members.models["hub"]
        await room.journal.commit("hub", replace(hub.committed, current="v22"))
        await hub.load()
        room.config["models"]["hub"]["version"] = "v23"
        await carry_out(room)
        (pending,) = room.desired.tasks()
        room.config["apps"]["webui"]["needs"] = []
        del room.config["models"]["hub"]
        await carry_out(room)
        await until(pending.cancelled, "it to be given up")
        assert (room.desired.tasks(), begun) == ([], [])


async def test_a_changed_flag_remounts() -> None:
    async with bench() as (room, _):
        room.config["mounts"]["storage"]["uid"] = "7"
        change = await carry_out(room)
        assert (change.remount, restarts(room.members.supervisors["storage"])) == (("storage",), 1)
        assert room.members.mounts["storage"]._settings == room.members.settings


@pytest.mark.parametrize(
    ("state", "refreshed", "remounted", "asked"),
    [
        (State.RUNNING, False, False, 0),
        (State.RUNNING, True, True, 1),
        (State.RUNNING, CannotStart("no"), False, 0),
        (State.BACKOFF, True, False, 1),
        (State.FAILED, False, False, 1),
    ],
    ids=str,
)
async def test_new_credentials(
    monkeypatch: pytest.MonkeyPatch, state: State, refreshed: bool | CannotStart, remounted: bool, asked: int
) -> None:
    """A mount that is down may be so for the old ones, and starts with the new ones."""
    async with bench() as (room, _):
        (room.root / "token").write_text("x")
        room.config["remotes"]["store"]["token"] = {"file": str(room.root / "token")}
        room.write()
        room.members.settings = load(room.file).settings
        supervisor = room.members.supervisors["storage"]
        supervisor.life = Life(state, wanted=True)

        async def refresh() -> bool:
            if isinstance(refreshed, CannotStart):
                raise refreshed
            return refreshed

        monkeypatch.setattr(room.members.mounts["storage"], "refresh_credentials", refresh)
        change = await carry_out(room, {SECRET: "old"})
        assert restarts(supervisor) == asked
        assert (change.remount, change.credentials) == (("storage",), ()) if remounted else ((), ("storage",))
        assert change.follow == (("webui",) if remounted else ())


async def test_the_level_of_the_log_is_that_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[str] = []
    monkeypatch.setattr(logs, "set_level", levels.append)
    async with bench() as (room, _):
        room.config["log"] = {"level": "debug"}
        await carry_out(room)
        assert levels == ["debug"]
