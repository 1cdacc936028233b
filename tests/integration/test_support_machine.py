"""The faults of a machine that tests cause: each one is real, and gone when its test is."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.support import dies_with_us
from tests.support.machine import Stopped, Tmpfs, children, external_unmount, name, state
from tests.support.s3 import RCLONE, environment
from tests.support.wait import until

pytestmark = pytest.mark.thorough


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(dies_with_us(["sleep", "600"])) as process:
        try:
            until(lambda: name(process.pid) == "sleep" and state(process.pid) == "S", 60, "the child to sleep")
            yield process
        finally:
            process.kill()


def write_fails_with(path: Path, size: int = 1) -> int:
    try:
        path.write_bytes(bytes(size))
    except OSError as error:
        return error.errno or 0
    return 0


@pytest.mark.root
def test_a_disk_is_small_full_and_empty_again(tmp_path: Path) -> None:
    path = tmp_path / "a disk"
    with Tmpfs(path, 2) as disk:
        assert path.is_mount()
        assert 1_000_000 < disk.free_bytes <= 2 * 1024 * 1024
        assert write_fails_with(path / "large", 3_000_000) == errno.ENOSPC
        (path / "large").unlink()
        disk.fill(leave_bytes=100_000)
        assert 0 < disk.free_bytes <= 100_000
        disk.fill()
        assert disk.free_bytes == 0
        assert write_fails_with(path / "small") == errno.ENOSPC
        disk.empty()
        assert write_fails_with(path / "small") == 0
    assert not path.is_mount()


@pytest.mark.root
def test_a_disk_becomes_read_only_and_writable_again(tmp_path: Path) -> None:
    with Tmpfs(tmp_path / "disk", 1) as disk:
        disk.remount_read_only()
        assert write_fails_with(disk.path / "file") == errno.EROFS
        disk.remount_writable()
        assert write_fails_with(disk.path / "file") == 0


@pytest.mark.root
def test_a_busy_disk_goes_away_with_its_test(tmp_path: Path) -> None:
    with Tmpfs(tmp_path / "disk", 1) as disk:
        busy = (disk.path / "file").open("wb")
    assert not disk.path.is_mount()
    busy.close()
    with Tmpfs(tmp_path / "disk", 1) as disk:
        external_unmount(disk.path, "umount")
        assert not disk.path.is_mount()


def test_a_stopped_process_goes_on_though_the_test_fails(sleeper: subprocess.Popen[bytes]) -> None:
    def failing() -> None:
        with Stopped(sleeper.pid):
            assert state(sleeper.pid) == "T"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    until(lambda: state(sleeper.pid) == "S", 60, "the child to go on")
    with Stopped(sleeper.pid) as stopped:
        stopped.resume()
        until(lambda: state(sleeper.pid) == "S", 60, "the child to go on")


def test_a_stopped_process_may_be_killed(sleeper: subprocess.Popen[bytes]) -> None:
    with Stopped(sleeper.pid):
        sleeper.kill()
        until(lambda: state(sleeper.pid) == "Z", 60, "the child to die")
        assert sleeper.pid not in children(os.getpid())
        sleeper.wait()
    assert (state(sleeper.pid), name(sleeper.pid)) == ("", "")


def test_children_are_found() -> None:
    script = "import subprocess; subprocess.run(['sh', '-c', 'sleep 600; :'])"
    with subprocess.Popen(dies_with_us([sys.executable, "-c", script]), start_new_session=True) as process:
        try:
            below = until(lambda: (found := children(process.pid, all_below=True))[1:] and found, 60, "a grandchild")
            assert children(process.pid) == below[:1]
            assert until(lambda: [name(pid) for pid in below] == ["sh", "sleep"], 60, "both to be what they shall be")
            assert process.pid in children(os.getpid())
        finally:
            os.killpg(process.pid, 9)
    assert children(process.pid) == []


@pytest.mark.fuse
@pytest.mark.root
@pytest.mark.parametrize("how", ["fusermount3", "umount"])
def test_a_mount_is_taken_away(how: Literal["fusermount3", "umount"], tmp_path: Path) -> None:
    source, point = tmp_path / "source", tmp_path / "mount point"
    source.mkdir()
    point.mkdir()
    argv = [str(RCLONE), "mount", str(source), str(point), "--config", os.devnull]
    with subprocess.Popen(dies_with_us(argv), env=environment(tmp_path)) as process:
        try:
            until(point.is_mount, 60, "the mount")
            external_unmount(point, how)
            assert not point.is_mount()
        finally:
            process.kill()
            if point.is_mount():
                external_unmount(point, "fusermount3")
    with pytest.raises(RuntimeError, match=how):
        external_unmount(point, how)
