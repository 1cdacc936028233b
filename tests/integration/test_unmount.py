"""Unmounting real rclone mounts: stopped, in use, in vain; and the event by which mountinfo reports it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.errors import Unavailable
from mountd.fuse import table
from mountd.fuse.unmount import unmount
from mountd.fuse.watch import tables
from tests.support.mounts import SOON_S, Mounts, kill, mounting, stop, until


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    with mounting(tmp_path) as mounts:
        yield mounts


@pytest.fixture
def point(tmp_path: Path) -> str:
    return str(tmp_path / "mount point")


@pytest.mark.fuse
@pytest.mark.parametrize("with_fusermount", [True, False])
async def test_unmounting_never_asks_a_stopped_rclone(
    mounts: Mounts, point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_fusermount: bool
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
    await unmount(point, timeout_s=SOON_S)
    assert mounts.of(point) == []


@pytest.mark.fuse
async def test_a_mount_in_use(mounts: Mounts, point: str) -> None:
    mounts.start(point)
    handle = os.open(f"{point}/file", os.O_RDONLY)
    try:
        await unmount(point, timeout_s=SOON_S)
        assert mounts.of(point) == []
        assert os.read(handle, 9) == b"data"  # lazily: who has it open keeps it
    finally:
        os.close(handle)


async def test_an_unmount_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = tmp_path / "bin"
    only.mkdir()
    (only / "fusermount3").write_text(f"#!/bin/sh\necho $$ >{tmp_path}/pid\nwhile :; do :; done\n")
    (only / "fusermount3").chmod(0o755)
    monkeypatch.setenv("PATH", str(only))
    with pytest.raises(Unavailable, match="fusermount3"):
        await unmount("/nowhere", timeout_s=3)
    pid = int((tmp_path / "pid").read_text())
    await until(lambda: not Path(f"/proc/{pid}").exists(), "it was killed and reaped")


@pytest.mark.fuse
async def test_a_lazy_unmount_is_an_event(mounts: Mounts, point: str) -> None:
    process = mounts.start(point)
    seen: list[int] = []

    async def watch() -> None:
        async with contextlib.aclosing(tables()) as each:
            async for entries in each:
                seen.append(len(table.of_source(entries, mounts.source, point)))

    fds = len(os.listdir("/proc/self/fd"))
    watching = asyncio.create_task(watch())
    try:
        await until(lambda: bool(seen) and seen[-1] == 1, "what is mounted when it begins")
        for _ in range(2):  # the second time shows that it is armed again
            seen.clear()
            await unmount(point, timeout_s=SOON_S)
            await until(lambda: bool(seen) and seen[-1] == 0, "the unmount is reported")
            kill(process)
            seen.clear()
            process = mounts.start(point)
            await until(lambda: bool(seen) and seen[-1] == 1, "the mount is reported")
        calls = len(seen)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(seen) <= calls + 5  # not woken for ever (others may mount meanwhile)
    finally:
        watching.cancel()
        await asyncio.wait([watching])
    assert len(os.listdir("/proc/self/fd")) == fds
