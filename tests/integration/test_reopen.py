"""Files that a killed rclone left waiting: a program that reads them, at any time, gets their content."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from mountd.cache.reopen import Reopening
from mountd.cache.repair import repair
from mountd.files.client import Files
from mountd.process.slow_disk import SlowDisk
from tests.integration.test_rclone_mount import Running, eventually, mounted, s3
from tests.support.daemon import Daemon
from tests.support.outputs import BUCKET, SOON_S, making
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

SIZE = 100_000
UPLOAD_BYTES_PER_S = 30_000.0


@pytest.mark.thorough
@pytest.mark.slow
def test_what_is_uploaded_while_the_mount_starts_is_read_back(
    store: RcloneS3, proxy: Proxy, make_daemon: Callable[..., Daemon]
) -> None:
    """The bucket answers more slowly than rclone begins to upload, and the uploads last."""
    outputs = making(store, proxy, make_daemon)(options={"vfs-write-back": "1h"})
    outputs.daemon.start_ready()
    files = {name: outputs.write(name, SIZE) for name in ("a.wav", "b.wav", "c.wav")}
    outputs.kill_everything()
    outputs.proxy.faults.latency_s, outputs.proxy.faults.bytes_per_s = 1.0, UPLOAD_BYTES_PER_S
    outputs.daemon.config["mounts"]["outputs"]["options"] = {}
    outputs.daemon.start()
    outputs.daemon.until_ready(60.0)
    outputs.proxy.faults.clear()
    outputs.until_uploaded(files, 60.0)
    until(lambda: outputs.waiting() == 0, SOON_S, "rclone to be done with them")
    assert {name: outputs.read_back(name) for name in files} == files


async def test_an_upload_that_began_too_early_is_waited_for(store: RcloneS3, proxy: Proxy, tmp_path: Path) -> None:
    """Also an empty file, which no read makes known, and one in a directory."""
    (store.directory / BUCKET).mkdir()
    contents = {"early.wav": os.urandom(SIZE), "d/deep 名.wav": os.urandom(SIZE), "empty.wav": b""}
    async with _mounted(tmp_path / "first", proxy, tmp_path / "cache", "1h") as first:
        for name, data in contents.items():
            await asyncio.to_thread(_write, first.path / name, data)
        first.process.kill()
    left = (await asyncio.to_thread(repair, tmp_path / "cache")).leftovers
    assert sorted(left.values()) == [0, SIZE, SIZE]
    proxy.faults.bytes_per_s = UPLOAD_BYTES_PER_S
    files, reported = Files("test", {}), list[int]()
    try:
        async with _mounted(tmp_path / "second", proxy, tmp_path / "cache", "1ms") as second:
            await eventually(lambda: proxy.counts.kinds["PUT"] >= 1, "an upload")
            cached = (await second.rc.vfs_stats()).disk_cache
            assert cached is not None
            reopening = Reopening(left, tmp_path / "cache", cached.metadata)
            await reopening.finish(second.rc, str(second.path), files, SlowDisk(), reported.append)
            assert reported
            await eventually(lambda: not repair(tmp_path / "cache").waiting, "the uploads to finish", 60.0)
            for name, data in contents.items():
                assert await files.read(f"{second.path}/{name}", offset=0, length=SIZE, timeout_s=30.0) == data, name
    finally:
        await files.close()


def _mounted(directory: Path, proxy: Proxy, cache: Path, write_back: str) -> AbstractAsyncContextManager[Running]:
    directory.mkdir()
    remotes = {"store": s3(proxy.endpoint)}
    options = {"vfs-write-back": write_back}
    return mounted(directory, remotes, f"store:{BUCKET}", profile="outputs", options=options, cache={"dir": str(cache)})


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
