"""The tests' S3 servers and proxy: each server by boto3 and by rclone, directly and through the proxy."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.support.proxy import Exchange, Faults, Proxy, Reply, Reset
from tests.support.s3 import RCLONE, MotoS3, RcloneS3, S3Server, client, environment
from tests.support.wait import until

pytestmark = pytest.mark.thorough

BUCKET = "index-tts-data"
KEYS = ["cache_hub_v23/models/gpt.pth", "cache_hub_v23/models/声音 #1.bin"]


@pytest.fixture(params=["rclone", pytest.param("moto", marks=pytest.mark.thorough)])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[S3Server]:
    with RcloneS3(tmp_path) if request.param == "rclone" else MotoS3() as running:
        running.create_bucket(BUCKET)
        yield running


@pytest.fixture
def rclone_server(tmp_path: Path) -> Iterator[RcloneS3]:
    (tmp_path / BUCKET).mkdir()
    with RcloneS3(tmp_path) as running:
        yield running


@pytest.fixture
def proxy(server: S3Server) -> Iterator[Proxy]:
    with Proxy(server.endpoint) as running:
        yield running


def through(proxy: Proxy, server: S3Server) -> Any:
    return client(proxy.endpoint, server.access_key_id, server.secret_access_key)


def lsf(rclone: Path, endpoint: str, server: S3Server, home: Path) -> subprocess.CompletedProcess[str]:
    remote = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ENDPOINT": endpoint,
        "REGION": "us-east-1",
        "ACCESS_KEY_ID": server.access_key_id,
        "SECRET_ACCESS_KEY": server.secret_access_key,
    }
    env = environment(home) | {f"RCLONE_CONFIG_B_{key}": value for key, value in remote.items()}
    argv = [str(rclone), "lsf", "-R", "--files-only", f"B:{BUCKET}/", "--config", os.devnull]
    argv += ["--retries", "1", "--low-level-retries", "1", "--contimeout", "5s", "--timeout", "10s"]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_objects_go_in_and_out_through_the_proxy(server: S3Server, proxy: Proxy) -> None:
    s3, data = through(proxy, server), os.urandom(3_000_000)
    s3.put_object(Bucket=BUCKET, Key=KEYS[1], Body=data)
    assert s3.get_object(Bucket=BUCKET, Key=KEYS[1])["Body"].read() == data
    part = s3.get_object(Bucket=BUCKET, Key=KEYS[1], Range="bytes=100-199")["Body"].read()
    assert part == data[100:200]
    assert s3.head_object(Bucket=BUCKET, Key=KEYS[1])["ContentLength"] == len(data)
    s3.delete_object(Bucket=BUCKET, Key=KEYS[1])
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket=BUCKET, Key=KEYS[1])

    counts = proxy.counts
    assert counts.requests == {"PUT": 1, "GET": 3, "HEAD": 1, "DELETE": 1}
    assert [exchange.method for exchange in counts.exchanges] == ["PUT", "GET", "GET", "HEAD", "DELETE", "GET"]
    assert [exchange.status // 100 for exchange in counts.exchanges] == [2, 2, 2, 2, 2, 4]
    assert [exchange.body_bytes for exchange in counts.exchanges][1:4] == [3_000_000, 100, 0]
    assert counts.exchanges[2].headers["range"] == "bytes=100-199"
    assert counts.body_bytes == sum(exchange.body_bytes for exchange in counts.exchanges)
    proxy.reset_counts()
    assert (proxy.counts.requests, proxy.counts.body_bytes) == ({}, 0)


def test_uploads_in_parts_pass_the_proxy(server: S3Server, proxy: Proxy, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(os.urandom(12_000_000))  # over boto3's 8 MiB threshold
    through(proxy, server).upload_file(str(source), BUCKET, "big")
    assert server.client.get_object(Bucket=BUCKET, Key="big")["Body"].read() == source.read_bytes()


@pytest.mark.thorough
def test_a_tree_is_uploaded(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    tree = tmp_path_factory.mktemp("tree")
    for key in KEYS:
        (tree / key).parent.mkdir(parents=True, exist_ok=True)
        (tree / key).write_bytes(key.encode())
    server.upload(BUCKET, tree)
    found = server.client.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert sorted(entry["Key"] for entry in found) == sorted(KEYS)


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "proxied"])
def test_rclone_lists(server: S3Server, proxy: Proxy, direct: bool, tmp_path: Path) -> None:
    for key in KEYS:
        server.put(BUCKET, key, b"x")
    done = lsf(RCLONE, server.endpoint if direct else proxy.endpoint, server, tmp_path)
    assert sorted(done.stdout.splitlines()) == sorted(KEYS), done.stderr
    assert (proxy.counts.requests.total() == 0) is direct


def test_a_wrong_key_is_refused_and_corrected(rclone_server: RcloneS3, tmp_path: Path) -> None:
    former = (rclone_server.access_key_id, rclone_server.secret_access_key)
    with Proxy(rclone_server.endpoint) as proxy:
        holder = client(proxy.endpoint, *former)
        rclone_server.set_keys(former[0], "another-secret-than-before")
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            holder.list_objects_v2(Bucket=BUCKET)
        assert proxy.counts.exchanges[-1].status == 403
        rclone_server.put(BUCKET, "still", b"works with the server's present keys")
        rclone_server.set_keys(*former)
        assert holder.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 1


def test_what_changes_on_disk_shows_soon(rclone_server: RcloneS3) -> None:
    s3 = rclone_server.client
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)
    (rclone_server.directory / BUCKET / "new").write_bytes(b"x")
    until(lambda: "Contents" in s3.list_objects_v2(Bucket=BUCKET), 60, "the file to be listed")


def test_a_stopped_server_refuses_and_comes_back_on_its_port(server: S3Server) -> None:
    endpoint = server.endpoint
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port), timeout=5)
    server.start()
    assert server.endpoint == endpoint
    assert "Buckets" in server.client.list_buckets()


@pytest.mark.thorough
def test_the_port_of_a_stopped_server_is_given_to_nobody(rclone_server: RcloneS3) -> None:
    rclone_server.stop()
    taken = []
    try:
        for _ in range(300):
            other = socket.socket()
            taken.append(other)
            other.bind(("127.0.0.1", 0))
            assert other.getsockname()[1] != rclone_server.port
    finally:
        for other in taken:
            other.close()


def test_a_server_dies_with_a_killed_test_process(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time\n"
        "from tests.support.s3 import RcloneS3\n"
        "print(RcloneS3(pathlib.Path(sys.argv[1])).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=root, stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            child = psutil.Process(int(parent.stdout.readline()))
            assert "rclone" in child.name()
        finally:
            parent.send_signal(signal.SIGKILL)
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 60, "the server to die as well")


def test_latency_can_be_changed_at_run_time(server: S3Server, proxy: Proxy) -> None:
    s3 = through(proxy, server)
    s3.list_buckets()
    proxy.latency_s = 0.3
    began = time.monotonic()
    s3.list_buckets()
    assert time.monotonic() - began >= 0.3
    assert proxy.latency_s == 0.3


def test_down_cuts_and_refuses_and_up_serves_again(server: S3Server, proxy: Proxy) -> None:
    s3 = through(proxy, server)
    s3.list_buckets()
    proxy.latency_s = 60
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            s3.list_buckets()
        except BotoCoreError as error:
            failures.append(error)

    waiting = threading.Thread(target=ask)
    waiting.start()
    until(lambda: proxy.counts.requests["GET"] == 2, 60, "the second request to arrive")
    proxy.down()
    waiting.join(10)
    assert len(failures) == 1  # the request under way was cut, not left waiting
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((proxy.host, proxy.port), timeout=5)
    proxy.latency_s = 0
    proxy.up()
    assert "Buckets" in s3.list_buckets()


def test_an_unreachable_server_breaks_the_connection_and_is_found_again(server: S3Server, proxy: Proxy) -> None:
    s3 = through(proxy, server)
    s3.list_buckets()
    server.stop()
    with pytest.raises(BotoCoreError):
        s3.list_buckets()
    server.start()
    assert "Buckets" in s3.list_buckets()


@pytest.mark.thorough
def test_a_slow_reader_holds_the_body_back(rclone_server: RcloneS3) -> None:
    size = 64 * 1024 * 1024
    with (rclone_server.directory / BUCKET / "big").open("wb") as file:
        file.truncate(size)
    with Proxy(rclone_server.endpoint) as proxy:
        s3 = client(proxy.endpoint, rclone_server.access_key_id, rclone_server.secret_access_key)
        body = s3.get_object(Bucket=BUCKET, Key="big")["Body"]
        body.read(1)
        seen = -1

        def settled() -> bool:
            nonlocal seen
            before, seen = seen, proxy.counts.body_bytes
            return before == seen

        until(settled, 60, "the proxy to stop reading", every_s=0.3)
        assert seen < size / 2  # the sockets' buffers hold some megabytes
        assert len(body.read()) == size - 1
        until(lambda: proxy.counts.body_bytes == size, 60, "the proxy to have counted all of it")


class Refusing(Faults):
    """How a later bench adds faults: answers GET of one key itself, and cuts the body of another."""

    async def request(self, exchange: Exchange) -> Reply | None:
        return Reply(503, b"<Error><Code>SlowDown</Code></Error>") if exchange.target.endswith("/slow") else None

    async def chunk(self, exchange: Exchange, size: int) -> None:
        if exchange.target.endswith("/cut") and exchange.body_bytes + size > 100_000:
            raise Reset


def test_faults_can_answer_and_cut(server: S3Server) -> None:
    server.put(BUCKET, "cut", bytes(1_000_000))
    server.put(BUCKET, "whole", bytes(1_000_000))
    with Proxy(server.endpoint, Refusing()) as proxy:
        s3 = through(proxy, server)
        with pytest.raises(ClientError, match="SlowDown"):
            s3.get_object(Bucket=BUCKET, Key="slow")
        with pytest.raises(ClientError, match="SlowDown"):
            s3.put_object(Bucket=BUCKET, Key="slow", Body=bytes(500_000))
        with pytest.raises(BotoCoreError):
            s3.get_object(Bucket=BUCKET, Key="cut")["Body"].read()
        assert len(s3.get_object(Bucket=BUCKET, Key="whole")["Body"].read()) == 1_000_000
