"""Clearing real rclone mounts: dead, stopped, hanging, stacked, covered; and the events of mountinfo."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mountd.errors import Bug, DiskError, DiskTimeout, Unavailable
from mountd.files.client import Files
from mountd.mount import cleanup, table
from mountd.mount.cleanup import Cleared, clear, holders, unmount
from mountd.mount.watch import TableWatch, read_table
from tests.support import wait

SOON_S = 15.0
TOP = Path(__file__).parents[2]
RCLONES = [str(path) for path in (Path("/usr/bin/rclone"), TOP / ".venv/bin/rclone") if path.exists()]


@dataclass
class Mounts:
    """rclone mounts that a test makes; all of them go at its end, whatever state they are in."""

    tmp: Path
    binary: str
    processes: list[subprocess.Popen[bytes]]
    points: list[str]
    instance: str

    @property
    def source(self) -> str:
        return table.devname(self.instance, "x")

    def of(self, point: str) -> list[table.Entry]:
        return table.of_source(read_table(), self.source, point)

    def start(self, point: str, *, remote: str = "") -> subprocess.Popen[bytes]:
        """A mount of a local directory with one file, or of `remote`; back when mountinfo has it."""
        directory = self.tmp / "source"
        directory.mkdir(exist_ok=True)
        (directory / "file").write_bytes(b"data")
        Path(point).mkdir(exist_ok=True)
        before = len(self.of(point))
        self.points.append(point)
        named = ["--devname", self.source]
        own = ["--config", str(self.tmp / "rclone.conf"), "--cache-dir", str(self.tmp / "cache")]
        with (self.tmp / "rclone.log").open("ab") as log:
            process = subprocess.Popen(
                [self.binary, "mount", remote or str(directory), point, *named, *own],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        self.processes.append(process)
        deadline = time.monotonic() + SOON_S
        while len(self.of(point)) == before:
            assert process.poll() is None, (self.tmp / "rclone.log").read_text()
            assert time.monotonic() < deadline, "rclone did not mount"
            time.sleep(0.01)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(SOON_S)
        for point in self.points:
            while self.of(point):
                subprocess.run(["umount", "-c", "-i", "-l", point], check=True, timeout=SOON_S)


@pytest.fixture(params=RCLONES, ids=lambda path: "venv" if ".venv" in path else "system")
def mounts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mounts]:
    mounts = Mounts(tmp_path, request.param, [], [], f"test-{uuid.uuid4().hex[:8]}")
    try:
        yield mounts
    finally:
        mounts.end()


@pytest.fixture
def point(tmp_path: Path) -> str:
    return str(tmp_path / "mount point")


@pytest.fixture
def movable(tmp_path: Path) -> Iterator[None]:
    """Mounts below a shared one, as `/` is under systemd, cannot be moved: makes the test's directory a private one."""
    subprocess.run(["mount", "--bind", str(tmp_path), str(tmp_path)], check=True, timeout=SOON_S)
    try:
        subprocess.run(["mount", "--make-private", str(tmp_path)], check=True, timeout=SOON_S)
        yield
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True, timeout=SOON_S)


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, f"not in {SOON_S} s: {what}"
        await asyncio.sleep(0.01)


def tells_connections(process: subprocess.Popen[bytes]) -> bool:
    """Whether this kernel tells who holds a FUSE connection, once `process`, an rclone that mounts, holds its end."""
    # The mount is seen a moment before fusermount3 hands that over.
    number = wait.until(lambda: _end_of(process), SOON_S, "rclone to have its end of the connection")
    return "fuse_connection" in Path(f"/proc/{process.pid}/fdinfo/{number}").read_text()


def _end_of(process: subprocess.Popen[bytes]) -> str | None:
    own = Path(f"/proc/{process.pid}/fd").iterdir()
    return next((each.name for each in own if os.readlink(each) == "/dev/fuse"), None)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(SOON_S)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


@pytest.mark.fuse
async def test_a_stale_mount_is_cleared_and_its_place_can_be_used_again(mounts: Mounts, point: str) -> None:
    kill(mounts.start(point))
    assert len(mounts.of(point)) == 1
    files = Files("test", {})
    try:
        with pytest.raises(DiskError) as stale:
            await files.statfs(point, timeout_s=SOON_S)
        assert stale.value.errno == errno.ENOTCONN
        assert (await clear(point, mounts.source, timeout_s=SOON_S)).unmounted == 1
        assert mounts.of(point) == []
        mounts.start(point)
        assert await files.read(f"{point}/file", length=9, timeout_s=SOON_S) == b"data"
    finally:
        await files.close()


@pytest.mark.fuse
async def test_a_stopped_rclone_is_killed_and_cleared(mounts: Mounts, point: str) -> None:
    process = mounts.start(point)
    stop(process)
    files = Files("test", {})
    try:
        with pytest.raises(DiskTimeout):
            await files.statfs(point, timeout_s=0.3)
        begin = time.monotonic()
        kill(process)
        assert (await clear(point, mounts.source, timeout_s=SOON_S)).unmounted == 1
        assert time.monotonic() - begin < SOON_S
        assert mounts.of(point) == []
        await until(lambda: not files.stuck, "the worker is free again")
        assert (await files.list(point, limit=5, timeout_s=SOON_S)).items == ()
    finally:
        await files.close()


