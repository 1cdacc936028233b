"""The shaping proxy before a real S3 server: its rates, its counts, an outage."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.shaping import Shape, Shaped
from tests.support.s3 import RcloneS3, client

MB = 1_000_000
BUCKET = "models"
SIZE = 4 * MB
LATENCY_S = 0.05


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneS3]:
    root = tmp_path_factory.mktemp("store")
    (root / BUCKET).mkdir()
    for name in ("a.bin", "名 b#.bin"):
        (root / BUCKET / name).write_bytes(random.Random(name).randbytes(SIZE))
    for number in range(40):
        (root / BUCKET / f"small-{number}").write_bytes(b"x" * 10)
    with RcloneS3(root) as server:
        yield server


def asked(store: RcloneS3, proxy: Shaped) -> Any:
    return client(proxy.endpoint, store.access_key_id, store.secret_access_key)


def timed(s3: Any, size: int, streams: int = 1) -> float:
    """Seconds in which so many ranges of that size come at once."""

    def get(number: int) -> None:
        body = s3.get_object(Bucket=BUCKET, Key="a.bin", Range=f"bytes={number}-{number + size - 1}")["Body"]
        assert len(body.read()) == size

    threads = [threading.Thread(target=get, args=[number]) for number in range(streams)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - began


def answered_s(s3: Any, requests: int) -> float:
    """Seconds of so many requests without a body, one after the other, on a connection that is open."""
    s3.head_object(Bucket=BUCKET, Key="small-0")
    began = time.monotonic()
    for number in range(requests):
        s3.head_object(Bucket=BUCKET, Key=f"small-{number}")
    return time.monotonic() - began


def test_what_passes_is_right_and_counted(store: RcloneS3) -> None:
    with Shaped(store.endpoint, Shape(0.0, 1e9, 1e9)) as proxy:
        s3 = asked(store, proxy)
        assert len(s3.list_objects_v2(Bucket=BUCKET)["Contents"]) == 42
        for name in ("a.bin", "名 b#.bin"):
            found = s3.get_object(Bucket=BUCKET, Key=name)["Body"].read()
            assert found == (store.directory / BUCKET / name).read_bytes()
        assert s3.head_object(Bucket=BUCKET, Key="a.bin")["ContentLength"] == SIZE
        assert s3.get_object(Bucket=BUCKET, Key="a.bin", Range="bytes=5-14")["Body"].read() == found_at(store, 5, 10)
        s3.put_object(Bucket=BUCKET, Key="new", Body=b"y" * 100_000)
        assert (store.directory / BUCKET / "new").read_bytes() == b"y" * 100_000
        counts = proxy.reset()
        assert counts.kinds == {"LIST": 1, "GET": 3, "HEAD": 1, "PUT": 1}
        assert counts.bytes_by_object == {f"{BUCKET}/a.bin": SIZE + 10, f"{BUCKET}/名 b#.bin": SIZE}
        assert counts.object_bytes == 2 * SIZE + 10
        assert counts.cpu_s > 0
        assert proxy.counts().kinds == {}
    (store.directory / BUCKET / "new").unlink()


def found_at(store: RcloneS3, at: int, size: int) -> bytes:
    return (store.directory / BUCKET / "a.bin").read_bytes()[at : at + size]


def test_what_is_not_there_is_counted_as_a_request_without_bytes(store: RcloneS3) -> None:
    with Shaped(store.endpoint, Shape(0.0, 1e9, 1e9)) as proxy:
        s3 = asked(store, proxy)
        with pytest.raises(s3.exceptions.NoSuchKey):
            s3.get_object(Bucket=BUCKET, Key="nope")
        counts = proxy.counts()
        assert (counts.kinds, counts.object_bytes) == ({"GET": 1}, 0)


def test_an_outage_ends_what_is_under_way_and_refuses_what_comes(store: RcloneS3) -> None:
    with Shaped(store.endpoint, Shape(0.0, 1 * MB, 1e9)) as proxy:
        s3 = asked(store, proxy)
        body = s3.get_object(Bucket=BUCKET, Key="a.bin")["Body"]
        proxy.down()
        with pytest.raises(Exception, match=r"(?i)incomplete|connection|read"):
            body.read()
        with pytest.raises(Exception, match=r"(?i)connect"):
            s3.list_buckets()
        proxy.up()
        assert s3.list_buckets()["Buckets"]


RATES = pytest.mark.parametrize(
    ("shape", "streams", "bytes_per_s"),
    [(Shape(0.0, 4 * MB, 1e9), 1, 4 * MB), (Shape(0.0, 4 * MB, 8 * MB), 4, 8 * MB)],
    ids=["a connection", "all of them"],
)


@RATES
def test_nothing_is_faster_than_its_rate(store: RcloneS3, shape: Shape, streams: int, bytes_per_s: float) -> None:
    size = 3 * MB
    with Shaped(store.endpoint, shape) as proxy:
        assert timed(asked(store, proxy), size, streams) > 0.9 * size * streams / bytes_per_s


def test_no_answer_comes_before_its_time(store: RcloneS3) -> None:
    with Shaped(store.endpoint, Shape(LATENCY_S, 1e9, 1e9)) as proxy:
        assert answered_s(asked(store, proxy), 5) > 0.9 * 5 * LATENCY_S


@pytest.mark.alone
@pytest.mark.thorough
@RATES
def test_rates(store: RcloneS3, shape: Shape, streams: int, bytes_per_s: float) -> None:
    size = 3 * MB
    with Shaped(store.endpoint, shape) as proxy:
        s3 = asked(store, proxy)
        assert timed(s3, size, streams) == pytest.approx(size * streams / bytes_per_s, rel=0.1)


@pytest.mark.alone
@pytest.mark.thorough
def test_latency(store: RcloneS3) -> None:
    with Shaped(store.endpoint, Shape(LATENCY_S, 1e9, 1e9)) as proxy:
        assert answered_s(asked(store, proxy), 20) == pytest.approx(20 * LATENCY_S, rel=0.25)


def test_the_shape_says_itself() -> None:
    assert str(Shape()) == "30 ms a request, 20 MB/s a connection, 150 MB/s in all"


def test_a_process_is_left_of_none(store: RcloneS3) -> None:
    proxy = Shaped(store.endpoint)
    proxy.close()
    with pytest.raises((RuntimeError, ValueError)):
        proxy.counts()
    assert not Path("/proc", str(proxy.pid)).exists()
