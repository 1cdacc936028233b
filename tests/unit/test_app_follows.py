"""What an app does with what changes on the board: it starts, restarts or stays, and what is shown of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.app.app import App
from mountd.daemon.secret_files import SecretFiles
from mountd.process.child import Child, Exit
from mountd.process.instance import Instance
from mountd.process.lifecycle import Event, Life, Notice, RestartAsked
from mountd.settings.load import Places, parse
from mountd.status.board import Board
from mountd.status.load import AppLoad
from mountd.status.snapshot import (
    DriftStatus,
    Health,
    ModelStage,
    ModelStatus,
    MountStage,
    MountStatus,
    Reason,
    Snapshot,
    State,
)
from tests.support.reloader import posted

PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))
MOUNT = MountStatus("/m", "s:b", State.RUNNING, MountStage.READY, Health.HEALTHY)
MODEL = ModelStatus("m", "/srv/hub", ModelStage.LINKED, Health.HEALTHY, "v22", mount_restarts=0)
ELSEWHERE = DriftStatus(Reason("link-drifted", "somebody"))


def made(tmp_path: Path, **keys: Any) -> tuple[App, Board]:
    data = {
        "remotes": {"s": {"type": "local"}},
        "mounts": {"m": {"remote": "s:/x", "path": "/m"}},
        "models": {"hub": {"mount": "m", "directory": "{version}", "link": "/srv/hub", "version": "v22"}},
        "apps": {"webui": {"command": ["x"], "needs": ["hub"], **keys}},
    }
    settings = parse(yaml.safe_dump(data), "x.yaml", PLACES).settings
    board = Board(Snapshot(mounts={"m": MOUNT}, models={"hub": replace(MODEL, stage=ModelStage.WAITING)}))
    instance = Instance.of(tmp_path, tmp_path)
    return App("webui", settings, instance=instance, board=board, read_secrets=SecretFiles(list).read), board


@asynccontextmanager
async def following(app: App) -> AsyncIterator[None]:
    """The gate alone; nothing is started."""
    task = asyncio.create_task(app._follow_needs())
    try:
        await seen()
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def seen() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def runs(app: App, **status: Any) -> None:
    """As if it had been started with what there is."""
    started: dict[str, Any] = {"state": State.RUNNING, "mounts": {"m": 0}, "versions": {"hub": "v22"}}
    app._publish(**started | status)


def restarts(events: list[Event]) -> list[bool]:
    """Of each restart that is asked for: whether nobody brought it about."""
    return [each.by_itself for each in events if isinstance(each, RestartAsked)]


async def test_it_may_start_while_what_it_needs_is_there(tmp_path: Path) -> None:
    app, board = made(tmp_path)
    async with following(app):
        assert posted(app.supervisor) == []
        board.set_model("hub", MODEL)
        await seen()
        assert posted(app.supervisor) == [Notice.ALLOWED]
        board.set_model("hub", replace(MODEL, previous="v21"))
        await seen()
        assert posted(app.supervisor) == []
        board.set_mount("m", replace(MOUNT, state=State.STOPPING))
        await seen()
        assert posted(app.supervisor) == [Notice.FORBIDDEN]


@pytest.mark.parametrize(("after", "follows"), [(["remount"], True), (["crash", "switch"], False)])
@pytest.mark.parametrize("unasked", [0, 1])
async def test_a_remount_behind_it(tmp_path: Path, after: list[str], follows: bool, unasked: int) -> None:
    app, board = made(tmp_path, restart={"after": after})
    async with following(app):
        board.set_model("hub", MODEL)
        runs(app)
        await seen()
        assert posted(app.supervisor) == [Notice.ALLOWED]
        board.set_mount("m", replace(MOUNT, restarts=1, unasked=unasked))
        await seen()
        assert restarts(posted(app.supervisor)) == [], "its model is not linked there yet"
        board.set_model("hub", replace(MODEL, mount_restarts=1))
        await seen()
        assert restarts(posted(app.supervisor)) == ([bool(unasked)] if follows else [])
        assert (app._status.health is Health.DEGRADED) is not follows
        board.set_model("hub", replace(MODEL, mount_restarts=1, previous="v21"))
        await seen()
        assert restarts(posted(app.supervisor)) == [], "asked once"


@pytest.mark.parametrize(
    ("after", "held", "asked"), [(["switch"], False, 1), (["switch"], True, 0), (["remount"], False, 0)]
)
async def test_one_that_was_started_behind_a_link_that_was_elsewhere(
    tmp_path: Path, after: list[str], held: bool, asked: int
) -> None:
    app, board = made(tmp_path, restart={"after": after})
    async with following(app):
        board.set_model("hub", replace(MODEL, drift=ELSEWHERE, drifted_to="v9"))
        runs(app, versions={"hub": "v9"})
        await seen()
        assert restarts(posted(app.supervisor)) == []
        with app.held() if held else contextlib.nullcontext():
            board.set_model("hub", MODEL)
            await seen()
            board.set_model("hub", replace(MODEL, previous="v21"))
            await seen()
        assert len(restarts(posted(app.supervisor))) == asked


@pytest.mark.parametrize(("state", "stops"), [(State.RUNNING, True), (State.STARTING, True), (State.BACKOFF, False)])
async def test_a_broken_cache_stops_it_where_the_file_says_so(tmp_path: Path, state: State, stops: bool) -> None:
    app, board = made(tmp_path)
    async with following(app):
        board.set_model("hub", MODEL)
        runs(app, state=state)
        await seen()
        posted(app.supervisor)
        board.set_mount("m", replace(MOUNT, cache_broken=True))
        await seen()
        assert posted(app.supervisor) == []
        board.set_mount("m", replace(MOUNT, cache_broken=True, cache_stops_apps=True))
        await seen()
        first, *rest = posted(app.supervisor)
        assert first is Notice.FORBIDDEN
        assert restarts(rest) == ([True] if stops else [])


async def test_what_failed_in_an_operation_is_wanted_when_it_ends_unless_mountd_stops(tmp_path: Path) -> None:
    app, board = made(tmp_path)
    for state, stopping, wanted in (
        (State.FAILED, False, [Notice.WANTED]),
        (State.RUNNING, False, []),
        (State.FAILED, True, []),
    ):
        if stopping:
            board.set_stopping()
        with app.held():
            runs(app, state=state)
            with app.held():
                pass
            assert posted(app.supervisor) == []
        assert posted(app.supervisor) == wanted


def test_what_is_shown_of_its_lives(tmp_path: Path) -> None:
    app, _ = made(tmp_path)
    assert (app._status.needs, app._status.follows_remounts) == (("hub",), True)
    for state in (State.STARTING, State.RUNNING, State.RUNNING, State.STARTING, State.RUNNING):
        app.changed(Life(state, restarts=3), "2026-01-01T00:00:00Z", 5)
    assert (app._status.restarts, app._status.unasked, app._status.pid) == (1, 3, 5)
    app.changed(Life(State.STOPPING, overdue=True), "", 5)
    killed = app._status.killed
    assert "SIGTERM" in killed
    app.changed(Life(State.STOPPED), "", None)
    assert app._status.killed == killed, "shown until it runs again"
    app.changed(Life(State.RUNNING), "", 6)
    assert app._status.killed == ""


@pytest.mark.parametrize("after", [State.RUNNING, State.STOPPING])
def test_how_far_its_load_is_is_shown_until_its_start_is_over(tmp_path: Path, after: State) -> None:
    app, board = made(tmp_path)
    app.changed(Life(State.STARTING), "", 5)
    app._publish(load=AppLoad(1, 100))
    app.changed(Life(State.STARTING), "", 6)
    assert board.snapshot.apps["webui"].load == AppLoad(1, 100)
    app.changed(Life(after), "", 6)
    assert board.snapshot.apps["webui"].load is None


def test_its_last_line_says_why_it_ended(tmp_path: Path) -> None:
    app, _ = made(tmp_path)
    app._on_line("first")
    app._on_line("CUDA out of memory " + "x" * 500)
    assert [line.text[:5] for line in app.ring.last(9)] == ["first", "CUDA "]
    ending = app.explain_exit(Exit(1))
    assert "CUDA out of memory" in ending.cause
    assert len(ending.cause) < 400


def test_how_long_it_may_take(tmp_path: Path) -> None:
    app, _ = made(tmp_path, stop={"grace": "7s"}, ready={"command": ["x"], "timeout": "90s"})
    assert app.stop_limit_s == 7 + 5
    assert app.ready_limit_s == 90 + 12
    assert made(tmp_path, stop={"grace": "7s"})[0].ready_limit_s == 1 + 12


async def test_what_it_was_started_with_is_known(tmp_path: Path) -> None:
    app, board = made(tmp_path)
    board.set_model("hub", replace(MODEL, drift=ELSEWHERE, drifted_to="v9"))
    children: list[Child] = []
    try:
        await app.start(children.append)
        await children[0].wait()  # there is no such program
        status = board.snapshot.apps["webui"]
        assert (status.mounts, status.versions) == ({"m": 0}, {"hub": "v9"})
    finally:
        await app.clean()
