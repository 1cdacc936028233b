"""Uploaded files are removed when their time is over, by a clock that the test sets."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from mountd import clock
from mountd.journal.journal import Journal
from mountd.journal.results import ResultFile, ResultQueue
from mountd.outbox import keeping
from mountd.outbox.keeping import KeptFiles
from mountd.outbox.local import LocalDirectory, name_of
from mountd.outbox.patience import Patience
from mountd.outbox.settling import FileLook
from mountd.settings.outbox import OutboxSettings
from tests.support.wait import until_async

SOON_S = 30.0
DAY_S = 86400.0


class Kept:
    """Files that are uploaded, by the journal, in a directory."""

    def __init__(self, tmp_path: Path, keep_s: float) -> None:
        self.directory = tmp_path / "outputs"
        self.directory.mkdir()
        self.journal = Journal(tmp_path / "mountd.db")
        self.queue = ResultQueue(self.journal, "results")
        settings = OutboxSettings.model_validate({"directory": str(self.directory), "remote": "s:b"})
        self.local = LocalDirectory(settings, {}, found=self._found, gone=self._gone, writing=lambda _: None)
        self.later = timedelta()
        self.readable, self.uploaded = asyncio.Event(), asyncio.Event()
        self.readable.set()
        self.files = KeptFiles(
            keep_s,
            self.queue,
            self.local,
            Patience(structlog.get_logger()),
            readable=self.readable,
            uploaded=self.uploaded,
            now=lambda: clock.now() + self.later,
        )

    async def _found(self, found: Sequence[tuple[str, FileLook]], root: str) -> None: ...

    async def _gone(self, gone: Sequence[str]) -> None: ...

    async def upload(self, name: str) -> None:
        (self.directory / name).write_text(name)
        await self.announce(name, self.look(name))
        self.uploaded.set()

    def look(self, name: str) -> FileLook:
        seen = os.stat(self.directory / name)
        return FileLook(seen.st_size, seen.st_mtime_ns, seen.st_ino, seen.st_ctime_ns)

    async def announce(self, name: str, look: FileLook) -> None:
        """As uploaded, in the journal alone."""
        await self.queue.put([ResultFile(name_of(name), look.size, look.stamp)], "1")
        (row,) = await self.queue.waiting(9, "1")
        await self.queue.begin(row.id, sha256="ab", md5="cd", bucket="b", key=name)
        assert await self.queue.done(row)

    async def states(self) -> dict[str, str]:
        rows = await self.queue.page(0, 99, "uploaded", "removed")
        return {row.name.decode(): row.state for row in rows}


@pytest.fixture
async def made(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Kept]:
    kept = Kept(tmp_path, request.param)
    await kept.journal.open()
    await kept.local.start()
    await kept.local.scan()
    running = asyncio.create_task(kept.files.run())
    yield kept
    running.cancel()
    await asyncio.wait([running])
    await kept.local.close()
    await kept.journal.close()


@pytest.mark.parametrize("made", [7 * DAY_S], indirect=True)
async def test_a_file_goes_after_its_days_and_not_before(made: Kept) -> None:
    await made.upload("old")
    made.later = timedelta(days=6.9)
    await made.upload("young")
    assert made.directory.joinpath("old").exists()
    made.later = timedelta(days=7.1)
    made.uploaded.set()  # else it would look when its time has come
    await until_async(lambda: os.listdir(made.directory) == [], SOON_S, "both to be removed")
    async with asyncio.timeout(SOON_S):
        while await made.states() != {"old": "removed", "young": "removed"}:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("made", [0.0], indirect=True)
async def test_without_a_time_it_goes_at_once(made: Kept) -> None:
    await made.upload("a")
    await until_async(lambda: os.listdir(made.directory) == [], SOON_S, "it to be removed")


@pytest.mark.parametrize("made", [1.0], indirect=True)
async def test_it_is_looked_for_when_its_time_has_come(made: Kept) -> None:
    await made.upload("a")
    await until_async(lambda: os.listdir(made.directory) == [], SOON_S, "it to be removed")


@pytest.mark.parametrize("made", [math.inf], indirect=True)
async def test_files_kept_for_ever_are_never_removed(made: Kept) -> None:
    await made.upload("a")
    made.later = timedelta(days=3000)
    made.uploaded.set()
    await asyncio.sleep(0.2)
    assert os.listdir(made.directory) == ["a"]


@pytest.mark.parametrize("made", [DAY_S], indirect=True)
async def test_a_file_that_was_written_again_stays(made: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "AGAIN_S", 0.05)
    await made.upload("a")
    await made.upload("b")
    (made.directory / "a").write_text("a newer result")
    made.later = timedelta(days=2)
    made.uploaded.set()
    await until_async(lambda: os.listdir(made.directory) == ["a"], SOON_S, "b to be removed")
    await asyncio.sleep(0.3)
    assert (made.directory / "a").read_text() == "a newer result"


@pytest.mark.parametrize("made", [0.0], indirect=True)
async def test_a_directory_that_cannot_be_read_keeps_them(made: Kept) -> None:
    made.readable.clear()
    await asyncio.sleep(0.1)
    elsewhere = made.directory.rename(made.directory.with_name("elsewhere"))
    made.directory.mkdir()
    made.directory.rmdir()
    elsewhere.rename(made.directory)
    await made.upload("a")
    assert os.listdir(made.directory) == ["a"]
    made.readable.set()
    await until_async(lambda: os.listdir(made.directory) == [], SOON_S, "it to be removed")


@pytest.mark.parametrize("made", [DAY_S], indirect=True)
async def test_files_that_stay_keep_no_newer_one_and_are_one_line_a_pass(
    made: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "PAGE", 3)
    monkeypatch.setattr(keeping, "AGAIN_S", 1.0)
    changed = [f"changed-{number}" for number in range(4)]
    for name in changed:
        await made.upload(name)
        (made.directory / name).write_text("it was appended to")
    for number in range(4):
        await made.announce(f"{number}{'x' * 300}", FileLook(1, 2, 3, 4))  # the kernel refuses such a name
    for number in range(4):
        await made.upload(f"new-{number}")
    made.later = timedelta(days=2)
    with capture_logs() as logs:
        made.uploaded.set()
        await until_async(lambda: sorted(os.listdir(made.directory)) == changed, SOON_S, "the newer ones to be removed")
        await made.upload("newest")
        made.later = timedelta(days=4)
        made.uploaded.set()
        await until_async(lambda: sorted(os.listdir(made.directory)) == changed, SOON_S, "the newest to be removed")
        said = [each for each in logs if each["event"] == "cannot remove uploaded results"]
        assert [each["count"] for each in said] in ([4], [4, 4])
        (made.directory / "changed-0").write_text("changed-0")
        stamp = made.look("changed-0").stamp
        await made.journal.rows("UPDATE outbox SET stamp = ? WHERE name = ?", stamp, b"changed-0")
        await until_async(lambda: len(os.listdir(made.directory)) == 3, SOON_S, "one that can be removed again to go")
