"""The faults of the tests' S3 proxy: each one seen by a client of a real S3 server."""

from __future__ import annotations

import concurrent.futures
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError

from tests.support.faults import (
    ANY,
    DENIED,
    EXPIRED,
    NO_BUCKET,
    NO_KEY,
    SKEWED,
    SLOW_DOWN,
    Break,
    Exchange,
    Failure,
    Faults,
)
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3, client
from tests.support.wait import until

pytestmark = pytest.mark.thorough

BUCKET, KEY, SIZE = "hub", "models/gpt 声.pth", 300_000
CONTENT = os.urandom(SIZE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneS3]:
    root = tmp_path_factory.mktemp("store")
    (root / BUCKET / "models").mkdir(parents=True)
    (root / BUCKET / KEY).write_bytes(CONTENT)
    (root / BUCKET / "empty").touch()
    with RcloneS3(root) as running:
        yield running


@pytest.fixture
def proxy(server: RcloneS3) -> Iterator[Proxy]:
    with Proxy(server.endpoint) as running:
        yield running


@pytest.fixture
def s3(proxy: Proxy, server: RcloneS3) -> Any:
    return client(proxy.endpoint, server.access_key_id, server.secret_access_key)


@pytest.fixture
def requests(s3: Any) -> dict[str, Callable[[], Any]]:
    return {
        "LIST": lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix="models/", Delimiter="/"),
        "HEAD": lambda: s3.head_object(Bucket=BUCKET, Key=KEY),
        "GET": lambda: get(s3),
        "PUT": lambda: s3.put_object(Bucket=BUCKET, Key="new", Body=b"new"),
    }


def get(s3: Any, key: str = KEY) -> bytes:
    content: bytes = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return content


def code_of(ask: Callable[[], Any]) -> str:
    """The S3 error code that it ends with; the status for HEAD, whose answers have no body; "" if it succeeds."""
    try:
        ask()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


# -- kinds and counts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "kind"),
    [
        ("GET", "/", "LIST"),
        ("GET", "/hub", "LIST"),
        ("GET", "/hub/?list-type=2&prefix=models%2Fa", "LIST"),
        ("GET", "/hub?delimiter=%2F&max-keys=2&prefix=a/b", "LIST"),
        ("GET", "/hub/a?x-id=GetObject", "GET"),
        ("GET", "/hub/a/", "GET"),
        ("HEAD", "/hub", "HEAD"),
        ("HEAD", "/hub/a", "HEAD"),
        ("PUT", "/hub/a?partNumber=1&uploadId=x", "PUT"),
        ("POST", "/hub/a?uploads", "POST"),
        ("DELETE", "/hub/a", "DELETE"),
    ],
)
def test_a_request_has_a_kind(method: str, target: str, kind: str) -> None:
    assert Exchange(method, target, {}).kind == kind


def test_requests_are_counted_by_kind_and_content_apart(
    proxy: Proxy, requests: dict[str, Callable[[], Any]], s3: Any, server: RcloneS3
) -> None:
    for ask in requests.values():
        ask()
    with pytest.raises(ClientError, match="NoSuchKey"):
        get(s3, "nothing")
    assert proxy.counts.kinds == {"LIST": 1, "HEAD": 1, "GET": 2, "PUT": 1}
    assert proxy.counts.object_bytes == SIZE
    assert proxy.counts.body_bytes > SIZE
    exchanges = list(proxy.counts.exchanges)
    assert [exchange.key for exchange in exchanges] == ["", KEY, KEY, "new", "nothing"]
    assert {exchange.access_key_id for exchange in exchanges} == {server.access_key_id}
    assert exchanges[3].sent_bytes == 3
    assert exchanges[0].at < exchanges[4].at <= time.monotonic()


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["LIST", "HEAD", "GET", "PUT"])
def test_one_kind_fails_and_the_others_work(kind: str, proxy: Proxy, requests: dict[str, Callable[[], Any]]) -> None:
    proxy.faults.fail = {kind: SLOW_DOWN}
    failed = {each: code for each, ask in requests.items() if (code := code_of(ask))}
    assert failed == {kind: "503" if kind == "HEAD" else "SlowDown"}
    assert proxy.counts.object_bytes == (0 if kind == "GET" else SIZE)
    proxy.faults.clear()
    assert not any(map(code_of, requests.values()))


