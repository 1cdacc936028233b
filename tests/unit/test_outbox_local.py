"""The process that touches an outbox's directory: what it finds and when, what it hashes, and how its end is met."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from mountd.errors import DiskError, DiskTimeout, ProbeNotSent
from mountd.outbox import local as module
from mountd.outbox import tree
from mountd.outbox.local import HashedFile, LocalDirectory
from mountd.outbox.settling import FileLook
from mountd.settings.outbox import OutboxSettings
from tests.support.wait import until_async

SOON_S = 30.0
SETTLE_S = 0.2


class Heard:
    """The process over a directory, and what it has said."""

    def __init__(
        self,
        directory: Path,
        leaving: Callable[[], Awaitable[None]] = module._nothing,
        new: Callable[[module.Found, str], Awaitable[Sequence[int]]] = module._all_of_them,
        stirred: Callable[[], None] = lambda: None,
        **settings: object,
    ) -> None:
        self.found: dict[str, FileLook] = {}
        self.founds = 0
        self.gone: list[str] = []
        self.writing = 0
        given = {"directory": str(directory), "remote": "s:b", "settle": SETTLE_S, **settings}
        self.local = LocalDirectory(
            OutboxSettings.model_validate(given),
            {},
            found=self._found,
            gone=self._gone,
            writing=self._writing,
            leaving=leaving,
            new=new,
            stirred=stirred,
        )

    async def _found(self, found: Sequence[tuple[str, FileLook]], root: str) -> None:
        self.found.update(found)
        self.founds += len(found)

    async def _gone(self, gone: Sequence[str]) -> None:
        self.gone += gone

    def _writing(self, count: int) -> None:
        self.writing = count

    async def until_found(self, *names: str) -> None:
        await until_async(lambda: self.found.keys() == set(names), SOON_S, f"{names}, not {[*self.found]}")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "outputs"
    made.mkdir()
    return made


@pytest.fixture
async def heard(directory: Path) -> AsyncIterator[Heard]:
    it = Heard(directory)
    await it.local.start()
    yield it
    await it.local.close()
    assert it.local.pid is None


async def test_what_is_there_and_what_comes_is_found(heard: Heard, directory: Path) -> None:
    (directory / "before").write_text("x")
    scan = await heard.local.scan()
    assert (scan.files, scan.full, scan.unread) == (1, False, ())
    assert scan.root == str(os.stat(directory).st_ino)
    assert 0 < scan.free <= scan.total
    (directory / "d" / "e").mkdir(parents=True)
    (directory / "d" / "e" / "after").write_text("x")
    (directory / "empty").touch()
    await heard.until_found("before", "d/e/after", "empty")
    assert heard.found["empty"].size == 0
    assert heard.founds == 3


async def test_a_file_that_grows_is_found_once_it_is_whole(heard: Heard, directory: Path) -> None:
    await heard.local.scan()
    with (directory / "slow").open("wb", 0) as file:
        for _ in range(5):
            file.write(b"x" * 1000)
            await asyncio.sleep(SETTLE_S / 2)
        await until_async(lambda: heard.writing == 1, SOON_S, "the file to be seen")
        # Nothing is written for longer than it takes to settle: but it is still open.
        await asyncio.sleep(4 * SETTLE_S)
        assert heard.found == {}
        file.write(b"end")
    await heard.until_found("slow")
    assert heard.found["slow"].size == 5003
    assert heard.founds == 1
    await until_async(lambda: heard.writing == 0, SOON_S, "nothing to be written")


async def test_a_file_that_is_renamed_into_place_is_found_under_that_name_alone(heard: Heard, directory: Path) -> None:
    await heard.local.scan()
    (directory / "a.tmp").write_text("half")
    await asyncio.sleep(2 * SETTLE_S)
    (directory / "a.tmp").rename(directory / "a.wav")
    await heard.until_found("a.wav")
    assert heard.founds == 1


async def test_a_file_that_was_written_again_is_found_again(heard: Heard, directory: Path) -> None:
    await heard.local.scan()
    (directory / "a").write_text("one")
    await heard.until_found("a")
    first = heard.found["a"]
    (directory / "a").write_text("three")
    await until_async(lambda: heard.found["a"].size == 5, SOON_S, "the other content")
    assert heard.found["a"].content != first.content


async def test_what_is_gone_is_reported_when_it_had_been_found(heard: Heard, directory: Path) -> None:
    await heard.local.scan()
    (directory / "d").mkdir()
    (directory / "d" / "a").write_text("x")
    (directory / "b").write_text("x")
    await heard.until_found("d/a", "b")
    (directory / "brief").write_text("x")
    (directory / "brief").unlink()
    (directory / "b").unlink()
    await until_async(lambda: heard.gone == ["b"], SOON_S, "b to be gone")
    (directory / "d").rename(directory / "e")  # a whole directory
    await heard.local.scan()
    await until_async(lambda: heard.gone == ["b", "d/a"] and "e/a" in heard.found, SOON_S, "the other name")


async def test_a_directory_that_is_missing_or_another_one_loses_nothing(heard: Heard, directory: Path) -> None:
    (directory / "a").write_text("x")
    first = await heard.local.scan()
    await heard.until_found("a")
    elsewhere = directory.rename(directory.with_name("elsewhere"))
    with pytest.raises(DiskError) as failed:
        await heard.local.scan()
    assert failed.value.errno == 2
    directory.mkdir()  # the mount point of a disk that is not mounted
    scan = await heard.local.scan()
    assert (scan.files, heard.gone) == (0, [])
    assert scan.root != first.root
    (directory / "b").write_text("x")
    await heard.until_found("a", "b")
    (directory / "b").unlink()
    directory.rmdir()
    elsewhere.rename(directory)
    assert (await heard.local.scan()).root == first.root
    assert "a" not in heard.gone


async def test_what_is_hashed_stays_readable_whatever_becomes_of_its_name(heard: Heard, directory: Path) -> None:
    data = os.urandom(3_000_000)
    (directory / "a").write_bytes(data)
    await heard.local.scan()
    await heard.until_found("a")
    hashed = await heard.local.hash("a", heard.found["a"])
    assert hashed is not None
    assert hashed.sha256 == hashlib.sha256(data).hexdigest()
    assert hashed.md5 == hashlib.md5(data).hexdigest()
    (directory / "a").unlink()
    assert Path(hashed.directory, hashed.name).read_bytes() == data
    assert await heard.local.still(hashed)
    heard.local.release(hashed)
    await heard.local.missing([])
    assert not Path(hashed.directory, hashed.name).exists()


async def test_what_the_daemon_knows_is_not_found_again(directory: Path) -> None:
    asked: list[tuple[str, str]] = []

    async def new(seen: Sequence[tuple[str, FileLook]], root: str) -> list[int]:
        asked.extend((path, root) for path, _ in seen)
        return [at for at, (path, _) in enumerate(seen) if path == "new"]

    it = Heard(directory, new=new)
    for name in ("done", "new"):
        (directory / name).write_text("x")
    try:
        await it.local.start()
        assert (await it.local.scan()).files == 2
        await it.until_found("new")
        assert sorted(asked) == [(name, str(directory.stat().st_ino)) for name in ("done", "new")]
        await it.local.scan()
        assert len(asked) == 2  # both are remembered
        (directory / "done").unlink()
        await until_async(lambda: it.gone == ["done"], SOON_S, "it to be gone")
        free, total = await it.local.room()
        assert 0 < free <= total
    finally:
        await it.local.close()


async def test_another_scan_is_asked_for_when_directories_move(directory: Path) -> None:
    stirred = asyncio.Event()
    it = Heard(directory, stirred=stirred.set)
    (directory / "d").mkdir()
    (directory / "d" / "a").write_text("x")
    try:
        await it.local.start()
        await it.local.scan()
        await it.until_found("d/a")
        assert not stirred.is_set()
        (directory / "d").rename(directory / "e")
        await asyncio.wait_for(stirred.wait(), SOON_S)
    finally:
        await it.local.close()


async def test_a_change_after_it_was_found_is_seen(heard: Heard, directory: Path) -> None:
    (directory / "a").write_text("one")
    await heard.local.scan()
    await heard.until_found("a")
    look = heard.found["a"]
    hashed = await heard.local.hash("a", look)
    assert hashed is not None
    (directory / "a").write_text("two")
    assert not await heard.local.still(hashed)
    assert await heard.local.hash("a", look) is None
    assert await heard.local.remove("a", look) == "changed"
    assert await heard.local.missing(["a", "b"]) == {"b"}
    assert await heard.local.hash("b", look) is None


async def test_what_was_hashed_is_read_again_when_only_its_times_may_lie(heard: Heard, directory: Path) -> None:
    path = directory / "a"
    path.write_text("one")
    seen = path.stat()
    await heard.local.scan()
    await heard.until_found("a")
    hashed = await heard.local.hash("a", heard.found["a"])
    assert hashed is not None
    assert await heard.local.still(hashed) == heard.found["a"]
    path.chmod(0o600)
    path = path.rename(directory / "b")
    look = await heard.local.still(hashed)
    assert look == tree.look_of(path.stat())
    assert look != heard.found["a"]
    path.write_text("two")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert await heard.local.still(hashed) is None


async def test_a_process_that_dies_fails_its_calls_and_another_one_begins_again(heard: Heard, directory: Path) -> None:
    (directory / "a").write_text("x")
    await heard.local.scan()
    await heard.until_found("a")
    pid = heard.local.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await asyncio.wait_for(heard.local.ended.wait(), SOON_S)
    with pytest.raises(ProbeNotSent):
        await heard.local.scan()
    await heard.local.start()
    assert heard.local.pid != pid
    await heard.local.scan()
    await until_async(lambda: heard.founds == 2, SOON_S, "all files to be found again")


async def test_the_number_of_a_process_is_kept_until_nobody_reads_by_it(directory: Path) -> None:
    """rclone runs as root and reads /proc/PID/fd/N: with the number of another process that is another one's file."""
    leaving, left = asyncio.Event(), asyncio.Event()

    async def leave() -> None:
        leaving.set()
        await left.wait()

    it = Heard(directory, leaving=leave)
    await it.local.start()
    await it.local.scan()
    pid = it.local.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await asyncio.wait_for(leaving.wait(), SOON_S)
    assert it.local.ended.is_set()
    await asyncio.sleep(0.1)
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
    assert state.startswith("Z")
    assert not os.path.exists(f"/proc/{pid}/fd/0")
    left.set()
    await until_async(lambda: not os.path.exists(f"/proc/{pid}"), SOON_S, "it to be reaped")
    await it.local.close()


