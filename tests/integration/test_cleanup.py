"""Clearing real rclone mounts: dead, stopped, stacked, covered; what is not ours or cannot be unmounted stays."""

from __future__ import annotations

import errno
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.errors import Bug, DiskError, DiskTimeout, Unavailable
from mountd.files.client import Files
from mountd.fuse import table
from mountd.fuse.unmount import Cleared, clear, unmount
from mountd.fuse.watch import read_table
from tests.support.mounts import SOON_S, Mounts, kill, mounting, stop, until


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    with mounting(tmp_path) as mounts:
        yield mounts


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
        with pytest.raises(Unavailable, match=r"foreign \(tmpfs\)") as covered:
            await clear(point, mounts.source, timeout_s=SOON_S)
        assert covered.value.hint
        top = table.at(read_table(), point)
        assert top is not None
        assert top.source == "foreign"
    finally:
        subprocess.run(["umount", "-c", "-l", point], check=True, timeout=SOON_S)
    other = table.devname("other", "x")
    assert await clear(point, other, timeout_s=SOON_S) == Cleared(0)
    assert len(mounts.of(point)) == 1


@pytest.mark.fuse
async def test_what_cannot_be_unmounted_is_said_in_time(
    mounts: Mounts, point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(mounts.start(point))
    only = tmp_path / "bin"
    only.mkdir()
    said = "Operation not permitted"
    for name in ("fusermount3", "umount"):
        (only / name).write_text(f"#!/bin/sh\necho '{name}: {said}' >&2\nexit 1\n")
        (only / name).chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(only))
        with pytest.raises(Unavailable) as refused:
            await clear(point, mounts.source, timeout_s=5)
    assert refused.value.text.endswith(f"fusermount3: {said}")
    assert len(mounts.of(point)) == 1


async def test_nothing_mounted(tmp_path: Path) -> None:
    assert await clear(str(tmp_path), table.devname("test", "x"), timeout_s=SOON_S) == Cleared(0)
    with pytest.raises(Unavailable, match=str(tmp_path)):
        await unmount(str(tmp_path), timeout_s=SOON_S)


async def test_only_mounts_of_mountd_can_be_cleared() -> None:
    with pytest.raises(Bug):
        await clear("/", "/dev/sda1", timeout_s=SOON_S)