@pytest.mark.parametrize("failure", [EXPIRED, SKEWED, DENIED, NO_KEY, NO_BUCKET, SLOW_DOWN], ids=lambda each: each.code)
def test_refusals_look_like_those_of_s3(failure: Failure, proxy: Proxy, s3: Any) -> None:
    proxy.faults.fail = {ANY: DENIED, "GET": failure}  # a kind's own goes first
    with pytest.raises(ClientError) as caught:
        get(s3)
    answer: Any = caught.value.response
    assert answer["Error"]["Code"] == failure.code
    assert answer["Error"]["Message"] != failure.code, "a sentence as Amazon's"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == failure.status
    assert answer["ResponseMetadata"]["HTTPHeaders"]["date"].endswith("GMT")
    assert proxy.counts.exchanges[-1].status == failure.status
    assert code_of(s3.list_buckets) == "AccessDenied"


@pytest.mark.thorough
def test_a_rate_repeats_with_its_seed(server: RcloneS3) -> None:
    def run(seed: int) -> list[str]:
        faults = Faults(fail={"HEAD": Failure(503, "SlowDown", rate=0.3)}, seed=seed)
        with Proxy(server.endpoint, faults) as proxy:
            s3 = client(proxy.endpoint, server.access_key_id, server.secret_access_key)
            return [code_of(lambda: s3.head_object(Bucket=BUCKET, Key=KEY)) for _ in range(60)]

    first = run(7)
    assert run(7) == first
    assert run(8) != first
    assert 6 <= first.count("503") <= 30


@pytest.mark.thorough
def test_only_the_old_key_is_expired(tmp_path: Path) -> None:
    (tmp_path / BUCKET).mkdir()
    with RcloneS3(tmp_path) as own, Proxy(own.endpoint) as proxy:
        old, new = (own.access_key_id, own.secret_access_key), ("MOUNTDTESTKEY0002", "mountd-test-secret-0002")
        own.set_keys(*old, new)
        proxy.faults.fail = {ANY: Failure(403, "ExpiredToken", where=lambda request: request.access_key_id == old[0])}
        assert code_of(lambda: client(proxy.endpoint, *old).list_objects_v2(Bucket=BUCKET)) == "ExpiredToken"
        assert code_of(lambda: client(proxy.endpoint, *new).list_objects_v2(Bucket=BUCKET)) == ""
        session = boto3.session.Session(*new, aws_session_token="a-token", region_name="us-east-1")
        with_token = session.client("s3", endpoint_url=proxy.endpoint, config=Config(s3={"addressing_style": "path"}))
        assert "Buckets" in with_token.list_buckets()
        assert proxy.counts.exchanges[-1].headers["x-amz-security-token"] == "a-token"


def test_a_kind_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="LISTS"):
        Faults().fail = {"LISTS": SLOW_DOWN}
    with pytest.raises(AttributeError):
        Faults().bandwidth = 1


# -- slow --------------------------------------------------------------------------------------------------------------


def quick_once(ask: Callable[[], object], limit_s: float, *, least_s: float = 0.0) -> None:
    """A busy machine may make it slow most times, but not each time; never may it be quicker than `least_s`."""

    def is_quick() -> bool:
        began = time.monotonic()
        ask()
        took_s = time.monotonic() - began
        assert took_s >= least_s
        return took_s < limit_s

    until(is_quick, 60, f"an answer within {limit_s:g} s")


def in_parallel(count: int, work: Callable[[], Any]) -> float:
    """Seconds until `count` threads have done it."""
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        for each in [pool.submit(work) for _ in range(count)]:
            each.result()
    return time.monotonic() - began


