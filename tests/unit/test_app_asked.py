"""What an operation asks of an app: to stop, start and get ready in time; and what becomes of what an app leaves."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.app import app as app_module
from mountd.app import ready
from mountd.app.app import App
from mountd.app.belonging import Belonging
from mountd.errors import CannotStart, MountdError, Unavailable
from mountd.process import init
from mountd.process.child import Child, User
from mountd.process.lifecycle import Notice
from mountd.status.load import AppLoad
from mountd.status.snapshot import AppStatus, Reason, State
from tests.support.fake_child import FakeChild
from tests.support.reloader import posted
from tests.support.wait import until_async
from tests.unit.test_app_follows import MODEL, made, runs, seen

SOON_S = 30.0
EXITED = Reason("app-exited", "webui ended with exit code 1", "app", "webui", "see its log")
TTS = User("tts", 7, 7, (), "/home/tts")


@pytest.fixture
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SETTLE_S", "GATE_LIMIT_S", "SPAWN_LIMIT_S", "KILL_WAIT_S", "HELPERS_S"):
        monkeypatch.setattr(app_module, name, 0.005)


# -- stop -------------------------------------------------------------------------------------------------------------


async def test_a_stop_ends_when_nothing_of_the_app_runs(tmp_path: Path) -> None:
    app, _ = made(tmp_path)
    runs(app)
    stopping = asyncio.create_task(app.stop())
    for state in (State.STOPPING, State.CLEANING):
        runs(app, state=state)
        await seen()
        assert not stopping.done()
    runs(app, state=State.STOPPED)
    await asyncio.wait_for(stopping, SOON_S)
    assert posted(app.supervisor) == [Notice.UNWANTED]


@pytest.mark.usefixtures("_no_patience")
async def test_a_stop_that_takes_too_long_names_what_is_stuck(tmp_path: Path) -> None:
    app, _ = made(tmp_path, stop={"grace": "10ms"})
    runs(app, pid=4711)
    with pytest.raises(CannotStart) as stuck:
        await app.stop()
    assert (stuck.value.code, "pid 4711" in stuck.value.text) == ("app-stuck", True)


# -- start ------------------------------------------------------------------------------------------------------------


async def test_it_has_begun_when_a_process_of_it_runs(tmp_path: Path) -> None:
    app, board = made(tmp_path)
    beginning = asyncio.create_task(app.begin())
    await seen()
    assert posted(app.supervisor) == [Notice.WANTED]
    board.set_model("hub", MODEL)
    runs(app, state=State.STARTING)
    await seen()
    assert not beginning.done()
    runs(app, state=State.STARTING, pid=4711)
    await asyncio.wait_for(beginning, SOON_S)


@pytest.mark.usefixtures("_no_patience")
@pytest.mark.parametrize(
    ("is_linked", "state", "failure", "code"),
    [
        (False, State.STOPPED, None, "waiting-for-model"),
        (True, State.BACKOFF, None, "app-down"),
        (True, State.FAILED, EXITED, "app-exited"),
    ],
)
async def test_why_it_cannot_begin(
    tmp_path: Path, is_linked: bool, state: State, failure: Reason | None, code: str
) -> None:
    app, board = made(tmp_path)
    if is_linked:
        board.set_model("hub", MODEL)
    app._failure = failure
    runs(app, state=state)
    with pytest.raises(CannotStart) as failed:
        await app.begin()
    assert failed.value.code == code


async def test_it_is_ready_when_it_runs_and_no_sooner(tmp_path: Path) -> None:
    app, _ = made(tmp_path)
    for state, failure in ((State.RUNNING, None), (State.FAILED, EXITED)):
        runs(app, state=State.STARTING)
        waiting = asyncio.create_task(app.become_ready())
        await seen()
        assert not waiting.done()
        app._failure = failure
        runs(app, state=state)
        if failure is None:
            await asyncio.wait_for(waiting, SOON_S)
            app.check_running()
        else:
            with pytest.raises(CannotStart) as failed:
                await asyncio.wait_for(waiting, SOON_S)
            assert (failed.value.code, failed.value.text, failed.value.hint) == (EXITED.code, EXITED.text, EXITED.hint)
            with pytest.raises(CannotStart):
                app.check_running()


@pytest.mark.usefixtures("_no_patience")
@pytest.mark.parametrize(
    ("shown", "is_linked", "code"),
    [
        (replace(EXITED, code="app-starting"), True, "app-starting"),
        (None, False, "waiting-for-model"),
        (None, True, "app-down"),
    ],
)
async def test_why_it_is_not_ready_in_time(tmp_path: Path, shown: Reason | None, is_linked: bool, code: str) -> None:
    app, board = made(tmp_path, stop={"grace": "5ms"})
    if is_linked:
        board.set_model("hub", MODEL)
    runs(app, state=State.STARTING, reason=shown)
    with pytest.raises(CannotStart) as failed:
        await app.become_ready()
    assert failed.value.code == code
    app.check_running()  # it may come yet


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CannotStart("no", hint="why", code="port-taken"), Reason("port-taken", "no", "app", "webui", "why")),
        (MountdError("no"), Reason("app-down", "no", "app", "webui")),
    ],
    ids=["with a code", "without"],
)
async def test_why_a_start_has_failed_is_known_afterwards(tmp_path: Path, error: MountdError, reason: Reason) -> None:
    asked: list[tuple[str, dict[str, str]]] = []

    async def refuse(name: str, versions: Mapping[str, str], show: Callable[[AppLoad], None]) -> None:
        asked.append((name, {**versions}))
        raise error

    app, board = made(tmp_path)
    board.set_model("hub", MODEL)
    app._before_start = refuse
    with pytest.raises(MountdError):
        await app.start(lambda _: None)
    assert asked == [("webui", {"hub": "v22"})], "what it will find"
    assert app._failure == reason


@pytest.mark.usefixtures("_no_patience")
async def test_a_start_that_succeeds_forgets_the_last_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app, _ = made(tmp_path, command=["sleep", "60"], needs=[])
    monkeypatch.setattr(app, "_failure", EXITED)
    children: list[Child] = []
    try:
        await app.start(children.append)
        assert app._failure is None
    finally:
        await app.clean()
    await asyncio.wait_for(children[0].wait(), SOON_S)
    assert children[0].exit is not None
    assert children[0].exit.code == -signal.SIGKILL


async def test_one_that_is_never_ready_says_what_its_check_has_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "INTERVAL_S", 0.01)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}/"
        app, board = made(tmp_path, ready={"http": address, "timeout": "60s"})
        limits, timeout = list[asyncio.Timeout](), asyncio.timeout

        def limited(delay_s: float | None) -> asyncio.Timeout:
            limits.append(timeout(delay_s))
            return limits[-1]

        monkeypatch.setattr(asyncio, "timeout", limited)
        reaching = asyncio.create_task(app._reach_ready())
        await until_async(lambda: board.snapshot.apps["webui"].reason, SOON_S, "its check to be asked")
        limits[0].reschedule(asyncio.get_running_loop().time())  # its time is over as soon as something was said
        with pytest.raises(CannotStart) as failed:
            await reaching
    shown = board.snapshot.apps["webui"].reason
    assert shown is not None
    assert (failed.value.code, shown.code) == ("app-not-ready", "app-starting")
    assert address in failed.value.text


# -- whom it runs as --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "others", "state", "uid"),
    [
        (None, "tts", State.STOPPED, None),
        (TTS, "tts", State.RUNNING, None),
        (TTS, "tts", State.STOPPING, None),
        (TTS, "tts", State.BACKOFF, None),
        (TTS, "tts", State.CLEANING, 7),
        (TTS, "tts", State.STOPPED, 7),
        (TTS, "tts", State.FAILED, 7),
        (TTS, "asr", State.RUNNING, 7),
        (TTS, None, State.RUNNING, 7),
    ],
)
def test_what_its_user_has_left_is_its_own_while_no_other_app_of_that_user_is_up(
    tmp_path: Path, user: User | None, others: str | None, state: State, uid: int | None
) -> None:
    app, board = made(tmp_path)
    app.user, app._users = user, {"other": others}
    board.set_app("other", AppStatus(state=state))
    assert app._uid_of_its_own() == uid


async def test_the_environment_of_another_user_is_his_and_its_marks_are_mountds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/root")
    app, _ = made(tmp_path, environment={"A": "1", "PYTHONUNBUFFERED": "", "MOUNTD_NAME": "another"})
    built = await app._build_environment()
    assert (built["HOME"], built["A"], built["PYTHONUNBUFFERED"]) == ("/root", "1", "")
    app.user = TTS
    built = await app._build_environment()
    assert (built["HOME"], built["USER"], built["LOGNAME"]) == ("/home/tts", "tts", "tts")
    assert built.items() >= app._instance.marks("webui").items()
    assert (await made(tmp_path)[0]._build_environment())["PYTHONUNBUFFERED"] == "1"


# -- what it leaves ---------------------------------------------------------------------------------------------------


class Left(Belonging):
    """What is found of an app that has ended."""

    def __init__(self, app: App, found: list[str] | Unavailable) -> None:
        super().__init__(app._instance, app.name)
        self.found = found
        self.asked: list[tuple[int | None, bool]] = []

    async def end(self, uid: int | None, *, alone: bool) -> list[str]:
        self.asked.append((uid, alone))
        if isinstance(self.found, Unavailable):
            raise self.found
        return self.found


def has_ended(app: App, child: Child, left: Belonging, *, well: bool) -> None:
    app._child, app._belonging, app._ended_well, app._failure = child, left, well, EXITED


@pytest.mark.usefixtures("_no_patience")
@pytest.mark.parametrize(
    ("ended_well", "found", "signals", "code"),
    [
        (True, ["12 sleep"], [signal.SIGKILL], "app-detached"),
        (True, [], [signal.SIGKILL], "app-exited"),
        (False, ["12 sleep"], [signal.SIGKILL] * 2, "app-exited"),
        (False, Unavailable("the look hangs"), [signal.SIGKILL] * 2, "app-exited"),
    ],
    ids=["detached", "ended", "crashed", "unseen"],
)
async def test_what_an_app_has_left_is_ended_and_only_without_an_error_it_has_detached(
    tmp_path: Path,
    ended_well: bool,
    found: list[str] | Unavailable,
    signals: list[signal.Signals],
    code: str,
) -> None:
    app, board = made(tmp_path)
    app._users = {"other": None}
    board.set_app("other", AppStatus(state=State.RUNNING))
    child, left = FakeChild(), Left(app, found)
    has_ended(app, child, left, well=ended_well)
    await app.clean()
    assert (child.signals, app._child) == (signals, None), "its group, before and after"
    assert left.asked == [(None, False)]
    assert (app._failure and app._failure.code) == code
    board.set_app("other", AppStatus(state=State.FAILED))
    await app.clean()
    assert left.asked[1:] == [(None, True)]


@pytest.mark.parametrize(
    ("uid", "alone", "entered", "parent", "words"),
    [
        (None, False, False, 5, []),
        (7, False, False, 5, ["uid=7"]),
        (0, False, False, 5, []),
        (None, True, False, 5, ["loose=5"]),
        (None, True, True, 5, []),  # its cgroup has all of it
        (None, True, False, None, []),  # others may have left something there
        (7, True, False, 5, ["uid=7", "loose=5"]),
    ],
)
def test_by_what_else_than_its_marks_it_is_known(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uid: int | None,
    alone: bool,
    entered: bool,
    parent: int | None,
    words: list[str],
) -> None:
    monkeypatch.setattr(init, "subreaper", lambda: parent)
    belonging = Belonging(made(tmp_path)[0]._instance, "webui")
    belonging._seen, belonging._entered = {(12, 99)}, entered
    assert belonging._words(uid, alone=alone) == ["12:99", *words]
