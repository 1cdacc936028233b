"""Tasks and threads of the daemon: what is lacking is lent and shown, a bug stops mountd, nothing delays the exit."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from concurrent.futures import Future

import pytest
from structlog.testing import capture_logs

from mountd.daemon import tasks as tasks_module
from mountd.daemon import threads
from mountd.daemon.tasks import Tasks
from mountd.daemon.threads import Reserve, Threads
from mountd.errors import Exhausted
from mountd.process import init
from mountd.status.board import Board
from tests.support import wait
from tests.support.shelf import until

FULL = OSError(errno.EMFILE, "too many open files")
NO_SPACE = OSError(errno.ENOSPC, "no space left on device")


class Counting(Reserve):
    """Counts what it lends; is full again after so many refusals."""

    def __init__(self, refusals: int = 0) -> None:
        self.lent: list[int] = []
        self.refusals = refusals

    def lend(self, count: int = threads.DESCRIPTORS) -> int:
        self.lent.append(count)
        return count

    def refill(self) -> bool:
        self.refusals -= 1
        return self.refusals < 0


def no_bug() -> None:
    pytest.fail("no bug")


async def test_descriptors_are_lent_to_requests_until_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "REFILL_S", 0.005)
    board, reserve, loop = Board(), Counting(2), asyncio.get_running_loop()
    tasks = Tasks(board, reserve, no_bug)
    for _ in range(2):
        tasks.unhandled(loop, {"message": "socket.accept() out of system resource", "exception": FULL})
    assert board.snapshot.lacks["api"].code == "no-descriptors"
    assert reserve.lent == [tasks_module.LENT] * 2
    await board.wait_until(lambda now: not now.lacks, 60)
    assert reserve.lent == [tasks_module.LENT] * 4, "again after each refusal"
    assert reserve.refusals == -1, "one timer, which ends"
    await asyncio.sleep(0.02)
    assert reserve.refusals == -1


async def test_what_no_descriptor_helps_is_shown_and_nothing_lent() -> None:
    board, reserve = Board(), Counting()
    Tasks(board, reserve, no_bug).unhandled(asyncio.get_running_loop(), {"message": "x", "exception": NO_SPACE})
    assert board.snapshot.lacks["api"].code == "disk-full"
    assert reserve.lent == []


async def test_a_stop_keeps_its_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "REFILL_S", 0.005)
    board, reserve = Board(), Counting(9)
    tasks = Tasks(board, reserve, no_bug)
    tasks.unhandled(asyncio.get_running_loop(), {"message": "x", "exception": FULL})
    board.set_stopping()
    await until(lambda: tasks._lent is None, "the timer")
    assert (reserve.refusals, len(reserve.lent)) == (9, 1)


async def test_what_a_part_waits_for_is_shown_until_it_continues() -> None:
    board = Board()
    tasks = Tasks(board, Counting(), no_bug)
    with capture_logs() as logs:
        for code in ("no-memory", "no-memory", "disk-full"):
            tasks.show_lack("look", Exhausted("x", hint="y", code=code))
            lack = board.snapshot.lacks["look"]
            assert (lack.code, lack.hint) == (code, "y")
        for _ in range(2):
            tasks.show_lack("look", None)
            assert not board.snapshot.lacks
    assert [each.get("code") for each in logs] == ["no-memory", "disk-full", None], "each once"
    tasks.report_bug("look", FULL)
    assert board.snapshot.lacks["look"].code == "no-descriptors"
    assert not tasks.is_broken


async def test_what_fails_in_a_stop_keeps_nothing_else_from_it() -> None:
    bugs: list[str] = []
    tasks = Tasks(Board(), Counting(), lambda: bugs.append(""))

    async def fail() -> None:
        raise KeyError("x")

    await tasks.run_last(fail)
    await tasks.run_last(fail)
    assert (bugs, tasks.is_broken) == ([""], True)


# -- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("busy_s", "takes_long"), [(0.02, True), (60.0, False)])
def test_a_busy_thread_delays_the_exit_no_longer_than_that(
    monkeypatch: pytest.MonkeyPatch, busy_s: float, takes_long: bool
) -> None:
    monkeypatch.setattr(threads, "BUSY_S", busy_s)
    pool, release, began = Threads(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        release.wait(60)

    busy = pool.submit(work)
    assert began.wait(60)
    if not takes_long:
        release.set()
    pool.shutdown()
    assert busy.done() is not takes_long
    release.set()
    busy.result(60)


def test_what_has_not_begun_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "THREADS", 1)
    monkeypatch.setattr(threads, "READY", 1)
    monkeypatch.setattr(threads, "BUSY_S", 60.0)
    pool, release, began = Threads(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        release.wait(60)

    busy: Future[None] = pool.submit(work)
    waits = pool.submit(work)
    assert began.wait(60)
    waits.add_done_callback(lambda _: release.set())
    pool.shutdown()
    assert (busy.done(), waits.cancelled()) == (True, True)
    # A thread sets its result before it takes the work from there.
    wait.until(lambda: not pool._under_way, 60.0, "no work to be under way", every_s=0.001)


def test_threads_that_cannot_be_started_leave_the_work_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = Threads()
    release = threading.Event()
    held = [pool.submit(release.wait, 60) for _ in range(threads.READY)]
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        late = pool.submit(str, 7)
    release.set()
    assert [late.result(60), *(each.result(60) for each in held)] == ["7", True, True, True]
    pool.shutdown()
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            Threads()


def test_what_is_left_of_a_run_is_cancelled() -> None:
    seen: list[str] = []
    kept: list[asyncio.Task[None]] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cancelled")

    async def work() -> str:
        seen.append(await asyncio.to_thread(lambda: threading.current_thread().name))
        kept.append(asyncio.create_task(wait()))
        await asyncio.sleep(0)
        return "done"

    assert threads.run(work()) == "done"
    assert seen[0].startswith("work")
    assert seen[1:] == ["cancelled"]


# -- the reserve ------------------------------------------------------------------------------------------------------


def test_a_reserve_that_cannot_be_filled_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = Reserve()
    held = len(reserve._descriptors)

    def refuse(*given: object) -> int:
        raise FULL

    with monkeypatch.context() as full:
        full.setattr(os, "open", refuse)
        assert not reserve.refill()
    assert reserve.refill()
    assert len(reserve._descriptors) == held == reserve.lend(held + 5)
    assert reserve.lend() == 0


def test_what_is_stuck_is_left_with_the_code_of_the_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    has_left = threading.Event()

    def leave(code: int) -> None:
        left.append(code)
        has_left.set()

    monkeypatch.setattr(init, "leave", leave)
    monkeypatch.setattr(threads, "LOG_S", 0.0)
    reserve = Reserve()
    assert not has_left.wait(0.01)
    reserve.end_within(0.01, exit_code=20)
    assert has_left.wait(60)
    assert (left, reserve._descriptors) == ([20], [])
