"""The files worker and its client, with real files; a FIFO that nobody writes is the touch that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from mountd.errors import DiskError, DiskTimeout, ProbeNotSent
from mountd.files import client
from mountd.files.client import Files, NoStat, Stat
from mountd.mount.health import Liveness
from mountd.mount.liveness import LivenessProbe
from mountd.settings.schema import HealthSettings
from tests.support import wait

SOON_S = 30.0


@pytest.fixture
async def files() -> AsyncIterator[Files]:
    files = Files("test", {"MOUNTD_INSTANCE": "test-files"})
    yield files
    await files.close()


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, f"not in {SOON_S} s: {what}"
        await asyncio.sleep(0.005)


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


async def test_statfs(files: Files, tmp_path: Path) -> None:
    await files.statfs(str(tmp_path), timeout_s=SOON_S)
    with pytest.raises(DiskError) as missing:
        await files.statfs(str(tmp_path / "none"), timeout_s=SOON_S)
    assert missing.value.errno == errno.ENOENT


async def test_a_worker_that_nobody_asks_ends(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "IDLE_S", 0.2)
    await files.statfs(str(tmp_path), timeout_s=SOON_S)
    first = files.pid
    await until(lambda: files.pid is None and str(first) not in children(), "its end")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    hashing = asyncio.create_task(files.hash(str(fifo), timeout_s=SOON_S))
    await until(lambda: files.pid is not None, "another one")
    asked, second = time.monotonic(), files.pid
    await until(lambda: time.monotonic() - asked > 2 * client.IDLE_S, "longer than one that nobody asks stays")
    assert files.pid == second
    assert second != first
    await asyncio.to_thread(fifo.write_bytes, b"x")
    assert (await hashing).bytes == 1


async def test_list(files: Files, tmp_path: Path) -> None:
    (tmp_path / "b.bin").write_bytes(b"123")
    (tmp_path / "a dir").mkdir()
    (tmp_path / "link").symlink_to("b.bin")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")).touch()
    it = await files.list(str(tmp_path), limit=10, timeout_s=SOON_S)
    assert not it.truncated
    assert [(one.name, one.type) for one in it.items] == [
        ("a dir", "directory"),
        ("b.bin", "file"),
        ("caf\udce9", "file"),
        ("link", "other"),
    ]


async def test_list_says_when_it_is_cut_off(files: Files, tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / str(n)).touch()
    cut = await files.list(str(tmp_path), limit=2, timeout_s=SOON_S)
    assert (len(cut.items), cut.truncated) == (2, True)
    exact = await files.list(str(tmp_path), limit=3, timeout_s=SOON_S)
    assert (len(exact.items), exact.truncated) == (3, False)


async def test_stat_answers_for_each_path(files: Files, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    paths = [str(tmp_path / "a"), str(tmp_path / "none"), str(tmp_path), "nul\0byte"]
    a, none, directory, nul = await files.stat(paths, timeout_s=SOON_S)
    assert a == Stat(5, "file")
    assert none == NoStat(errno.ENOENT, "No such file or directory")
    assert isinstance(directory, Stat)
    assert directory.type == "directory"
    assert isinstance(nul, NoStat)
    assert nul.errno == errno.EINVAL


async def test_read(files: Files, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    path = tmp_path / "data"
    path.write_bytes(data)
    assert await files.read(str(path), length=100, timeout_s=SOON_S) == data[:100]
    assert await files.read(str(path), offset=299_990, length=100, timeout_s=SOON_S) == data[-10:]
    assert await files.read(str(path), offset=300_000, length=1, timeout_s=SOON_S) == b""
    with pytest.raises(DiskError) as refused:
        await files.read(str(path), length=client.READ_LIMIT + 1, timeout_s=SOON_S)
    assert refused.value.errno == errno.EINVAL


async def test_the_largest_read(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "data"
    with path.open("wb") as stream:
        stream.truncate(client.READ_LIMIT + 5)
    assert len(await files.read(str(path), length=client.READ_LIMIT, timeout_s=60)) == client.READ_LIMIT


async def test_hash(files: Files, tmp_path: Path) -> None:
    data = os.urandom(2_500_000)
    (tmp_path / "data").write_bytes(data)
    done: list[int] = []
    it = await files.hash(str(tmp_path / "data"), timeout_s=SOON_S, progress=done.append)
    assert (it.sha256, it.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert done == [client.HASH_PIECE, len(data)]


async def test_an_error_names_the_touch_and_its_cause(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "none"
    with pytest.raises(DiskError) as missing:
        await files.read(str(path), length=1, timeout_s=SOON_S)
    assert f"{path}: {os.strerror(errno.ENOENT)}" in missing.value.text
    assert missing.value.errno == errno.ENOENT
    assert not isinstance(missing.value, DiskTimeout)


@pytest.mark.thorough
async def test_an_answer_that_is_too_long_costs_no_worker(files: Files, tmp_path: Path) -> None:
    await files.statfs(str(tmp_path), timeout_s=SOON_S)
    pid = files.pid
    with pytest.raises(DiskError) as long:
        await files.stat([str(tmp_path), *["no such"] * 750_000], timeout_s=60)
    assert long.value.errno == errno.EMSGSIZE
    assert str(tmp_path) in long.value.text
    assert "750000" in long.value.text, "of the others only the number"
    assert "no such" not in long.value.text
    await files.statfs(str(tmp_path), timeout_s=SOON_S)
    assert files.pid == pid


async def test_a_touch_that_hangs_is_given_up_and_the_worker_replaced(files: Files, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    await files.statfs(str(tmp_path), timeout_s=SOON_S)
    first = files.pid
    with pytest.raises(DiskTimeout) as hung:
        await files.read(str(fifo), length=1, timeout_s=0.2)
    assert str(fifo) in hung.value.text
    await until(lambda: not files.stuck, "the worker to be gone: it was not in the kernel")
    await files.statfs(str(tmp_path), timeout_s=SOON_S)
    assert files.pid not in (None, first)


async def test_a_worker_that_does_not_go_is_the_only_one(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D state cannot be had without FUSE: a signal that does not kill stands for it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    await files.statfs(str(tmp_path), timeout_s=SOON_S)
    first = files.pid
    assert first is not None
    with monkeypatch.context() as patched:
        patched.setattr(signal, "pidfd_send_signal", lambda *_: None)
        with pytest.raises(DiskTimeout):
            await files.read(str(fifo), length=1, timeout_s=0.2)
    assert files.stuck
    begin = time.monotonic()
    for _ in range(3):
        with pytest.raises(DiskTimeout, match=rf"{fifo}.* {first}$"):
            await files.statfs(str(tmp_path), timeout_s=SOON_S)
    assert time.monotonic() - begin < SOON_S
    assert files.pid == first
    os.kill(first, signal.SIGKILL)
    await until(lambda: not files.stuck, "the exit of the stuck worker is seen")
    await files.statfs(str(tmp_path), timeout_s=SOON_S)


async def test_close_does_not_wait_for_a_worker_that_does_not_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files("test", {})
    await files.statfs(str(tmp_path), timeout_s=SOON_S)
    pid = files.pid
    assert pid is not None
    try:
        with monkeypatch.context() as patched:
            patched.setattr(signal, "pidfd_send_signal", lambda *_: None)
            begin = time.monotonic()
            assert await files.close() == pid
            assert time.monotonic() - begin < SOON_S
    finally:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: files.pid is None, "it is reaped later")


async def test_calls_wait_for_each_other_within_their_own_deadline(files: Files, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    await files.statfs(str(tmp_path), timeout_s=SOON_S)
    pid = files.pid
    slow = asyncio.create_task(files.hash(str(fifo), timeout_s=SOON_S))
    await until(files._lock.locked, "the slow call has begun")
    with pytest.raises(DiskTimeout):
        await files.statfs(str(tmp_path), timeout_s=0.1)
    assert not files.stuck
    assert files.pid == pid  # not the waiting call's to kill
    await asyncio.to_thread(fifo.write_bytes, b"abc")
    assert (await slow).bytes == 3


async def test_a_caller_that_gives_up_does_not_spoil_the_next_call(files: Files, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    call = asyncio.create_task(files.hash(str(fifo), timeout_s=SOON_S))
    await until(lambda: files.pid is not None, "the worker runs")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: not files.stuck, "the worker to be gone")
    assert await files.list(str(tmp_path), limit=0, timeout_s=SOON_S)


async def test_a_worker_that_was_killed_is_started_again_unseen(files: Files, tmp_path: Path) -> None:
    for _ in range(20):
        await files.statfs(str(tmp_path), timeout_s=SOON_S)
        pid = files.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    await files.statfs(str(tmp_path), timeout_s=SOON_S)


async def test_killed_during_a_call(files: Files, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    call = asyncio.create_task(files.hash(str(fifo), timeout_s=SOON_S))
    await until(lambda: files.pid is not None, "the worker runs")
    first = files.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: files.pid not in (None, first), "the call is sent to a second worker")
    second = files.pid
    assert second is not None
    os.kill(second, signal.SIGKILL)
    with pytest.raises(ProbeNotSent, match=f"{-signal.SIGKILL}$"):
        await call


@contextlib.contextmanager
def no_descriptor(patch: pytest.MonkeyPatch) -> Iterator[None]:
    with open("/dev/null") as free:
        lowest = free.fileno()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def no_pidfd(patch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    patch.setattr(os, "pidfd_open", fail)
    yield


@contextlib.contextmanager
def no_python(patch: pytest.MonkeyPatch) -> Iterator[None]:
    patch.setattr(sys, "executable", "/no/such/python")
    yield


@contextlib.contextmanager
def no_program(patch: pytest.MonkeyPatch) -> Iterator[None]:
    patch.setattr(client, "WORKER", "/no/such/worker.py")
    yield


@pytest.mark.parametrize("lack", [no_descriptor, no_pidfd, no_python, no_program])
async def test_without_a_worker_nothing_is_said_of_the_disk(
    files: Files, tmp_path: Path, lack: Callable[..., contextlib.AbstractContextManager[None]]
) -> None:
    fds, others = set(os.listdir("/proc/self/fd")), children()
    probe = LivenessProbe(str(tmp_path), "nothing:", files, cast(Any, None), HealthSettings)
    before = Liveness(missed=1)
    with pytest.MonkeyPatch.context() as patch, lack(patch):
        assert await probe.ask(before) == before
        with pytest.raises(ProbeNotSent) as lacking:
            await files.stat([str(tmp_path)], timeout_s=SOON_S)
    assert lacking.value.errno == 0
    assert await files.stat([str(tmp_path)], timeout_s=SOON_S)
    await files.close()
    await until(lambda: children() <= others, "every child to be reaped")
    await until(lambda: set(os.listdir("/proc/self/fd")) == fds, "every descriptor to be closed")


async def test_closed_is_closed(files: Files, tmp_path: Path) -> None:
    assert await files.close() is None
    with pytest.raises(ProbeNotSent):
        await files.statfs(str(tmp_path), timeout_s=SOON_S)


async def test_close_ends_a_call_under_way(files: Files, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    call = asyncio.create_task(files.hash(str(fifo), timeout_s=SOON_S))
    await until(lambda: files.pid is not None, "the worker runs")
    assert await files.close() is None
    with pytest.raises(ProbeNotSent):
        await call
    assert files.pid is None


async def test_what_the_worker_is_given(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "must not be passed on")
    await files.statfs(str(tmp_path), timeout_s=SOON_S)
    proc = Path(f"/proc/{files.pid}")
    names = {one.partition(b"=")[0] for one in (proc / "environ").read_bytes().split(b"\0") if one}
    assert names - {b"LC_CTYPE"} == {b"PATH", b"LANG", b"MOUNTD_INSTANCE"}
    assert os.readlink(proc / "cwd") == "/"
    assert files.pid is not None
    assert os.getsid(files.pid) == files.pid
    assert sorted(os.listdir(proc / "fd")) == ["0", "1", "2"]


def test_the_worker_ends_with_the_daemon(tmp_path: Path) -> None:
    """End of file on its stdin is enough: nobody is left to kill it."""

    async def start() -> tuple[Files, int]:
        files = Files("test", {})
        await files.statfs(str(tmp_path), timeout_s=SOON_S)
        assert files.pid is not None
        worker = files._worker
        assert worker is not None
        worker.writer.close()
        await until(lambda: files.pid is None, "the worker ended by itself")
        return files, worker.process.returncode

    assert asyncio.run(start())[1] == 0


def test_a_thousand_calls_leave_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")

    async def calls() -> None:
        files = Files("test", {})
        try:
            for n in range(250):
                await files.statfs(str(tmp_path), timeout_s=SOON_S)
                await files.stat([str(tmp_path / "a")], timeout_s=SOON_S)
                await files.list(str(tmp_path), limit=5, timeout_s=SOON_S)
                await files.read(str(tmp_path / "a"), length=1, timeout_s=SOON_S)
                if n % 50 == 0 and files.pid is not None:
                    os.kill(files.pid, signal.SIGKILL)
        finally:
            await files.close()

    fds, before = set(os.listdir("/proc/self/fd")), children()
    asyncio.run(calls())
    wait.until(lambda: set(os.listdir("/proc/self/fd")) == fds, SOON_S, "its descriptors to be closed")
    wait.until(lambda: children() == before, SOON_S, "its children to be reaped")
