"""Reading ahead through a directory, by a real worker; a plain directory stands for a mounted one."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.errors import RemoteError, Unavailable
from mountd.warm import fetch
from mountd.warm.fetch import Warming, read_through
from mountd.warm.plan import WantedFile
from mountd.warm.results import FetchResult
from tests.support.wait import until_async
from tests.support.warmed import MIB, Heard, make_version

SOON_S = 30.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "version"


@pytest.fixture
def files(root: Path) -> list[WantedFile]:
    return make_version(root)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def faults(result: FetchResult) -> dict[str, tuple[str, int]]:
    return {fault.path: (fault.code, fault.errno) for fault in result.faults}


async def test_all_files_are_read_and_checked(root: Path, files: list[WantedFile], heard: Heard) -> None:
    total, before = sum(file.size for file in files), children()
    result = await read_through(str(root), files, **heard.options()).run()
    assert result == FetchResult(total)
    assert (heard.last.bytes_done, heard.last.bytes_total) == (total, total)
    assert (heard.last.files_done, heard.last.files_total) == (len(files), len(files))
    assert heard.last.waits_for == ""
    assert children() == before


async def test_nothing_to_do(root: Path, heard: Heard) -> None:
    assert await read_through(str(root), [], **heard.options()).run() == FetchResult(0)


async def test_without_digests_all_is_read_as_well(root: Path, files: list[WantedFile], heard: Heard) -> None:
    unchecked = [replace(file, sha256=None) for file in files]
    result = await read_through(str(root), unchecked, **heard.options()).run()
    assert result == FetchResult(sum(file.size for file in files))


async def test_each_file_that_is_not_as_wanted(root: Path, files: list[WantedFile], heard: Heard) -> None:
    good, second, small, *others = files
    (root / "directory").mkdir()
    (root / "loop").symlink_to("loop")
    given = [
        replace(good, sha256="0" * 64),
        second,
        *others,
        replace(small, size=small.size + 1),
        WantedFile("missing", 10),
        WantedFile("directory", 10),
        WantedFile("loop", 10),
    ]
    result = await read_through(str(root), given, **heard.options()).run()
    assert faults(result) == {
        good.path: ("digest-differs", 0),
        small.path: ("size-differs", 0),
        "missing": ("file-missing", errno.ENOENT),
        "directory": ("size-differs", 0),
        "loop": ("file-unreadable", errno.ELOOP),
    }
    assert result.bytes_read == sum(file.size for file in (good, second, *others))
    assert heard.last.files_done == len(given)


async def test_a_file_that_ends_early(root: Path, files: list[WantedFile], heard: Heard) -> None:
    """It becomes shorter while it is read."""
    large = files[0]
    reading = asyncio.create_task(read_through(str(root), [large], **heard.options(limit=8 * MIB)).run())
    await until_async(lambda: heard.bytes_done, SOON_S, "the first bytes")
    os.truncate(root / large.path, large.size - 6 * MIB)
    assert faults(await reading) == {large.path: ("size-differs", 0)}


async def test_the_limit_is_kept(root: Path, files: list[WantedFile], heard: Heard) -> None:
    began = time.monotonic()
    await read_through(str(root), files, **heard.options(limit=16 * MIB)).run()
    assert time.monotonic() - began > 1.0
    assert heard.last.bytes_per_s < 24 * MIB


async def test_a_worker_that_is_killed_is_replaced_and_nothing_is_left_out(
    root: Path, files: list[WantedFile], heard: Heard
) -> None:
    warming = read_through(str(root), files, **heard.options(limit=12 * MIB))
    reading = asyncio.create_task(warming.run())
    killed: set[int] = set()
    while not reading.done() and len(killed) < 5:
        await asyncio.sleep(random.uniform(0.05, 0.4))
        if (pid := warming.pid) is not None and pid not in killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    result = await reading
    assert len(killed) >= 2
    assert result.faults == ()
    assert heard.last.bytes_done == sum(file.size for file in files)


async def test_a_worker_that_always_ends_is_given_up(
    root: Path, files: list[WantedFile], heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "worker.py"
    script.write_text("raise SystemExit(3)")
    monkeypatch.setattr(fetch, "WORKER", script)
    before = children()
    with pytest.raises(Unavailable, match=r"3$"):
        await read_through(str(root), files, **heard.options()).run()
    assert children() == before


async def test_without_python_there_is_no_worker(
    root: Path, files: list[WantedFile], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(Unavailable):
        await read_through(str(root), files, **heard.options()).run()


async def test_a_file_that_hangs_is_given_up_with_all_that_wait_for_it(
    root: Path, files: list[WantedFile], heard: Heard
) -> None:
    """A FIFO that nobody writes stands for a mount that does not answer."""
    os.mkfifo(root / "hangs")
    before = children()
    with pytest.raises(Unavailable):
        await read_through(str(root), [*files, WantedFile("hangs", 10)], **heard.options(patience_s=1.0)).run()
    assert heard.last.files_done == len(files)
    assert children() == before


async def test_a_mount_that_is_away_is_waited_for(root: Path, files: list[WantedFile], heard: Heard) -> None:
    away = root.rename(root.with_name("away"))
    reading = asyncio.create_task(read_through(str(root), files, **heard.options()).run())
    await until_async(lambda: heard.reports and heard.last.waits_for, SOON_S, "a reason to wait")
    assert not reading.done()
    away.rename(root)
    assert (await reading).faults == ()
    assert heard.last.waits_for == ""


async def test_what_never_comes_ends_after_the_callers_patience(
    root: Path, files: list[WantedFile], heard: Heard
) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable) as outage:
        await read_through(f"{root}/none", files, **heard.options(patience_s=1.0)).run()
    assert 1.0 <= time.monotonic() - began < SOON_S
    assert os.strerror(errno.ENOENT).lower() in outage.value.text
    assert outage.value.retryable


async def test_what_no_try_can_change_ends_the_wait(root: Path, files: list[WantedFile], heard: Heard) -> None:
    reason = RemoteError("it is archived", hint="restore it", code="object-archived")

    async def why(path: str) -> RemoteError | None:
        assert path == files[0].path
        return reason

    result = await read_through(f"{root}/none", files[:1], **heard.options(why=why)).run()
    assert faults(result) == {files[0].path: ("object-archived", 0)}


async def cancelled(warming: Warming, heard: Heard) -> None:
    reading = asyncio.create_task(warming.run())
    await until_async(lambda: heard.bytes_done, SOON_S, "the first bytes")
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_caller_that_gives_up_leaves_no_worker(root: Path, files: list[WantedFile], heard: Heard) -> None:
    fds, before = set(os.listdir("/proc/self/fd")), children()
    await cancelled(read_through(str(root), files, **heard.options(limit=8 * MIB)), heard)
    assert children() == before
    assert set(os.listdir("/proc/self/fd")) == fds


async def test_a_worker_that_does_not_go_is_not_waited_for(
    root: Path, files: list[WantedFile], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D state cannot be had without FUSE: a signal that does not kill stands for it."""
    before = children()
    with monkeypatch.context() as patched:
        patched.setattr(signal, "pidfd_send_signal", lambda *_: None)
        began = time.monotonic()
        await cancelled(read_through(str(root), files, **heard.options(limit=4 * MIB)), heard)
        assert time.monotonic() - began < SOON_S
    (left,) = children() - before
    os.kill(int(left), signal.SIGKILL)
    await until_async(lambda: children() == before, SOON_S, "it is reaped later")


