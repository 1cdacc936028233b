"""Large files of an outbox: what takes long is no stall."""

from __future__ import annotations

from pathlib import Path

import pytest

from mountd.errors import RemoteError
from mountd.outbox import sender as module
from mountd.outbox.local import HashedFile
from mountd.outbox.sender import Uploader
from tests.support.faults import ANY, DENIED, Failure
from tests.support.outbox_room import SOON_S, Room
from tests.support.proxy import Proxy
from tests.support.reloader import bench
from tests.support.s3 import RcloneS3
from tests.support.wait import until_async

pytestmark = pytest.mark.timeout(120)
SIZE = 2 * 1024**3


async def test_after_a_failure_other_files_do_not_wait_for_a_large_one_that_goes_on(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    async with bench() as (made, _):
        with RcloneS3(tmp_path) as server, Proxy(server.endpoint) as store:
            store.faults.bytes_per_s = 100e3  # of each connection: the large one takes minutes
            room = Room(made)
            room.use_s3(store.endpoint)
            (room.directory / "large.bin").write_bytes(bytes(50_000_000))
            outbox = room.begin(remote="s3:results")
            sent = store.counts.exchanges
            await until_async(lambda: any(each.sent_bytes for each in sent), SOON_S, "the large one to be sent")
            store.faults.fail = {"PUT": Failure(403, "AccessDenied", where=lambda each: each.key == "small.wav")}
            (room.directory / "small.wav").write_bytes(b"small")
            await until_async(lambda: outbox._failures, SOON_S, "the small one to fail")
            store.faults.fail = {}
            await room.until_announced(b"small")


async def test_an_rclone_that_hashes_a_large_file_before_it_sends_it_is_not_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    monkeypatch.setattr(module, "STALL_S", 0.5)
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(SIZE)  # takes no room on the disk, and seconds to hash
    async with bench() as (made, _):
        with Proxy("http://127.0.0.1:9") as store:
            store.faults.fail = {ANY: DENIED}  # the first request comes after the hash
            room = Room(made)
            room.use_s3(store.endpoint)
            settings = room.settings(remote="s3:results")
            members = made.members
            uploader = Uploader("results", settings, members._instance, members._binary, members._conf)
            try:
                with pytest.raises(RemoteError) as failed:
                    await uploader.upload(HashedFile(1, "", "", str(tmp_path), "large.bin"), "large.bin", SIZE)
            finally:
                await uploader.close()
            assert failed.value.code == "access-denied"
            assert store.counts.requests["POST"] == 1
