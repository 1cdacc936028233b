"""What is announced is what the bucket holds and the file held, also where size and time of a file say nothing."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mountd.journal.results import ResultFile, ResultQueue
from mountd.outbox.outbox import Outbox
from mountd.outbox.tree import look_of
from mountd.settings.load import load
from tests.support.outbox import sha256
from tests.support.reloader import Bench, bench
from tests.support.wait import until_async

SOON_S = 30.0


class Room:
    """An outbox on a bucket that is a directory."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.directory, self.bucket = bench.root / "outputs", bench.root / "results"
        for each in (self.directory, self.bucket):
            each.mkdir()

    def begin(self, **more: object) -> Outbox:
        section = {"directory": str(self.directory), "remote": f"store:{self.bucket}", "min_free": "0"}
        self.bench.config["outbox"] = {"results": {**section, "settle": "100ms", "keep": "forever", **more}}
        self.bench.write()
        self.bench.members.outboxes.begin(load(self.bench.file).settings)
        return self.bench.members.outboxes._running["results"][0]

    def stored(self, name: str) -> bytes:
        path = self.bucket / name
        return path.read_bytes() if path.is_file() else b""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.bench.root / "state" / "mountd.db", timeout=30)) as db:
            return db.execute(sql).fetchall()

    def announced(self) -> list[str]:
        """The sha256 of each upload."""
        rows = self.rows("SELECT data FROM events WHERE code = 'result-uploaded' ORDER BY id")
        return [json.loads(data)["digest"].removeprefix("sha256:") for (data,) in rows]

    async def until_announced(self, *contents: bytes) -> None:
        wanted = [sha256(each) for each in contents]
        await until_async(lambda: self.announced() == wanted, SOON_S, f"{contents} to be announced")


def rewrite(path: Path, content: bytes) -> None:
    """In place, and with the time of before, as programs do that change the tags or the gain of an audio file."""
    seen = path.stat()
    assert len(content) == seen.st_size
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with bench() as (made, _):
        yield Room(made)


async def test_other_content_of_the_same_size_and_time_is_uploaded_although_a_try_fails(room: Room) -> None:
    outbox = room.begin()
    path = room.directory / "a.wav"
    path.write_bytes(b"first content")
    await room.until_announced(b"first content")
    kept = room.bucket.rename(room.bucket.with_name("kept"))
    room.bucket.touch()  # nothing can be written there
    rewrite(path, b"other content")
    await until_async(lambda: outbox._failures, SOON_S, "a try that fails")
    room.bucket.unlink()
    kept.rename(room.bucket)
    await room.until_announced(b"first content", b"other content")
    assert room.stored("a.wav") == b"other content"


async def test_other_content_that_comes_after_the_upload_is_not_removed_with_the_former(room: Room) -> None:
    """Before mountd has found it: it has the size and time of what was uploaded."""
    path = room.directory / "a.wav"
    path.write_bytes(b"first content")
    room.begin(settle="2s", keep="500ms")
    await room.until_announced(b"first content")
    rewrite(path, b"other content")
    await room.until_announced(b"first content", b"other content")
    assert room.stored("a.wav") == b"other content"
    await until_async(lambda: not path.exists(), SOON_S, "the file to be removed")


async def test_an_uploaded_file_that_is_touched_and_removed_is_not_lost(room: Room) -> None:
    outbox = room.begin()
    path = room.directory / "a.wav"
    path.write_bytes(b"content")
    await room.until_announced(b"content")
    row = (await outbox._queue.known([b"a.wav"]))[b"a.wav"]
    await outbox._queue.restamp({row.id: "1.2.3"})  # found with another ctime
    path.unlink()
    await until_async(lambda: room.rows("SELECT state FROM outbox") == [("removed",)], SOON_S, "it to be gone")
    assert room.announced() == [sha256(b"content")]
    assert room.rows("SELECT 1 FROM events WHERE code = 'result-lost'") == []


@pytest.fixture
def leases() -> Iterator[Callable[[Path], None]]:
    """Takes the lease on a file, as Samba does: who opens it without waiting is refused."""
    before, files = signal.signal(signal.SIGIO, signal.SIG_IGN), []

    def take(path: Path) -> None:
        files.append(path.open("r+b"))
        fcntl.fcntl(files[-1], fcntl.F_SETLEASE, fcntl.F_WRLCK)

    yield take
    for file in files:
        file.close()
    signal.signal(signal.SIGIO, before)


async def test_files_that_cannot_be_opened_for_their_own_reason_keep_no_other_one(
    room: Room, leases: Callable[[Path], None]
) -> None:
    queue, root = ResultQueue(room.bench.journal, "results"), str(room.directory.stat().st_ino)
    for number in range(8):  # more than are tried at once
        path = room.directory / f"{number}.wav"
        path.write_bytes(b"content")
        look = look_of(path.stat())
        await queue.put([ResultFile(path.name.encode(), look.size, look.stamp)], root)
        leases(path)
    (room.directory / "other.wav").write_bytes(b"other content")
    room.begin()
    await room.until_announced(b"other content")
    await until_async(
        lambda: room.rows("SELECT DISTINCT state FROM outbox WHERE name != CAST('other.wav' AS BLOB)") == [("failed",)],
        SOON_S,
        "the others to wait for their time",
    )
