"""What is recorded of an app's start: from before its spawn until it is ready, and what only mountd opened is not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from mountd.daemon import access_recorder
from mountd.daemon.access_recorder import AccessRecorder
from mountd.errors import Unavailable
from mountd.model.content import Content
from mountd.model.survey import FileList
from mountd.process.instance import Instance
from mountd.status.board import Board
from mountd.status.load import AppLoad
from mountd.status.snapshot import AppStatus, DriftStatus, ModelStage, ModelStatus, Reason, Snapshot, State
from mountd.warm import opens
from mountd.warm.access import AccessProfile
from tests.support.tasks import tasks_of
from tests.support.wait import until_async

SOON_S = 30.0
V22 = {"hub": "v22"}
SIZES = {"MANIFEST.json": 4, "config.yaml": 4, "models/gpt.pth": 4, "models/s2mel.pth": 4}


@dataclass
class LiveModel:
    content: Content | None


class Room:
    """A model `hub` of which v22 is live in a local directory, and the app `webui` that needs it."""

    def __init__(self, root: Path) -> None:
        self.hub = root / "hub_v22"
        for path in SIZES:
            (self.hub / path).parent.mkdir(parents=True, exist_ok=True)
            (self.hub / path).write_bytes(b"data")
        content = Content("v22", "hub_v22", FileList.of(SIZES), "d", True, ())
        self.models = {"hub": LiveModel(content)}
        self.status = ModelStatus("storage", "/l", ModelStage.LINKED, current="v22", target=str(self.hub))
        apps = {name: AppStatus(needs=("hub",)) for name in ("webui", "api")}
        self.board = Board(Snapshot(models={"hub": self.status}, apps=apps))
        self.tasks = tasks_of(self.board)
        instance = Instance.create(root / "state", root / "run")
        self.recorder = AccessRecorder(cast(Any, self.models), self.board, instance, self.tasks)
        self.loads: list[AppLoad] = []
        """as they were shown"""
        self._mark = f"MOUNTD_INSTANCE={instance.id}".encode()

    def show(self, state: State, app: str = "webui") -> None:
        self.board.set_app(app, replace(self.board.snapshot.apps[app], state=state))

    async def begin(self, app: str = "webui") -> None:
        self.show(State.STARTING, app)
        await self.recorder.before_start(app, V22, self.loads.append)

    async def until_shown(self, load: AppLoad) -> None:
        """The rate aside."""

        def is_shown() -> bool:
            return bool(self.loads) and replace(self.loads[-1], bytes_per_s=0.0) == load

        await until_async(is_shown, SOON_S, f"{load} to be shown")

    def open(self, *paths: str) -> None:
        for path in paths:
            (self.hub / path).read_bytes()

    async def until_opened(self, *paths: str) -> None:
        """The last one first."""
        await until_async(lambda: self.recorder.opened("hub") == [*paths], SOON_S, f"{paths} to be seen")

    async def until_seen(self, path: str) -> None:
        """Whoever opened it."""
        (recording,) = self.recorder._running.values()
        watch = recording.opens
        assert watch is not None
        await until_async(lambda: path in watch.seen, SOON_S, f"{path} to be seen")

    async def profile(self) -> AccessProfile | None:
        return await self.recorder.profiles.read("hub")

    async def until_recorded(self) -> AccessProfile:
        await self.until_over()
        found = await self.profile()
        assert found is not None
        return found

    async def until_over(self) -> None:
        await until_async(lambda: not self.recorder._running, SOON_S, "the recording to be over")
        assert self.children() == []

    def children(self) -> list[str]:
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if self._mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(pid)
        return found


@pytest.fixture
async def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    monkeypatch.setattr(access_recorder, "LAZY_S", 0.2)
    monkeypatch.setattr(access_recorder, "BEGIN_LIMIT_S", SOON_S)
    monkeypatch.setattr(access_recorder, "SHOW_S", 0.01)
    made = Room(tmp_path)
    async with made.tasks:
        yield made
        made.recorder.cancel()


def recorded(profile: AccessProfile, app: str = "webui") -> list[str]:
    return [file.path for file in profile.starts[app].files]


async def test_a_start_is_recorded_once_the_app_was_ready_for_a_while(room: Room) -> None:
    await room.begin()
    assert len(room.children()) == 1
    room.open("models/s2mel.pth")  # the very first thing that it does
    await room.until_opened("models/s2mel.pth")
    room.open("MANIFEST.json", "models/gpt.pth")
    await room.until_opened("models/gpt.pth", "models/s2mel.pth")
    assert await room.profile() is None
    room.show(State.RUNNING)
    profile = await room.until_recorded()
    assert (profile.starts["webui"].version, profile.partial) == ("v22", False)
    assert recorded(profile) == ["models/s2mel.pth", "models/gpt.pth"]
    assert room.recorder.opened("hub") == []


async def test_what_it_opens_after_it_is_ready_belongs_to_its_start(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_recorder, "LAZY_S", SOON_S)
    await room.begin()
    room.show(State.RUNNING)
    await asyncio.sleep(0)
    room.open("config.yaml")
    await room.until_opened("config.yaml")
    room.show(State.STOPPING)  # the while is over early
    assert recorded(await room.until_recorded()) == ["config.yaml"]


@pytest.mark.parametrize("after", [State.STOPPING, State.BACKOFF, State.FAILED])
async def test_a_start_that_fails_is_not_recorded(room: Room, after: State) -> None:
    await room.begin()
    room.open("config.yaml")
    await room.until_opened("config.yaml")
    room.show(after)
    await room.until_over()
    assert await room.profile() is None


async def test_a_start_that_opens_nothing_leaves_what_was_recorded(room: Room) -> None:
    for paths in (["config.yaml"], []):
        await room.begin()
        room.open(*paths)
        await room.until_opened(*paths)
        room.show(State.RUNNING)
        assert recorded(await room.until_recorded()) == ["config.yaml"]


async def test_what_mountd_opens_itself_does_not_count(room: Room) -> None:
    told: list[str] = []
    stop = room.recorder.follow("hub", told.append)
    await room.begin()
    for path in ("models/gpt.pth", "models/s2mel.pth"):
        room.recorder.own.note(str(room.hub / path))
        room.open(path)
        await room.until_seen(path)
    room.open("models/gpt.pth")
    await room.until_opened("models/gpt.pth")
    assert told == ["models/gpt.pth"]
    stop()
    room.open("config.yaml")
    await room.until_opened("config.yaml", "models/gpt.pth")
    assert told == ["models/gpt.pth"]
    room.show(State.RUNNING)
    assert recorded(await room.until_recorded()) == ["models/gpt.pth", "config.yaml"]


async def test_a_start_is_shown_by_what_the_one_before_opened(room: Room) -> None:
    await room.begin()
    room.open("models/gpt.pth")
    await room.until_shown(AppLoad(0, 0))
    room.open("models/s2mel.pth")
    await room.until_shown(AppLoad(1, 4))
    room.show(State.RUNNING)
    await room.until_recorded()
    await room.begin()
    await room.until_shown(AppLoad(0, 0, 2, 8))
    room.open("models/s2mel.pth")
    await room.until_opened("models/s2mel.pth")
    room.open("config.yaml")  # not at its last start
    await room.until_shown(AppLoad(1, 4, 2, 8))
    assert room.loads[-1].percent == 50
    room.show(State.RUNNING)
    shown = len(room.loads)
    room.open("models/gpt.pth")
    await room.until_over()
    assert len(room.loads) == shown, "it is ready"


async def test_it_is_shown_at_most_so_often(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_recorder, "SHOW_S", 2 * SOON_S)
    await room.begin()
    for path in ("models/gpt.pth", "models/s2mel.pth", "config.yaml"):
        room.open(path)
        await room.until_seen(path)
    assert room.loads == []


async def test_where_what_was_recorded_cannot_be_read_a_start_is_recorded_all_the_same(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_: str) -> None:
        raise Unavailable("the disk is silent")

    with monkeypatch.context() as patched:
        patched.setattr(room.recorder.profiles, "read", fails)
        await room.begin()
        room.open("config.yaml")
        await room.until_opened("config.yaml")
        room.show(State.RUNNING)
        await room.until_over()
    assert recorded(await room.until_recorded()) == ["config.yaml"]


async def test_two_apps_are_recorded_each_for_itself(room: Room) -> None:
    for app, path in (("webui", "config.yaml"), ("api", "models/gpt.pth")):
        await room.begin(app)
        room.open(path)
        await room.until_opened(path)
        room.show(State.RUNNING, app)
        await room.until_over()
    profile = await room.profile()
    assert profile is not None
    assert {app: recorded(profile, app) for app in profile.starts} == {
        "webui": ["config.yaml"],
        "api": ["models/gpt.pth"],
    }


async def test_a_start_ends_the_recording_of_the_one_before(room: Room) -> None:
    await room.begin()
    room.open("config.yaml")
    await room.until_opened("config.yaml")
    await room.begin()
    assert len(room.recorder._running) == 1
    room.open("models/gpt.pth")
    await room.until_opened("models/gpt.pth")
    room.show(State.RUNNING)
    assert recorded(await room.until_recorded()) == ["models/gpt.pth"]


@pytest.mark.parametrize(
    "status",
    [{"target": None}, {"drift": DriftStatus(Reason("link-drifted", "somebody"), target="/elsewhere")}],
    ids=["no link", "drifted"],
)
async def test_where_the_files_are_not_known_nothing_is_watched(room: Room, status: dict[str, Any]) -> None:
    room.board.set_model("hub", replace(room.status, **status))
    await room.begin()
    assert (room.recorder._running, room.children()) == ({}, [])


async def test_where_the_version_is_not_the_one_that_is_known_nothing_is_watched(room: Room) -> None:
    room.show(State.STARTING)
    await room.recorder.before_start("webui", {"hub": "v23", "none": "v1"})
    room.models["hub"].content = None
    await room.recorder.before_start("webui", V22)
    assert (room.recorder._running, room.children()) == ({}, [])


async def test_where_nothing_can_be_watched_the_app_starts_all_the_same(room: Room) -> None:
    room.board.set_model("hub", replace(room.status, target="/no/such/directory"))
    await room.begin()
    await room.until_over()
    assert await room.profile() is None


async def test_while_a_process_does_not_go_no_other_is_begun(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """D state cannot be had without FUSE: a signal that does not kill stands for it."""
    monkeypatch.setattr(opens, "CLOSE_LIMIT_S", 0.1)
    await room.begin()
    (pid,) = room.children()
    with monkeypatch.context() as patched:
        patched.setattr(signal, "pidfd_send_signal", lambda *_: None)
        room.show(State.FAILED)
        await until_async(lambda: not room.recorder._running, SOON_S, "the recording to be over")
    await room.begin()
    assert (room.recorder._running, room.children()) == ({}, [pid])
    os.kill(int(pid), signal.SIGKILL)
    await until_async(lambda: room.recorder._stuck["hub"].pid is None, SOON_S, "it to be reaped")
    await room.begin()
    assert len(room.children()) == 1


async def test_a_recording_ends_when_mountd_stops(room: Room) -> None:
    await room.begin()
    room.board.set_stopping()
    await room.until_over()