def test_a_connection_has_a_bandwidth(proxy: Proxy, s3: Any) -> None:
    proxy.faults.bytes_per_s = SIZE / 2
    # Side by side, each at full speed: one after the other it is 8.
    quick_once(lambda: in_parallel(4, lambda: get(s3)), 7, least_s=1.6)
    before = time.monotonic()
    s3.put_object(Bucket=BUCKET, Key="up", Body=CONTENT)
    assert time.monotonic() - before >= 1.6
    assert proxy.counts.exchanges[-1].sent_bytes == SIZE
    proxy.faults.clear()
    quick_once(lambda: get(s3), 0.4)


def test_all_connections_share_a_bandwidth(proxy: Proxy, s3: Any) -> None:
    proxy.faults.total_bytes_per_s = SIZE / 0.3
    assert in_parallel(4, lambda: get(s3)) >= 1.1
    assert proxy.counts.object_bytes == 4 * SIZE


def test_a_high_cap_is_reached(proxy: Proxy, s3: Any, server: RcloneS3) -> None:
    with (server.directory / BUCKET / "big").open("wb") as file:
        file.truncate(30_000_000)
    until(lambda: s3.head_object(Bucket=BUCKET, Key="big")["ContentLength"] == 30_000_000, 60, "the file to be seen")
    proxy.faults.bytes_per_s = 50_000_000
    assert len(get(s3, "big")) == 30_000_000
    quick_once(lambda: get(s3, "big"), 3.0, least_s=0.5)


def test_a_new_cap_is_felt_by_a_running_body(proxy: Proxy, s3: Any) -> None:
    proxy.faults.bytes_per_s = 1000
    body = s3.get_object(Bucket=BUCKET, Key=KEY)["Body"]
    assert body.read(50)
    assert proxy.counts.object_bytes < SIZE / 10
    proxy.faults.bytes_per_s = 0
    began = time.monotonic()
    assert len(body.read()) == SIZE - 50
    assert time.monotonic() - began < 60, "instead of five minutes"


# -- broken ------------------------------------------------------------------------------------------------------------