@pytest.mark.fuse
async def test_without_fusectl_whoever_holds_the_connection_is_ended(
    mounts: Mounts, point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "FUSE_CONNECTIONS", str(tmp_path / "not-mounted"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = mounts.start(point, remote=f":http,url='http://127.0.0.1:{silent.getsockname()[1]}/':")
        if not tells_connections(process):
            pytest.skip("this kernel does not tell who holds a connection")
        files = Files("test", {})
        try:
            with pytest.raises(DiskTimeout):
                await files.list(point, limit=5, timeout_s=0.5)
            assert files.stuck
            assert await clear(point, mounts.source, timeout_s=SOON_S) == Cleared(1, (), (process.pid,))
            await until(lambda: not files.stuck, "the worker is free again")
            assert mounts.of(point) == []
        finally:
            kill(process)
            await files.close()


@pytest.mark.fuse
@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("with_fusermount", [True, False])
async def test_unmounting_never_asks_a_stopped_rclone(
    mounts: Mounts, point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lazy: bool, with_fusermount: bool
) -> None:
    process = mounts.start(point)
    stop(process)
    if not with_fusermount:
        if os.geteuid() != 0:
            pytest.skip("only root can unmount without fusermount3")
        only = tmp_path / "bin"
        only.mkdir()
        (only / "umount").symlink_to(str(shutil.which("umount")))
        monkeypatch.setenv("PATH", str(only))
    await unmount(point, lazy=lazy, timeout_s=SOON_S)
    assert mounts.of(point) == []


@pytest.mark.fuse
async def test_a_worker_in_the_kernel_is_freed_by_clearing(mounts: Mounts, point: str) -> None:
    """rclone has read the request and waits for a server that never answers: SIGKILL cannot end the reader."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        remote = f":http,url='http://127.0.0.1:{silent.getsockname()[1]}/':"
        process = mounts.start(point, remote=remote)
        files = Files("test", {})
        try:
            await files.statfs(point, timeout_s=SOON_S)
            with pytest.raises(DiskTimeout, match=r"cannot list .*: no answer in 0\.5 s"):
                await files.list(point, limit=5, timeout_s=0.5)
            worker = files.pid
            with pytest.raises(DiskTimeout, match=f"is still stuck in process {worker}"):
                await files.statfs(point, timeout_s=SOON_S)
            assert files.stuck
            assert await files.close() == worker
            kill(process)
            await clear(point, mounts.source, timeout_s=SOON_S)
            await until(lambda: not files.stuck, "the worker is free again")
        finally:
            kill(process)
            await files.close()


@pytest.mark.fuse
async def test_a_mount_in_use(mounts: Mounts, point: str) -> None:
    mounts.start(point)
    handle = os.open(f"{point}/file", os.O_RDONLY)
    try:
        with pytest.raises(Unavailable) as busy:
            await unmount(point, lazy=False, timeout_s=SOON_S)
        assert busy.value.text.startswith(f"cannot unmount {point}: ")
        assert "busy" in busy.value.text
        assert busy.value.hint
        assert len(mounts.of(point)) == 1
        await unmount(point, lazy=True, timeout_s=SOON_S)
        assert mounts.of(point) == []
        assert os.read(handle, 9) == b"data"  # lazily: who has it open keeps it
    finally:
        os.close(handle)


@pytest.mark.fuse
@pytest.mark.root
async def test_stacked_mounts_all_go(movable: None, mounts: Mounts, point: str) -> None:
    kill(mounts.start(point))
    for _ in range(2):
        # rclone itself would refuse or stat a stale mount: it mounts elsewhere and is moved on top
        aside = f"{point} aside"
        process = mounts.start(aside)
        subprocess.run(["mount", "-c", "-n", "--move", aside, point], check=True, timeout=SOON_S)
        stop(process)
    mounts.points.append(point)
    assert len(mounts.of(point)) == 3
    assert (await clear(point, mounts.source, timeout_s=SOON_S)).unmounted == 3
    assert mounts.of(point) == []


@pytest.mark.fuse
@pytest.mark.root
async def test_what_is_not_ours_stays(movable: None, mounts: Mounts, point: str) -> None:
    kill(mounts.start(point))
    aside = Path(f"{point} aside")
    aside.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "foreign", str(aside)], check=True, timeout=SOON_S)
    subprocess.run(["mount", "-c", "-n", "--move", str(aside), point], check=True, timeout=SOON_S)
    try:
        with pytest.raises(Unavailable, match=r"foreign \(tmpfs\) is mounted on top of it") as covered:
            await clear(point, mounts.source, timeout_s=SOON_S)
        assert covered.value.hint
        top = table.at(read_table(), point)
        assert top is not None
        assert top.source == "foreign"
    finally:
        subprocess.run(["umount", "-c", "-l", point], check=True, timeout=SOON_S)
    other = table.devname("other", "x")
    assert await clear(point, other, timeout_s=SOON_S) == Cleared(0, ())
    assert len(mounts.of(point)) == 1


@pytest.mark.fuse
async def test_what_cannot_be_unmounted_is_said_in_time(
    mounts: Mounts, point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(mounts.start(point))
    only = tmp_path / "bin"
    only.mkdir()
    for name in ("fusermount3", "umount"):
        (only / name).write_text(f"#!/bin/sh\necho '{name}: Operation not permitted' >&2\nexit 1\n")
        (only / name).chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(only))
        with pytest.raises(Unavailable) as refused:
            await clear(point, mounts.source, timeout_s=5)
    assert refused.value.text == f"cannot unmount {point}: fusermount3: Operation not permitted"
    assert len(mounts.of(point)) == 1


async def test_an_unmount_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = tmp_path / "bin"
    only.mkdir()
    (only / "fusermount3").write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\nwhile :; do :; done\n")
    (only / "fusermount3").chmod(0o755)
    monkeypatch.setenv("PATH", str(only))
    with pytest.raises(Unavailable, match="fusermount3 did not end in time"):
        await unmount("/nowhere", lazy=True, timeout_s=3)
    pid = int((tmp_path / "pid").read_text())
    await until(lambda: not Path(f"/proc/{pid}").exists(), "it was killed and reaped")


async def test_nothing_mounted(tmp_path: Path) -> None:
    assert await clear(str(tmp_path), table.devname("test", "x"), timeout_s=SOON_S) == Cleared(0, ())
    with pytest.raises(Unavailable, match=f"cannot unmount {tmp_path}: "):
        await unmount(str(tmp_path), lazy=True, timeout_s=SOON_S)


async def test_only_mounts_of_mountd_can_be_cleared() -> None:
    with pytest.raises(Bug):
        await clear("/", "/dev/sda1", timeout_s=SOON_S)


@pytest.mark.fuse
def test_who_holds_the_connection(mounts: Mounts, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process = mounts.start(point)
    (entry,) = mounts.of(point)
    if tells_connections(process):
        wait.until(lambda: holders(entry.minor) == (process.pid,), SOON_S, "nobody else to hold it")
        listdir = os.listdir
        monkeypatch.setattr(os, "listdir", lambda path: [*(["9999"] if path.endswith("/fd") else []), *listdir(path)])
        assert holders(entry.minor) == (process.pid,), "a descriptor closed meanwhile says nothing of the others"
        monkeypatch.undo()
    else:
        assert holders(entry.minor) == ()
    assert holders(2**20) == ()


@pytest.mark.fuse
async def test_a_lazy_unmount_is_an_event(mounts: Mounts, point: str) -> None:
    process = mounts.start(point)
    seen: list[int] = []
    watch = TableWatch(lambda entries: seen.append(len(table.of_source(entries, mounts.source, point))))
    fds = len(os.listdir("/proc/self/fd"))
    watch.start()
    try:
        assert len(mounts.of(point)) == 1
        for _ in range(2):  # the second time shows that it is armed again
            seen.clear()
            await unmount(point, lazy=True, timeout_s=SOON_S)
            await until(lambda: bool(seen) and seen[-1] == 0, "the unmount is told")
            kill(process)
            seen.clear()
            process = mounts.start(point)
            await until(lambda: bool(seen) and seen[-1] == 1, "the mount is told")
        calls = len(seen)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(seen) <= calls + 5  # not woken for ever (others may mount meanwhile)
    finally:
        watch.close()
        watch.close()
    assert len(os.listdir("/proc/self/fd")) == fds


ABORT = """
import asyncio, pathlib, subprocess, sys, time
from mountd.mount import cleanup, table
from mountd.mount.watch import read_table

point, source = sys.argv[1:]
(entry,) = table.of_source(read_table(), source, point)
waiting = pathlib.Path(f"{cleanup.FUSE_CONNECTIONS}/{entry.minor}/waiting")
before = int(waiting.read_text())  # not always 0: stopped early, it has not answered what the mount itself asked
reader = subprocess.Popen(["ls", point], stderr=subprocess.PIPE, text=True, cwd="/")
deadline = time.monotonic() + 10
while int(waiting.read_text()) <= before:
    assert time.monotonic() < deadline, "the reader does not wait"
    time.sleep(0.01)
cleared = asyncio.run(cleanup.clear(point, source, timeout_s=10))
assert cleared == cleanup.Cleared(1, (entry.minor,)), cleared
print(reader.communicate(timeout=10)[1], end="")
"""


@pytest.mark.fuse
@pytest.mark.root
def test_aborting_frees_who_waits(mounts: Mounts, point: str) -> None:
    """In a mount namespace of its own, since fusectl need not be mounted here; rclone lives on, outside of it."""
    mounts.start(point)
    stop(mounts.processes[0])
    script = 'mount -t fusectl none /sys/fs/fuse/connections 2>/dev/null; exec "$0" -c "$@"'
    apart = ["unshare", "--mount", "--propagation", "private"]
    done = subprocess.run(
        [*apart, "sh", "-c", script, sys.executable, ABORT, point, mounts.source],
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ls: ")
