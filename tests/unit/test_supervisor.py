"""The supervisor around a child that is no process: what it makes of each failure of its service."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from mountd.errors import CannotStart, MountdError, UsageError
from mountd.process import steady, supervisor
from mountd.process.child import Child, Exit
from mountd.process.lifecycle import Backoff, Exited, Life, Notice, Policy
from mountd.process.supervisor import MustReplace, ShouldRestart, Supervisor
from mountd.status.snapshot import State
from tests.support.fake_child import FakeChild
from tests.support.shelf import until

FULL = OSError(errno.EMFILE, "too many open files")
SOON = Backoff(0.001, 1.0, 0.001)
LATER = Policy(grace_s=30.0, prepare_s=30.0, backoff=Backoff(1000.0, 1.0, 1000.0))


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "AGAIN", SOON)
    monkeypatch.setattr(steady, "AGAIN", SOON)
    monkeypatch.setattr(supervisor, "TICK_S", 600.0)  # so what is due comes by itself


class FakeService:
    """Ready at once, unless an event is cleared. What `fails` holds of a method is raised by its next call."""

    name = "storage"
    kind = "mount"
    stop_signal = signal.SIGINT

    def __init__(self, policy: Policy = LATER, *ignored: signal.Signals, **fails: BaseException) -> None:
        self.policy = policy
        self.fails = fails
        self.calls: list[str] = []
        self.children: list[FakeChild] = []
        self.shown: list[tuple[State, str, int | None]] = []
        self.lives: list[Life] = []
        self.prepared, self.spawns, self.gets_ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
        for event in (self.prepared, self.spawns, self.gets_ready):
            event.set()
        self._ignored = ignored

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call in self.fails:
            raise self.fails.pop(call)

    async def start(self, spawned: Callable[[Child], None]) -> None:
        self._note("start")
        await self.spawns.wait()
        self.children.append(FakeChild(*self._ignored))
        spawned(self.children[-1])
        await self.gets_ready.wait()

    async def watch(self) -> None:
        self._note("watch")
        try:
            await asyncio.Event().wait()
        finally:
            self.calls.append("watched")

    async def prepare_end(self) -> None:
        self._note("prepare")
        try:
            await self.prepared.wait()
        except asyncio.CancelledError:
            self.calls.append("unprepared")
            raise

    async def clean(self) -> None:
        self._note("clean")

    def explain_exit(self, exit_: Exit) -> Exited:
        self._note("explain")
        return Exited(f"explained {exit_}")

    def changed(self, life: Life, since: str, pid: int | None) -> None:
        self.shown.append((life.state, since, pid))
        self.lives.append(life)


class Run:
    def __init__(self, service: FakeService) -> None:
        self.service = service
        self.bugs: list[tuple[str, BaseException]] = []
        self.supervisor = Supervisor(service)
        self.supervisor.on_bug = lambda name, error: self.bugs.append((name, error))
        self.post = self.supervisor.post

    @property
    def life(self) -> Life:
        return self.supervisor.life

    @property
    def child(self) -> FakeChild:
        return self.service.children[-1]

    async def until(self, state: State) -> None:
        await until(lambda: self.life.state is state, str(state))

    async def start(self) -> None:
        self.post(Notice.WANTED)
        await self.until(State.RUNNING)

    async def stop(self) -> None:
        self.post(Notice.UNWANTED)
        await self.until(State.STOPPED)


@asynccontextmanager
async def running(service: FakeService) -> AsyncIterator[Run]:
    run = Run(service)
    task = asyncio.create_task(run.supervisor.run())
    try:
        yield run
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("error", "state", "retry_s", "is_bug"),
    [
        (CannotStart("no", retry_s=500.0), State.BACKOFF, 500.0, False),
        (CannotStart("no"), State.BACKOFF, None, False),
        (MountdError("no"), State.BACKOFF, None, False),
        (UsageError("no"), State.FAILED, None, False),
        (FULL, State.BACKOFF, None, False),
        (KeyError("no"), State.BACKOFF, None, True),
    ],
    ids=repr,
)
async def test_what_a_failed_start_means(error: Exception, state: State, retry_s: float | None, is_bug: bool) -> None:
    async with running(FakeService(start=error)) as run:
        run.post(Notice.WANTED)
        await run.until(state)
        assert (run.life.retry_s, run.life.failures) == (retry_s, 1)
        assert run.life.cause
        assert run.bugs == ([("storage", error)] if is_bug else [])


async def test_a_failed_start_is_tried_again_when_it_is_due() -> None:
    async with running(FakeService(Policy(backoff=SOON), start=CannotStart("no"))) as run:
        async with asyncio.timeout(60):
            await run.start()
        assert run.service.calls[:3] == ["start", "clean", "start"]


@pytest.mark.parametrize(
    ("error", "is_bug"), [(MountdError("busy"), False), (FULL, False), (KeyError("no"), True)], ids=repr
)
async def test_a_clean_that_fails_is_tried_again_and_a_bug_in_it_reported(error: Exception, is_bug: bool) -> None:
    async with running(FakeService(clean=error)) as run:
        await run.start()
        await run.stop()
        assert run.service.calls.count("clean") == 2
        assert run.bugs == ([("storage", error)] if is_bug else [])


@pytest.mark.parametrize(
    ("error", "number", "is_bug"),
    [
        (None, signal.SIGINT, False),
        (MustReplace("it hangs"), signal.SIGKILL, False),
        (MountdError("no"), signal.SIGINT, False),
        (FULL, signal.SIGINT, False),
        (KeyError("no"), signal.SIGINT, True),
    ],
    ids=repr,
)
async def test_the_signal_comes_whatever_its_preparation_does(
    error: Exception | None, number: signal.Signals, is_bug: bool
) -> None:
    async with running(FakeService()) as run:
        if error is not None:
            run.service.fails["prepare"] = error
        await run.start()
        await run.stop()
        assert run.child.signals == [number]
        assert run.bugs == ([("storage", error)] if is_bug else [])


async def test_a_preparation_has_its_time_and_no_more() -> None:
    async with running(FakeService(Policy(grace_s=30.0, prepare_s=0.01))) as run:
        run.service.prepared.clear()
        await run.start()
        await run.stop()
        assert run.child.signals == [signal.SIGINT]
        assert run.service.calls[-2:] == ["unprepared", "clean"]


async def test_a_child_that_ends_meanwhile_gets_no_signal_and_is_not_explained() -> None:
    async with running(FakeService()) as run:
        run.service.prepared.clear()
        await run.start()
        run.post(Notice.UNWANTED)
        await until(lambda: "prepare" in run.service.calls, "the preparation")
        run.child.end(0)
        await run.until(State.STOPPED)
        assert run.child.signals == []
        assert "unprepared" in run.service.calls
        assert "explain" not in run.service.calls
        assert run.supervisor.child is None


async def test_what_ignores_its_signal_is_killed_after_the_grace_that_begins_with_it() -> None:
    with capture_logs() as logs:
        async with running(FakeService(Policy(grace_s=0.01, prepare_s=30.0), signal.SIGINT)) as run:
            await run.start()
            async with asyncio.timeout(60):
                await run.stop()
            assert run.child.signals == [signal.SIGINT, signal.SIGKILL]
            assert [life.overdue for life in run.service.lives].count(True) > 0
    (late,) = [each for each in logs if "grace_s" in each]
    assert (late["signal"], late["grace_s"], late["log_level"]) == ("SIGINT", 0.01, "warning")


async def test_what_hangs_is_killed_at_once_and_what_should_restart_is_not() -> None:
    async with running(FakeService(Policy(backoff=SOON), watch=MustReplace("it hangs"))) as run:
        run.post(Notice.WANTED)
        await until(lambda: run.life.restarts == 1, "the next run")
        assert run.child is not run.service.children[0]
        assert run.service.children[0].signals == [signal.SIGKILL]
        assert "it hangs" in {life.cause for life in run.service.lives}
        assert "prepare" not in run.service.calls
    async with running(FakeService(Policy(backoff=SOON), watch=ShouldRestart("new keys"))) as run:
        run.post(Notice.WANTED)
        await until(lambda: run.life.restarts == 1, "the next run")
        assert run.service.children[0].signals == [signal.SIGINT]
        assert "new keys" in {life.cause for life in run.service.lives}


async def test_a_watch_lasts_as_long_as_its_run() -> None:
    async with running(FakeService(Policy(backoff=SOON))) as run:
        await run.start()
        await until(lambda: "watch" in run.service.calls, "the watch")
        run.post(Notice.TICKED)
        run.post(Notice.ALLOWED)
        await until(run.supervisor._queue.empty, "it to be handled")
        assert run.service.calls.count("watch") == 1
        run.child.end(1)
        await until(lambda: run.service.calls.count("watch") == 2, "the watch of the next run")
        assert run.service.calls.count("watched") == 1
        assert "explained exit code 1" in {life.cause for life in run.service.lives}
        await run.stop()
        await until(lambda: run.service.calls.count("watched") == 2, "its end")
        assert run.service.calls.count("watch") == 2


async def test_a_watch_that_lacks_something_goes_on_and_a_bug_in_it_is_reported() -> None:
    async with running(FakeService(watch=FULL)) as run:
        await run.start()
        await until(lambda: run.service.calls.count("watch") == 2, "the next try")
        assert (run.bugs, run.life.state) == ([], State.RUNNING)
    error = KeyError("no")
    async with running(FakeService(watch=error)) as run:
        await run.start()
        await until(lambda: run.bugs, "the report")
        assert (run.bugs, run.life.state) == ([("storage", error)], State.RUNNING)


async def test_an_exit_that_cannot_be_explained_is_one_all_the_same() -> None:
    async with running(FakeService(explain=KeyError("no"))) as run:
        await run.start()
        run.child.end(3)
        await until(lambda: len(run.service.children) == 2, "the next child")
        assert "exit code 3" in {life.cause for life in run.service.lives}


async def test_what_is_shown_and_logged_of_a_life(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(99))
    monkeypatch.setattr(supervisor, "now_text", lambda _: str(next(times)))
    with capture_logs() as logs:
        async with running(FakeService()) as run:
            await run.start()
            run.service.fails["start"] = CannotStart("no", retry_s=500.0)
            run.child.end(3)
            await run.until(State.BACKOFF)
            await run.stop()
    seen = dict.fromkeys(run.service.shown)
    assert list(seen) == [
        (State.STOPPED, "0", None),
        (State.STARTING, "1", None),
        (State.STARTING, "1", 4711),
        (State.RUNNING, "2", 4711),
        (State.CLEANING, "3", None),
        (State.STARTING, "4", None),
        (State.CLEANING, "5", None),
        (State.BACKOFF, "6", None),
        (State.STOPPED, "7", None),
    ]
    changes = [each for each in logs if "prev_state" in each]
    assert {each["mount"] for each in changes} == {"storage"}
    assert [each["prev_state"] for each in changes] == ["stopped", *(each["state"] for each in changes[:-1])]
    (ready,) = [each for each in changes if each["state"] == "running"]
    assert (ready["pid"], ready["log_level"], "delay_s" in ready) == (4711, "info", False)
    (waits,) = [each for each in changes if each["state"] == "backoff"]
    assert (waits["log_level"], waits["delay_s"], waits["attempt"], waits["cause"]) == ("warning", 500.0, 1, "no")


@pytest.mark.parametrize("has_child", [False, True])
async def test_a_start_that_is_not_wanted_any_more_is_given_up(has_child: bool) -> None:
    async with running(FakeService()) as run:
        (run.service.gets_ready if has_child else run.service.spawns).clear()
        run.post(Notice.WANTED)
        await until(lambda: run.life.attempting and run.life.child is has_child, "the attempt")
        await run.stop()
        assert (run.life.attempting, run.life.child, run.supervisor.child) == (False, False, None)
        assert [each.signals for each in run.service.children] == ([[signal.SIGINT]] if has_child else [])
        assert State.RUNNING not in [state for state, _, _ in run.service.shown]
        for event in (run.service.gets_ready, run.service.spawns):
            event.set()
        await run.start()


async def test_a_cancelled_run_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    async with running(FakeService()) as run:
        run.service.prepared.clear()
        await run.start()
        run.post(Notice.UNWANTED)
        await until(lambda: "prepare" in run.service.calls, "the preparation")
        run.child.end(0)
    await until(lambda: asyncio.all_tasks() == before, "the end of all tasks")
