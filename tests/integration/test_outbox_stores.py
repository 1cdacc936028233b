"""An outbox on stores that answer otherwise than the S3 of a bucket without encryption."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.outbox_room import SOON_S, Room
from tests.support.proxy import Proxy
from tests.support.reloader import bench
from tests.support.s3 import KmsS3
from tests.support.wait import until_async

BUCKET = "results"


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with bench() as (made, _):
        yield Room(made)


@pytest.fixture
def kms() -> Iterator[Proxy]:
    with KmsS3() as server, Proxy(server.endpoint) as proxy:
        server.create_bucket(BUCKET)
        yield proxy


async def test_results_in_a_bucket_that_kms_encrypts_are_compared_by_size_and_sha256(room: Room, kms: Proxy) -> None:
    """The store says nothing of it that rclone heeds: each ETag looks like the MD5 of something else."""
    room.use_s3(kms.endpoint, upload_cutoff="5M", chunk_size="5M")
    room.begin(remote=f"s3:{BUCKET}")
    names = ("first.wav", "large.bin", "second.wav")
    contents = [os.urandom(6_000_000 if name == "large.bin" else 20_000) for name in names]
    for at, (name, data) in enumerate(zip(names, contents, strict=True)):
        (room.directory / name).write_bytes(data)
        await room.until_announced(*contents[: at + 1])
    await until_async(lambda: room.status.last_key == "second.wav", SOON_S, "the status")
    assert (room.status.failures, room.status.last_compared) == (0, ("size", "sha256"))
    puts = [each.key for each in kms.counts.exchanges if each.method == "PUT" and "partNumber" not in each.target]
    assert puts == ["first.wav", "first.wav", "second.wav"]  # what the ETags are is learned from the first one
    assert kms.counts.requests["DELETE"] == 0