async def test_what_a_former_process_has_hashed_is_not_the_same_and_harms_no_other(heard: Heard) -> None:
    await heard.local.scan()
    pid = heard.local.pid
    assert not await heard.local.still(HashedFile(4711, "", "", "/proc/1/fd", "0"))
    await heard.local.scan()
    assert heard.local.pid == pid


async def test_paths_that_are_too_long_are_counted_and_end_nothing(heard: Heard, directory: Path) -> None:
    part = "\x01" * 200  # each is six characters in JSON
    here = os.open(directory, os.O_RDONLY)
    for _ in range(25):  # 5,000 bytes, which the kernel lets anybody make
        os.mkdir(part, dir_fd=here)
        there = os.open(part, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    for number in range(1000):
        os.close(os.open(f"{number}{part}", os.O_CREAT, dir_fd=here))
    os.close(here)
    (directory / "a").write_text("x")
    scan = await heard.local.scan()
    assert (scan.files, scan.skipped, scan.full) == (1, 1, False)
    assert 0 < len(scan.first_skipped) <= 201
    await heard.until_found("a")
    assert not heard.local.ended.is_set()


async def test_a_message_that_cannot_be_read_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_LINE", 50)
    it = Heard(directory)
    await it.local.start()
    with pytest.raises(ProbeNotSent, match="sent what is no message"):
        await it.local.scan()
    assert "no message" in it.local.gone_error().text
    await it.local.close()


async def test_a_disk_that_hangs_is_given_up(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.5)
    await heard.local.scan()
    assert heard.local.pid is not None
    os.kill(heard.local.pid, signal.SIGSTOP)
    with pytest.raises(DiskTimeout):
        await heard.local.scan()
    assert heard.local.ended.is_set()
    await heard.local.start()
    await heard.local.scan()


async def test_only_what_the_patterns_choose_is_found(directory: Path) -> None:
    it = Heard(directory, include=["*.wav"], exclude=["draft-*"])
    for name in ("a.wav", "b.txt", "draft-1.wav", ".c.wav"):
        (directory / name).write_text("x")
    try:
        await it.local.start()
        await it.local.scan()
        await it.until_found("a.wav", ".c.wav")
    finally:
        await it.local.close()
