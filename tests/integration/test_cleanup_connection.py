"""Readers that wait in the kernel for a real rclone: clearing ends or aborts the FUSE connection, and they are free."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.errors import DiskTimeout
from mountd.files.client import Files
from mountd.fuse import unmount
from mountd.fuse.unmount import Cleared, clear, holders
from tests.support import wait
from tests.support.mounts import SOON_S, TOP, Mounts, kill, mounting, stop, until


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    with mounting(tmp_path) as mounts:
        yield mounts


@pytest.fixture
def point(tmp_path: Path) -> str:
    return str(tmp_path / "mount point")


def shows_connections(process: subprocess.Popen[bytes]) -> bool:
    """Whether this kernel shows who holds a FUSE connection, once `process`, an rclone that mounts, holds its end."""
    # The mount is seen a moment before fusermount3 hands that over.
    number = wait.until(lambda: _end_of(process), SOON_S, "rclone to have its end of the connection")
    return "fuse_connection" in Path(f"/proc/{process.pid}/fdinfo/{number}").read_text()


def _end_of(process: subprocess.Popen[bytes]) -> str | None:
    own = Path(f"/proc/{process.pid}/fd").iterdir()
    return next((each.name for each in own if os.readlink(each) == "/dev/fuse"), None)


@pytest.mark.fuse
async def test_without_fusectl_each_process_that_holds_the_connection_is_killed(
    mounts: Mounts, point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unmount, "FUSE_CONNECTIONS", str(tmp_path / "not-mounted"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = mounts.start(point, remote=f":http,url='http://127.0.0.1:{silent.getsockname()[1]}/':")
        if not shows_connections(process):
            pytest.skip("this kernel does not show which process holds a connection")
        files = Files("test", {})
        try:
            await files.statfs(point, timeout_s=SOON_S)  # its worker has started
            with pytest.raises(DiskTimeout):
                await files.list(point, limit=5, timeout_s=2.0)
            assert files.stuck
            assert await clear(point, mounts.source, timeout_s=SOON_S) == Cleared(1, (process.pid,))
            await until(lambda: not files.stuck, "the worker is free again")
            assert mounts.of(point) == []
        finally:
            kill(process)
            await files.close()


@pytest.mark.fuse
async def test_a_worker_in_the_kernel_is_freed_by_clearing(mounts: Mounts, point: str) -> None:
    """rclone has read the request and waits for a server that never answers: SIGKILL cannot end the reader."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        remote = f":http,url='http://127.0.0.1:{silent.getsockname()[1]}/':"
        process = mounts.start(point, remote=remote)
        files = Files("test", {})
        try:
            await files.statfs(point, timeout_s=SOON_S)
            with pytest.raises(DiskTimeout):
                await files.list(point, limit=5, timeout_s=2.0)
            worker = files.pid
            with pytest.raises(DiskTimeout, match=f" {worker}$"):
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
def test_who_holds_the_connection(mounts: Mounts, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process = mounts.start(point)
    (entry,) = mounts.of(point)
    if shows_connections(process):
        wait.until(lambda: holders(entry.minor) == (process.pid,), SOON_S, "no other process to hold it")
        listdir = os.listdir
        monkeypatch.setattr(os, "listdir", lambda path: [*(["9999"] if path.endswith("/fd") else []), *listdir(path)])
        assert holders(entry.minor) == (process.pid,), "a descriptor closed meanwhile says nothing of the others"
        monkeypatch.undo()
    else:
        assert holders(entry.minor) == ()
    assert holders(2**20) == ()


ABORT = """
import asyncio, pathlib, subprocess, sys, time
from mountd.fuse import unmount
from mountd.fuse import table
from mountd.fuse.watch import read_table

point, source = sys.argv[1:]
(entry,) = table.of_source(read_table(), source, point)
waiting = pathlib.Path(f"{unmount.FUSE_CONNECTIONS}/{entry.minor}/waiting")
before = int(waiting.read_text())  # not always 0: stopped early, it has not answered what the mount itself asked
reader = subprocess.Popen(["ls", point], stderr=subprocess.PIPE, text=True, cwd="/")
deadline = time.monotonic() + 30
while int(waiting.read_text()) <= before:
    assert time.monotonic() < deadline, "the reader does not wait"
    time.sleep(0.01)
cleared = asyncio.run(unmount.clear(point, source, timeout_s=30))
assert cleared == unmount.Cleared(1), "it was aborted, nobody was killed for it"
print(reader.communicate(timeout=30)[1], end="")
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
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ls: ")
