"""What is announced is what the bucket holds and the file held, also where size and time of a file say nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.journal.results import ResultFile, ResultQueue
from mountd.outbox.plan import StoredObject
from mountd.outbox.sender import Uploader
from mountd.outbox.tree import look_of
from tests.support.outbox import sha256
from tests.support.outbox_room import Room, leased, rewrite
from tests.support.reloader import bench
from tests.support.wait import until_async

SOON_S = 30.0


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
    room.begin(settle="3s", keep="2s")
    await room.until_announced(b"first content")
    rewrite(path, b"other content")
    await room.until_announced(b"first content", b"other content")
    assert room.stored("a.wav") == b"other content"
    await until_async(lambda: not path.exists(), SOON_S, "the file to be removed")


async def test_content_that_changes_after_it_was_verified_is_sent_again_although_it_was_found_before(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, verify, rewritten = room.directory / "a.wav", Uploader.stat, list[Path]()

    async def rewritten_after(self: Uploader, name: str) -> StoredObject | None:
        found = await verify(self, name)
        if found is not None and not rewritten:
            rewritten.append(path)
            (before,) = await room.bench.journal.rows("SELECT stamp FROM outbox")
            await asyncio.to_thread(rewrite, path, b"other content")
            while await room.bench.journal.rows("SELECT stamp FROM outbox") == [before]:
                await asyncio.sleep(0.01)  # until it is found
        return found

    monkeypatch.setattr(Uploader, "stat", rewritten_after)
    path.write_bytes(b"first content")
    room.begin()
    await room.until_announced(b"other content")
    assert room.stored("a.wav") == b"other content"


async def test_content_that_is_changed_on_its_way_is_sent_again_and_md5s_are_still_compared(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify, looks = Uploader.stat, list[StoredObject]()

    async def other_content(self: Uploader, name: str) -> StoredObject | None:
        found = await verify(self, name)
        if found is not None and not looks:
            found = replace(found, md5="0" * 32, sha256=sha256(b"content"))
        looks.extend([found] if found is not None else [])
        return found

    monkeypatch.setattr(Uploader, "stat", other_content)
    (room.directory / "a.wav").write_bytes(b"content")
    outbox = room.begin()
    await room.until_announced(b"content")
    assert len(looks) == 2
    assert outbox._files._has_md5
    await until_async(lambda: room.status.last_compared == ("size", "md5"), SOON_S, "the status")


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


async def test_files_that_cannot_be_opened_for_their_own_reason_keep_no_other_one(room: Room) -> None:
    queue, root = ResultQueue(room.bench.journal, "results"), str(room.directory.stat().st_ino)
    paths = [room.directory / f"{number}.wav" for number in range(8)]  # more than are tried at once
    for path in paths:
        path.write_bytes(b"content")
        look = look_of(path.stat())
        await queue.put([ResultFile(path.name.encode(), look.size, look.stamp)], root)
    (room.directory / "other.wav").write_bytes(b"other content")
    with leased(*paths):
        room.begin()
        await room.until_announced(b"other content")
        await until_async(
            lambda: {*room.rows("SELECT state, count(*) FROM outbox GROUP BY 1")} == {("failed", 8), ("uploaded", 1)},
            SOON_S,
            "the others to wait for their time",
        )


async def test_what_the_journal_has_as_it_is_is_not_found_again(room: Room) -> None:
    queue, root = ResultQueue(room.bench.journal, "results"), str(room.directory.stat().st_ino)
    for name in ("known.wav", "changed.wav", "new.wav"):
        (room.directory / name).write_bytes(b"content")
        look = look_of((room.directory / name).stat())
        if name != "new.wav":
            await queue.put([ResultFile(name.encode(), look.size + (name == "changed.wav"), look.stamp)], root)
    room.begin(settle="1h")
    await until_async(lambda: room.status.uploaded, SOON_S, "what is known to be uploaded")
    await until_async(lambda: room.status.writing == 2, SOON_S, "the others to settle")
    assert room.announced() == [sha256(b"content")]