async def test_what_the_worker_is_given(
    root: Path, files: list[WantedFile], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "must not be passed on")
    warming = read_through(str(root), files, **heard.options(limit=8 * MIB))
    reading = asyncio.create_task(warming.run())
    await until_async(lambda: heard.bytes_done, SOON_S, "the first bytes")
    proc = Path(f"/proc/{warming.pid}")
    names = {one.partition(b"=")[0] for one in (proc / "environ").read_bytes().split(b"\0") if one}
    assert names - {b"LC_CTYPE"} == {b"PATH", b"LANG", b"MOUNTD_INSTANCE"}
    assert os.readlink(proc / "cwd") == "/"
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_what_is_preferred_comes_first(root: Path, files: list[WantedFile], heard: Heard) -> None:
    """The last of many files, named while the first are being read."""
    many = []
    for number in range(40):
        (root / f"part{number}").write_bytes(bytes(MIB))
        many.append(WantedFile(f"part{number}", MIB))
    os.mkfifo(root / "last")  # who opens it waits until somebody writes
    warming = read_through(str(root), [*many, WantedFile("last", 0)], **heard.options(limit=4 * MIB))
    reading = asyncio.create_task(warming.run())
    await until_async(lambda: heard.bytes_done, SOON_S, "the first bytes")
    warming.prefer(["last", "unknown"])
    writer = await asyncio.to_thread(os.open, root / "last", os.O_WRONLY)
    os.close(writer)
    assert heard.last.files_done < len(many) // 2
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
