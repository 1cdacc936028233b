"""What a machine lacks is distinguished from a mistake of mountd, and who waits for it goes on by itself."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from typing import ClassVar

import pytest
from structlog.testing import capture_logs

from mountd.daemon.foreign_logs import LINES
from mountd.daemon.tasks import Tasks
from mountd.daemon.threads import Reserve
from mountd.errors import Exhausted, JournalError
from mountd.process import steady
from mountd.process.lifecycle import Backoff
from mountd.process.resources import as_exhausted, lack, of_the_machine
from mountd.status import readiness
from mountd.status.board import Board
from mountd.status.events import between
from mountd.status.snapshot import Health


def of(number: int, *place: str) -> OSError:
    return OSError(number, os.strerror(number), *place)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (of(errno.EMFILE), "no-descriptors"),
        (of(errno.ENFILE), "no-descriptors"),
        (of(errno.EAGAIN), "no-processes"),
        (RuntimeError("can't start new thread"), "no-processes"),
        (MemoryError(), "no-memory"),
        (of(errno.ENOMEM), "no-memory"),
        (of(errno.ENOSPC, "/var/lib/mountd/x"), "disk-full"),
        (of(errno.EDQUOT, "/var/lib/mountd/x"), "disk-full"),
        (Exhausted("x", hint="y", code="no-memory"), "no-memory"),
        (of(errno.EIO, "/var/lib/mountd/x"), "system-error"),
        (ConnectionResetError(), "system-error"),
        (ExceptionGroup("", [of(errno.EMFILE), of(errno.EIO)]), "no-descriptors"),
        (ExceptionGroup("", [of(errno.EMFILE), KeyError()]), ""),
        (of(errno.EBADF), ""),
        (TimeoutError(), ""),
        (RuntimeError("dictionary changed size during iteration"), ""),
        (sqlite3.OperationalError("x"), ""),
        (KeyError("x"), ""),
    ],
    ids=str,
)
def test_what_is_the_machines_and_what_is_a_bug(error: Exception, code: str) -> None:
    found = of_the_machine(error)
    assert (found.code if found else "") == code
    assert found is None or (found.text and found.hint)
    assert (lack(error) is not None) == (code not in ("", "system-error") and not isinstance(error, ExceptionGroup))


def test_what_the_system_refuses_is_logged_with_the_place_in_mountd() -> None:
    error = of(errno.EIO, "/var/lib/mountd/x")
    with capture_logs() as logs, pytest.raises(Exhausted, match="/var/lib/mountd/x") as refused, as_exhausted():
        raise error
    assert [each["exc_info"] for each in logs] == [error]
    assert refused.value.__cause__ is error
    with capture_logs() as logs, pytest.raises(Exhausted), as_exhausted():
        raise of(errno.ENOSPC, "/srv/state")
    assert logs == []  # what is used up has no such place


async def test_so_it_is_of_a_part_that_waits() -> None:
    error = of(errno.EIO)
    with capture_logs() as logs:
        Tasks(Board(), Reserve(), lambda: None).report_bug("look", error)
    assert [(each["event"], each["exc_info"]) for each in logs] == [("a part of mountd waits", error)]


def test_where_there_is_no_room_is_named() -> None:
    with pytest.raises(Exhausted, match="/srv/state"), as_exhausted():
        raise of(errno.ENOSPC, "/srv/state")
    with pytest.raises(JournalError), as_exhausted():  # what is expected stays what it is
        raise JournalError("cannot write")


async def test_a_task_waits_for_what_is_lacking_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "AGAIN", Backoff(0.01, 1.0, 0.01))
    monkeypatch.setattr(steady, "STEADY_S", 0.05)
    board, bugs, tries = Board(), list[str](), 0
    before = board.snapshot

    async def work() -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise of(errno.EMFILE)
        await asyncio.Event().wait()

    async with asyncio.timeout(60), Tasks(board, Reserve(), lambda: bugs.append("")) as tasks:
        task = tasks.keep(work, "look")
        await board.wait_until(lambda now: "look" in now.lacks)
        now = board.snapshot
        assert readiness.health(now) is Health.DEGRADED
        assert [reason.code for reason in readiness.reasons(now)] == ["no-descriptors"]
        assert [each.code for each in between(before, now)] == ["no-descriptors"]
        await board.wait_until(lambda now: not now.lacks)
        assert [each.code for each in between(now, board.snapshot)] == ["recovered"]
        assert tries == 4
        task.cancel()
    assert not bugs


async def test_a_bug_ends_no_other_task_and_is_heard_of_once() -> None:
    board, bugs = Board(), list[str]()

    async def wait() -> None:
        await asyncio.Event().wait()

    async def bug() -> None:
        raise KeyError("x")

    async with asyncio.timeout(60), Tasks(board, Reserve(), lambda: bugs.append("")) as tasks:
        other = tasks.keep(wait, "other")
        for _ in range(2):
            await tasks.keep(bug, "broken")
        assert tasks.is_broken
        assert bugs == [""]
        assert not other.done()
        assert not board.snapshot.lacks
        other.cancel()


async def test_of_failures_in_the_event_loop_a_few_of_a_kind_are_logged() -> None:
    loop, tasks = asyncio.get_running_loop(), Tasks(Board(), Reserve(), lambda: None)
    with capture_logs() as logs:
        for number in range(100):
            tasks.unhandled(loop, {"message": "a callback has failed", "exception": ValueError(number)})
        tasks.unhandled(loop, {"message": "a callback has failed", "exception": KeyError("x")})
        tasks.unhandled(loop, {"message": "something without an exception"})
    assert [each["event"] for each in logs] == ["unexpected failure in the event loop"] * (LINES + 2)
    assert len([each for each in logs if isinstance(each["exc_info"], ValueError)]) == LINES


def test_the_reserve_is_given_back() -> None:
    def used() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = used()
    reserve = Reserve()
    held = used() - before
    assert held > 0
    assert reserve.lend(2) == 2
    assert used() - before == held - 2
    assert reserve.refill()
    assert used() - before == held
    assert reserve.lend() == held
    assert used() == before


class Noted(Backoff):
    """Waits never; `asked` holds the failures in a row that it was asked about."""

    asked: ClassVar[list[int]] = []

    def delay_s(self, failures: int) -> float:
        self.asked.append(failures)
        return 0.0


@pytest.mark.parametrize(("steady_s", "in_a_row"), [(3600.0, [1, 2, 3]), (-1.0, [1, 1, 1])])
async def test_what_has_worked_for_a_while_waits_as_after_a_first_failure(
    monkeypatch: pytest.MonkeyPatch, steady_s: float, in_a_row: list[int]
) -> None:
    monkeypatch.setattr(steady, "STEADY_S", steady_s)
    monkeypatch.setattr(steady, "AGAIN", Noted())
    monkeypatch.setattr(Noted, "asked", [])
    results: list[OSError | None] = [of(errno.EMFILE), of(errno.ENOMEM), of(errno.EIO), None]
    reports: list[str | None] = []

    async def work() -> None:
        if (error := results.pop(0)) is not None:
            raise error

    def report(found: Exhausted | None) -> None:
        reports.append(found.code if found else None)

    await steady.keep(work, report)
    assert Noted.asked == in_a_row
    assert [each for each in reports if each] == ["no-descriptors", "no-memory", "system-error"]
    assert reports[-1] is None, "it is over"
    reports.clear()
    results.append(None)
    await steady.keep(work, report)
    assert reports == [], "nothing was lacking"
    results.append(of(errno.EBADF))
    with pytest.raises(OSError, check=lambda error: error.errno == errno.EBADF):
        await steady.keep(work, report)
