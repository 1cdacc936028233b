"""A warm without a real worker: which files it gives up and when, what a failure means, and what the worker gets."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mountd.errors import Exhausted, MountdError, RemoteError, Unavailable
from mountd.files.worker_process import WorkerProcess
from mountd.rclone.command import RcAddress
from mountd.warm.fetch import ASK_WHY_AFTER, MOST_DEATHS, Warming, fetch_into, read_through
from mountd.warm.plan import HOPELESS_FAILURES, LONGEST_PAUSE_S, WantedFile
from mountd.warm.results import FetchResult, FileFault
from tests.support.warmed import Heard

SHA, OTHER = "ab" * 32, "cd" * 32
FILE = WantedFile("a", 9, SHA)


class SilentWorker:
    """Hears everything, and says nothing."""

    def __init__(self) -> None:
        self.heard: list[Mapping[str, Any]] = []
        self.writer = SimpleNamespace(drain=self._drain)
        self.reader = asyncio.StreamReader()

    async def _drain(self) -> None:
        """It takes all at once."""

    def send(self, message: Mapping[str, Any]) -> None:
        self.heard.append(message)


def warming(*files: WantedFile, **options: Any) -> tuple[Warming, SilentWorker]:
    """Through a mount, with a worker that heard of the source and of the files."""
    return begun(read_through("/mnt/x/v1", files or (FILE,), **Heard().options(**options)))


def begun(made: Warming) -> tuple[Warming, SilentWorker]:
    worker = SilentWorker()
    made._worker = cast(WorkerProcess, worker)
    made._moved_at = time.monotonic()
    made._fill(made._worker)
    return made, worker


def again(text: str = "input/output error", number: int = errno.EIO, kind: str = "again") -> dict[str, Any]:
    return {"kind": kind, "errno": number, "status": 0, "text": text}


# -- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [False, True])
async def test_only_workers_that_never_answer_are_given_up(monkeypatch: pytest.MonkeyPatch, answers: bool) -> None:
    runs = 0

    async def run_worker(self: Warming) -> int | None:
        nonlocal runs
        runs += 1
        self._has_answered = answers
        return 3 if runs < 2 * MOST_DEATHS else None

    monkeypatch.setattr(Warming, "_run_worker", run_worker)
    made = read_through("/mnt/x/v1", [FILE], **Heard().options())
    if answers:
        assert await made.run() == FetchResult(0)
    else:
        with pytest.raises(Unavailable):
            await made.run()
    assert runs == (2 * MOST_DEATHS if answers else MOST_DEATHS)


async def test_a_disk_that_writes_what_was_fetched_gets_more_patience_than_the_bucket() -> None:
    made, worker = warming(patience_s=0.0)
    with pytest.raises(Unavailable):
        await made._next_line(cast(WorkerProcess, worker))
    made._leaving[0] = SHA
    reading = asyncio.create_task(made._next_line(cast(WorkerProcess, worker)))
    await asyncio.wait({reading}, timeout=0.01)
    assert not reading.done()
    worker.reader.feed_data(b"{}\n")
    assert await reading == b"{}\n"


async def test_what_a_worker_is_told_first() -> None:
    made, worker = warming(FILE, limit=1000)
    assert worker.heard[0] == {"source": {"mount": "/mnt/x/v1"}, "limit": 1000}
    asked = {"path": "a", "url": "", "size": 9, "sha256": SHA, "there": ()}
    assert worker.heard[1:] == [{"open": 0, **asked}]
    assert made._under_way == 1


async def test_while_no_rclone_runs_nothing_is_asked_and_that_is_shown() -> None:
    def address() -> RcAddress:
        raise Unavailable("no rclone runs")

    heard = Heard()
    made, worker = begun(fetch_into(address, "s:b", "v1", [FILE], Path("/into"), **heard.options()))
    assert worker.heard == []
    made._hear({"progress": {}, "hashed": 0}, 1.0)
    assert heard.last.waits_for == "no rclone runs"


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "disk-full"), (errno.EDQUOT, "disk-full"), (errno.EIO, "")]
)
async def test_a_disk_that_does_not_keep_what_was_fetched_ends_it(number: int, code: str) -> None:
    made, _ = warming()
    with pytest.raises(Exhausted if code else MountdError) as ended:
        made._hear({"opened": 0, "cause": again(number=number, kind="local")}, 1.0)
    assert ended.value.code == code
    assert isinstance(ended.value, Unavailable) is bool(code), "trying again does not help a broken disk"


@pytest.mark.parametrize(("number", "code"), [(0, "size-differs"), (errno.ENOENT, "file-missing")])
async def test_a_file_that_is_another_one_is_given_up_at_once(number: int, code: str) -> None:
    made, worker = warming()
    made._hear({"opened": 0, "cause": again("it is another", number, "file")}, 1.0)
    assert made._faults == [(0, FileFault("a", code, "it is another", number))]
    assert worker.heard[-1] == {"close": 0}
    assert made._plan.is_finished


@pytest.mark.parametrize(
    ("code", "faults"), [("object-missing", 1), ("object-archived", 1), ("access-denied", 0), ("bucket-slow", 0)]
)
async def test_why_a_file_fails_is_asked_when_it_fails_again(code: str, faults: int) -> None:
    """What no try can change ends it for this file; all else is waited for, and shown."""
    asked: list[str] = []

    async def why(path: str) -> RemoteError | None:
        asked.append(path)
        return RemoteError("the bucket says why", code=code)

    heard = Heard()
    made, worker = begun(read_through("/mnt/x/v1", [FILE], **heard.options(why=why)))
    now = 0.0
    for number in range(ASK_WHY_AFTER):
        assert asked == []
        now += LONGEST_PAUSE_S
        made._hear({"opened": 0, "cause": again()}, now)
        if number + 1 < ASK_WHY_AFTER:
            made._plan.take(1, now + LONGEST_PAUSE_S)
    assert made._asking is not None
    await made._asking
    assert asked == ["a"]
    assert [fault.code for _, fault in made._faults] == [code] * faults
    assert (worker.heard[-1] == {"close": 0}) is bool(faults)
    if not faults:
        made._hear({"progress": {}, "hashed": 0}, now)
        assert heard.last.waits_for == "the bucket says why"


async def test_when_nothing_comes_the_cause_is_given_with_it_where_it_is_known() -> None:
    made, worker = warming(patience_s=0.0)
    made._cause = RemoteError("the bucket refuses", hint="correct the keys", code="access-denied")
    with pytest.raises(RemoteError) as ended:
        await made._next_line(cast(WorkerProcess, worker))
    assert (ended.value.code, ended.value.hint) == ("access-denied", "correct the keys")


async def test_a_file_that_fails_while_others_can_be_read_is_given_up_at_last() -> None:
    made, _ = warming(FILE, WantedFile("b", 9))
    now = 1.0
    made._hear({"opened": 1, "there": [], "whole": False}, now)
    piece = made._plan.take(1, now)
    for number in range(HOPELESS_FAILURES):
        assert made._faults == []
        made._hear({"opened": 0, "cause": again()}, now)
        made._plan.progress(cast(Any, piece).id, number + 1)
        now += LONGEST_PAUSE_S + 1
        made._plan.take(1, now)
    assert [(fault.path, fault.code, fault.errno) for _, fault in made._faults] == [("a", "file-unreadable", errno.EIO)]


# -- digests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found", "codes"), [(SHA, SHA, []), (SHA, OTHER, ["digest-differs"]), (None, None, [])]
)
async def test_what_was_read_through_a_mount_is_right_or_a_fault(
    wanted: str | None, found: str | None, codes: list[str]
) -> None:
    made, worker = warming(WantedFile("a", 9, wanted))
    made._hear({"opened": 0, "there": [], "whole": False}, 1.0)
    made._hear({"hashed": 0, "sha256": found}, 2.0)
    assert [fault.code for _, fault in made._faults] == codes
    assert worker.heard[-1] == {"close": 0}
    assert (made._plan.is_finished, made._moved_at) == (True, 2.0)


async def test_what_was_fetched_is_kept_dropped_and_fetched_once_more_only_where_something_lay_there() -> None:
    def address() -> RcAddress:
        return RcAddress("me", "pw", Path("/run/rc"))

    made, worker = begun(fetch_into(address, "s:b", "v1", [FILE], Path("/into"), **Heard().options()))
    made._hear({"opened": 0, "there": [[0, 4]], "whole": False}, 1.0)
    made._hear({"hashed": 0, "sha256": OTHER}, 1.0)
    assert worker.heard[-1] == {"drop": 0}
    made._hear({"dropped": 0}, 1.0)
    assert (made._faults, made._plan.is_finished, made._plan.bytes_done) == ([], False, 0)
    made._fill(cast(WorkerProcess, worker))
    made._hear({"opened": 0, "there": [], "whole": False}, 2.0)
    made._hear({"hashed": 0, "sha256": OTHER}, 2.0)
    made._hear({"dropped": 0}, 2.0)
    assert [fault.code for _, fault in made._faults] == ["digest-differs"]

    made, worker = begun(fetch_into(address, "s:b", "v1", [FILE], Path("/into"), **Heard().options()))
    made._hear({"opened": 0, "there": [], "whole": False}, 1.0)
    made._hear({"hashed": 0, "sha256": SHA}, 1.0)
    assert (worker.heard[-1], made._plan.is_finished) == ({"keep": 0}, False), "not before it is on disk"
    made._hear({"kept": 0}, 1.0)
    assert made._plan.is_finished


async def test_a_content_under_two_names_is_fetched_once_and_both_names_hear_of_a_fault() -> None:
    twin = WantedFile("b", 9, SHA)
    made, worker = begun(
        fetch_into(
            lambda: RcAddress("me", "pw", Path("/run/rc")), "s:b", "v1", [FILE, twin], Path("/into"),
            **Heard().options(),
        )
    )  # fmt: skip
    assert [each["path"] for each in worker.heard if "open" in each] == ["a"]
    made._hear({"opened": 0, "cause": again("gone", errno.ENOENT, "file")}, 1.0)
    made._worker = None
    assert [(fault.path, fault.code) for fault in (await made.run()).faults] == [
        ("a", "file-missing"),
        ("b", "file-missing"),
    ]
