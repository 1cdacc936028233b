"""An outbox on stores that answer otherwise than the S3 of a bucket without encryption."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.faults import DENIED, Exchange, Failure
from tests.support.outbox_room import SOON_S, Room
from tests.support.proxy import Proxy
from tests.support.reloader import bench
from tests.support.s3 import KmsS3, RcloneS3
from tests.support.wait import until_async

BUCKET = "results"
ILL = Failure(500, "InternalError")


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


@pytest.fixture
def unlisted(tmp_path: Path) -> Iterator[Proxy]:
    """A store as Amazon's for keys that may not list: a HEAD of what is not there is refused."""

    def is_absent(exchange: Exchange) -> bool:
        return not (tmp_path / BUCKET / exchange.key).exists()

    (tmp_path / BUCKET).mkdir()
    with RcloneS3(tmp_path) as server, Proxy(server.endpoint) as proxy:
        proxy.faults.fail = {"HEAD": Failure(403, "AccessDenied", where=is_absent)}
        yield proxy


@pytest.mark.parametrize("failure", [ILL, DENIED], ids=["ill", "denied"])
async def test_what_has_not_arrived_is_sent_again_also_by_keys_that_may_not_list(
    room: Room, unlisted: Proxy, failure: Failure
) -> None:
    room.use_s3(unlisted.endpoint)
    looks = unlisted.faults.fail
    unlisted.faults.fail = {**looks, "PUT": failure}
    (room.directory / "a.wav").write_bytes(b"content")
    outbox = room.begin(remote=f"s3:{BUCKET}")
    await until_async(lambda: outbox._failures, SOON_S, "a try that fails")
    unlisted.faults.fail = looks
    await room.until_announced(b"content")


async def test_what_was_removed_and_has_not_arrived_is_lost_also_for_keys_that_may_not_list(
    room: Room, unlisted: Proxy
) -> None:
    room.use_s3(unlisted.endpoint)
    unlisted.faults.fail = {**unlisted.faults.fail, "PUT": Failure(500, "InternalError", where=_is_of_a)}
    (room.directory / "a.wav").write_bytes(b"content")
    outbox = room.begin(remote=f"s3:{BUCKET}")
    await until_async(lambda: outbox._failures, SOON_S, "a try that fails")
    (room.directory / "a.wav").unlink()
    (room.directory / "b.wav").write_bytes(b"other content")
    await room.until_announced(b"other content")
    await until_async(
        lambda: room.rows("SELECT state FROM outbox WHERE name = CAST('a.wav' AS BLOB)") == [("lost",)],
        SOON_S,
        "it to be lost",
    )


def _is_of_a(exchange: Exchange) -> bool:
    return exchange.key == "a.wav"
