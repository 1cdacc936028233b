"""What a person asks of an app: a stop that lasts, a start, a signal; who may ask when, and what is written of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mountd.app.app import App
from mountd.cli import completion
from mountd.errors import Busy, JournalError, NotFound, Refused, UsageError
from mountd.journal.journal import Journal
from mountd.operation.apps import SIGNALS, AppControl
from mountd.operation.running import Running
from mountd.operation.switch import Operations
from mountd.process.child import Child, spawn
from mountd.process.lifecycle import Notice, RestartAsked
from mountd.status import readiness
from mountd.status.board import Board
from mountd.status.snapshot import AppStatus, Health, State
from tests.support.reloader import posted
from tests.unit.test_app_follows import MODEL, following, made, runs


@dataclass
class Stage:
    app: App
    board: Board
    journal: Journal
    operations: Operations
    control: AppControl

    async def events(self) -> list[tuple[str, str]]:
        return [(each.code, each.text) for each in await self.journal.events(limit=100)]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    app, board = made(tmp_path)
    journal = Journal(tmp_path / "mountd.db")
    await journal.open()
    operations = Operations({}, {"webui": app}, board, journal)
    yield Stage(app, board, journal, operations, AppControl({"webui": app}, operations, board, journal))
    await journal.close()


async def test_a_stop_lasts_until_a_start(stage: Stage) -> None:
    stage.board.set_model("hub", MODEL)
    runs(stage.app, health=Health.HEALTHY)
    assert await stage.control.stop("webui", operator="tina", reason=" GPU\nfor training ")
    assert posted(stage.app.supervisor) == [Notice.UNWANTED]
    assert stage.board.snapshot.apps["webui"].stopped == "tina: GPU for training"
    assert not await stage.control.stop("webui", operator="bob"), "it is stopped already"
    runs(stage.app, state=State.STOPPED, pid=None)
    async with following(stage.app):
        stage.app.want()  # as after a reload, or the undo of a switch
        await stage.app.stop()
        assert posted(stage.app.supervisor) == [Notice.ALLOWED, Notice.UNWANTED], "nothing starts it"
    assert stage.control.is_stopped("webui")
    assert await stage.control.start("webui", operator="tina")
    assert posted(stage.app.supervisor) == [Notice.WANTED]
    assert not stage.control.is_stopped("webui")
    codes = [code for code, _ in await stage.events()]
    assert codes == ["app-stop-asked", "app-start-asked"]
    assert "tina: GPU for training" in (await stage.events())[0][1]


@pytest.mark.parametrize(
    ("state", "changed", "events"),
    [
        (State.RUNNING, False, []),
        (State.STARTING, False, []),
        (State.FAILED, True, [Notice.WANTED]),
        (State.BACKOFF, True, [Notice.WANTED, RestartAsked("tina started it")]),
        (State.STOPPED, True, [Notice.WANTED]),
        (State.STOPPING, True, [Notice.WANTED]),
    ],
)
async def test_a_start_of_what_nobody_has_stopped(stage: Stage, state: State, changed: bool, events: list[Any]) -> None:
    runs(stage.app, state=state)
    assert await stage.control.start("webui", operator="tina") is changed
    assert posted(stage.app.supervisor) == events


async def test_a_stopped_app_can_be_started_while_it_still_stops(stage: Stage) -> None:
    runs(stage.app)
    await stage.control.stop("webui", operator="tina")
    assert await stage.control.start("webui", operator="tina"), "it still runs, but was about to end"
    assert posted(stage.app.supervisor) == [Notice.UNWANTED, Notice.WANTED]


@pytest.mark.parametrize(
    ("running", "is_busy"),
    [
        (Running("switch", "hub", "v23", "bob", model="hub"), True),
        (Running("switch", "voices", "v23", "bob", model="voices"), False),
        (Running("switch", "voices", "v23", "bob", model="voices", apps=frozenset({"webui"})), True),
        (Running("warm", "hub", "v23", "bob", model="hub"), False),
        (Running("drill", "m", "kill", "bob"), True),
    ],
    ids=lambda each: f"{each.kind} {each.target}" if isinstance(each, Running) else "",
)
async def test_not_while_an_operation_starts_and_stops_it(stage: Stage, running: Running, is_busy: bool) -> None:
    runs(stage.app)
    stage.operations._running.append(running)
    for ask in (stage.control.stop, stage.control.start):
        if is_busy:
            with pytest.raises(Busy):
                await ask("webui", operator="tina")
        else:
            await ask("webui", operator="tina")
    assert bool(await stage.events()) is not is_busy


async def test_no_start_while_a_reload_changes_things_or_mountd_stops(stage: Stage) -> None:
    runs(stage.app)
    await stage.control.stop("webui", operator="tina")
    runs(stage.app, state=State.STOPPED, pid=None)
    async with stage.operations.quiet():
        with pytest.raises(Busy) as refused:
            await stage.control.start("webui", operator="tina")
        assert "reload" in refused.value.holder
    stage.board.set_stopping()
    with pytest.raises(Busy) as refused:
        await stage.control.start("webui", operator="tina")
    assert refused.value.holder == "a stop"
    assert posted(stage.app.supervisor) == [Notice.UNWANTED]
    assert stage.control.is_stopped("webui")


async def test_only_apps_can_be_asked(stage: Stage) -> None:
    for name in ("m", "", "nowhere"):
        for ask in (stage.control.stop, stage.control.start):
            with pytest.raises(NotFound):
                await ask(name, operator="tina")
        with pytest.raises(NotFound):
            await stage.control.signal(name, "HUP", operator="tina")
        assert not stage.control.is_stopped(name)


async def test_a_journal_that_cannot_be_written_keeps_nobody_from_a_stop(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise JournalError("cannot use the journal: the disk is full")

    monkeypatch.setattr(stage.journal, "event", fail)
    assert await stage.control.stop("webui", operator="tina")


# -- signals ----------------------------------------------------------------------------------------------------------

# Says which signal it got; its child, in the same group, says so too if it gets any.
OTHER = "(trap 'echo other usr1' USR1; while :; do sleep 0.05; done)"
TRAPS = f"trap 'echo main usr1' USR1; {OTHER} & echo ready; while :; do wait; done"


async def test_a_signal_goes_to_the_main_process_alone(stage: Stage) -> None:
    said: list[str] = []
    child = spawn(["/bin/sh", "-c", TRAPS], {"PATH": os.environ["PATH"]}, said.append)
    try:
        await _until_said(said, "ready")
        stage.app.supervisor.child = child
        runs(stage.app, pid=child.pid)
        for name in ("usr1", "SIGUSR1"):
            assert await stage.control.signal("webui", name, operator="tina") == ("SIGUSR1", child.pid)
            await _until_said(said, "main usr1")
            said.remove("main usr1")
        assert "other usr1" not in said
        (code, text), other = await stage.events()
        assert (code, other[0]) == ("app-signalled", "app-signalled")
        assert [word in text for word in ("SIGUSR1", "tina", str(child.pid))] == [True] * 3
        await stage.control.signal("webui", "KILL", operator="tina")
        await asyncio.wait_for(child.wait(), 30)
        with pytest.raises(Refused):
            await stage.control.signal("webui", "KILL", operator="tina")
    finally:
        await _end(child)


async def _until_said(said: list[str], line: str) -> None:
    async with asyncio.timeout(30):
        while line not in said:
            await asyncio.sleep(0.01)


async def _end(child: Child) -> None:
    child.signal(signal.SIGKILL)
    if child.exit is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # its group outlives it
    await child.wait()
    child.release()


@pytest.mark.parametrize("name", ["STOP", "SIGCONT", "TSTP", "SEGV", "9", "", "HUP TERM", "SIGSIGHUP"])
async def test_signals_that_are_not_sent(stage: Stage, name: str) -> None:
    with pytest.raises(UsageError):
        await stage.control.signal("webui", name, operator="tina")


@pytest.mark.parametrize("state", [State.STOPPED, State.BACKOFF, State.FAILED, State.STARTING])
async def test_without_a_process_there_is_nothing_to_signal(stage: Stage, state: State) -> None:
    runs(stage.app, state=state)
    with pytest.raises(Refused):
        await stage.control.signal("webui", "HUP", operator="tina")
    assert await stage.events() == []


def test_the_shell_offers_the_signals_that_are_sent() -> None:
    assert completion.SIGNALS == SIGNALS
    assert all(f"SIG{name}" in signal.Signals.__members__ for name in SIGNALS)


# -- readiness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("webui", "other", "ready", "health"),
    [
        (AppStatus(state=State.STOPPED, stopped="tina"), None, False, Health.SUSPENDED),
        (
            AppStatus(state=State.STOPPED, stopped="tina"),
            AppStatus(state=State.RUNNING, health=Health.HEALTHY),
            True,
            Health.SUSPENDED,
        ),
        (
            AppStatus(state=State.STOPPED, stopped="tina"),
            AppStatus(state=State.FAILED, health=Health.DEGRADED),
            False,
            Health.DEGRADED,
        ),
        (AppStatus(state=State.STOPPING, health=Health.PROGRESSING, stopped="tina"), None, False, Health.SUSPENDED),
    ],
)
async def test_a_stopped_app_is_suspended_and_others_serve_on(
    stage: Stage, webui: AppStatus, other: AppStatus | None, ready: bool, health: Health
) -> None:
    stage.board.set_model("hub", MODEL)
    stage.board.set_app("webui", webui)
    if other is not None:
        stage.board.set_app("other", other)
    now = stage.board.snapshot
    assert (readiness.is_ready(now), readiness.health(now)) == (ready, health)
    reason = next(each for each in readiness.reasons(now) if each.object == "webui")
    assert (reason.code, "tina" in reason.text, "mountd start webui" in reason.hint) == ("app-stopped", True, True)