def raw_get(proxy: Proxy, server: RcloneS3, key: str = KEY) -> tuple[bytes, str]:
    """What of an object's answer arrives on the wire, and how it ends."""
    request = AWSRequest("GET", f"{proxy.endpoint}/{BUCKET}/{quote(key)}")
    S3SigV4Auth(Credentials(server.access_key_id, server.secret_access_key), "s3", "us-east-1").add_auth(request)
    lines = [f"GET {quote(f'/{BUCKET}/{key}')} HTTP/1.1", f"Host: {proxy.host}:{proxy.port}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    with socket.create_connection((proxy.host, proxy.port), timeout=30) as wire:
        wire.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        got = b""
        try:
            while data := wire.recv(65536):
                got += data
        except ConnectionResetError:
            return got, "reset"
        return got, "closed"


def test_bodies_are_cut_after_some_bytes(proxy: Proxy, s3: Any, server: RcloneS3) -> None:
    proxy.faults.cut = {"GET": Break(after=100_001)}
    with pytest.raises(BotoCoreError):
        get(s3)
    answer, end = raw_get(proxy, server)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"content-length: {SIZE}".encode() in head.lower()
    assert (body, end) == (CONTENT[:100_001], "closed")
    assert proxy.counts.exchanges[-1].body_bytes == 100_001
    part = s3.get_object(Bucket=BUCKET, Key=KEY, Range="bytes=10-100010")["Body"].read()
    assert part == CONTENT[10:100_011], "what is not longer passes whole"


def test_a_listing_is_cut(proxy: Proxy, requests: dict[str, Callable[[], Any]]) -> None:
    proxy.faults.cut = {"LIST": Break(after=20)}
    with pytest.raises((BotoCoreError, ClientError)):
        requests["LIST"]()
    assert [code_of(requests[kind]) for kind in ("HEAD", "GET", "PUT")] == ["", "", ""]


def test_a_cut_somewhere_is_repeatable(server: RcloneS3) -> None:
    def run() -> list[int]:
        with Proxy(server.endpoint, Faults(cut={"GET": Break()}, seed=3)) as proxy:
            assert [raw_get(proxy, server)[1] for _ in range(5)] == ["closed"] * 5
            assert {exchange.status for exchange in proxy.counts.exchanges} == {200}
            return [exchange.body_bytes for exchange in proxy.counts.exchanges]

    first = run()
    assert run() == first
    assert len(set(first)) == 5
    assert all(0 <= size < SIZE for size in first)


@pytest.mark.thorough
def test_connections_are_reset(proxy: Proxy, server: RcloneS3, requests: dict[str, Callable[[], Any]]) -> None:
    proxy.faults.reset = {ANY: Break(after=100)}
    for ask in requests.values():
        with pytest.raises(BotoCoreError):
            ask()
    assert raw_get(proxy, server)[1] == "reset"
    assert raw_get(proxy, server, "empty") == (b"", "reset")
    assert {exchange.kind: exchange.status for exchange in list(proxy.counts.exchanges)[1:4]} == {
        "HEAD": 0,
        "GET": 200,
        "PUT": 0,
    }


def test_some_connections_are_reset(proxy: Proxy, s3: Any) -> None:
    proxy.faults.reset = {ANY: Break(rate=0.3)}
    broken = 0
    for _ in range(40):
        try:
            assert get(s3) == CONTENT
        except BotoCoreError:
            broken += 1
    assert 4 <= broken <= 24
    assert sum(exchange.body_bytes < SIZE for exchange in proxy.counts.exchanges) == broken


# -- gone --------------------------------------------------------------------------------------------------------------


def test_a_black_hole_swallows_and_what_hung_goes_on(proxy: Proxy, s3: Any) -> None:
    proxy.faults.bytes_per_s = 20_000
    body = s3.get_object(Bucket=BUCKET, Key=KEY)["Body"]
    began = body.read(1000)
    proxy.faults.black_hole = True
    proxy.faults.bytes_per_s = 0
    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            rest = pool.submit(body.read)
            listing = pool.submit(s3.list_objects_v2, Bucket=BUCKET)
            until(lambda: proxy.counts.kinds["LIST"] == 1, 60, "the request to be swallowed")
            with socket.create_connection((proxy.host, proxy.port), timeout=30) as fresh:
                fresh.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                fresh.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    fresh.recv(1)
            passed = proxy.counts.body_bytes
            assert passed < SIZE / 2
            assert not rest.done()
            assert not listing.done()
        finally:
            proxy.faults.black_hole = False
        assert began + rest.result(30) == CONTENT
        assert "Contents" in listing.result(30)


def test_an_upload_hangs_in_a_black_hole(proxy: Proxy, s3: Any, server: RcloneS3) -> None:
    proxy.faults.bytes_per_s = 50_000
    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            sending = pool.submit(s3.put_object, Bucket=BUCKET, Key="hung", Body=CONTENT)
            until(lambda: proxy.counts.exchanges and proxy.counts.exchanges[0].sent_bytes, 60, "the upload to begin")
            proxy.faults.black_hole = True
            with pytest.raises(TimeoutError):
                sending.result(0.7)
            assert proxy.counts.exchanges[0].sent_bytes < SIZE
        finally:
            proxy.faults.bytes_per_s = 0
            proxy.faults.black_hole = False
        sending.result(30)
    assert get(s3, "hung") == CONTENT


def test_a_proxy_ends_while_requests_hang(server: RcloneS3) -> None:
    with Proxy(server.endpoint, Faults(black_hole=True)) as proxy:
        s3 = client(proxy.endpoint, server.access_key_id, server.secret_access_key)
        failures: list[BaseException] = []

        def ask() -> None:
            try:
                s3.list_buckets()
            except ConnectionClosedError as error:
                failures.append(error)

        hung = threading.Thread(target=ask)
        hung.start()
        until(lambda: proxy.counts.kinds["LIST"], 60, "the request to be swallowed")
        proxy.down()
        hung.join(30)
        assert len(failures) == 1
