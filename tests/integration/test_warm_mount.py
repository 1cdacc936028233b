"""Reading ahead through a real mount: into rclone's cache, and what becomes of the worker when the mount hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.errors import Unavailable
from mountd.warm.fetch import read_through
from mountd.warm.plan import WantedFile
from mountd.warm.results import FetchResult
from tests.support.mounts import Mounts, kill, mounting, stop
from tests.support.wait import until_async
from tests.support.warmed import MIB, Heard, make_version

pytestmark = [pytest.mark.fuse]

SOON_S = 30.0


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    with mounting(tmp_path) as mounts:
        yield mounts


@pytest.fixture
def files(tmp_path: Path) -> list[WantedFile]:
    return make_version(tmp_path / "source" / "version")


def mounted(mounts: Mounts, tmp_path: Path) -> subprocess.Popen[bytes]:
    return mounts.start(str(tmp_path / "mnt"), more=("--vfs-cache-mode", "full"))


def cached(tmp_path: Path) -> dict[str, int]:
    """What rclone's cache holds, in bytes on disk by file."""
    top = next((tmp_path / "cache" / "vfs").glob("**/version"))
    return {str(path.relative_to(top)): path.stat().st_blocks * 512 for path in top.rglob("*") if path.is_file()}


async def test_the_cache_has_all_of_it(mounts: Mounts, files: list[WantedFile], tmp_path: Path) -> None:
    heard = Heard()
    mounted(mounts, tmp_path)
    result = await read_through(str(tmp_path / "mnt" / "version"), files, **heard.options()).run()
    assert result == FetchResult(sum(file.size for file in files))
    found = cached(tmp_path)
    assert all(found[file.path] >= file.size for file in files if file.size)


async def test_it_goes_on_through_the_mount_that_takes_the_place_of_a_dead_one(
    mounts: Mounts, files: list[WantedFile], tmp_path: Path
) -> None:
    heard, point = Heard(), str(tmp_path / "mnt")
    process = mounted(mounts, tmp_path)
    reading = asyncio.create_task(read_through(f"{point}/version", files, **heard.options(limit=8 * MIB)).run())
    await until_async(lambda: heard.bytes_done, SOON_S, "the first bytes")
    await asyncio.to_thread(kill, process)
    await until_async(lambda: heard.last.waits_for, SOON_S, "a reason to wait")
    await asyncio.to_thread(subprocess.run, ["umount", "-c", "-i", "-l", point], check=True, timeout=SOON_S)
    await asyncio.to_thread(mounted, mounts, tmp_path)
    assert (await reading).faults == ()
    assert heard.last.bytes_done == sum(file.size for file in files)


async def test_a_mount_that_hangs_is_given_up_in_time(mounts: Mounts, files: list[WantedFile], tmp_path: Path) -> None:
    """rclone is stopped: the worker waits in the kernel."""
    process = mounted(mounts, tmp_path)
    stop(process)
    began = time.monotonic()
    try:
        with pytest.raises(Unavailable):
            await read_through(str(tmp_path / "mnt" / "version"), files, **Heard().options(patience_s=1.0)).run()
        assert time.monotonic() - began < SOON_S
    finally:
        os.kill(process.pid, signal.SIGCONT)
