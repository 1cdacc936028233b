"""Raw downloads with 16 connections, as fast as a store gives: `downloads.py ranges|boto3|runai …` prints its seconds.

What a mount is compared with. The clock runs from before the listing until the last byte is written, without Python's
own imports. `runai` reads one file into memory and writes nothing. Keys come by the environment.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

STREAMS = 16
PART_BYTES = 8 * 1024**2
BLOCK_BYTES = 1024 * 1024
LIMIT_S = 120.0


def client(endpoint: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        s3={"addressing_style": "path"},
        signature_version="s3v4",  # of presigned addresses too
        max_pool_connections=STREAMS,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)


def listed(s3: Any, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", ()):
            yield entry["Key"], entry["Size"]


def target(directory: str, prefix: str, key: str) -> str:
    path = os.path.join(directory, key.removeprefix(prefix).lstrip("/") or os.path.basename(key))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def by_boto3(given: argparse.Namespace) -> Callable[[], int]:
    """With its own transfer manager: 16 threads over all files."""
    from boto3.s3.transfer import TransferConfig, create_transfer_manager

    s3 = client(given.endpoint)
    config = TransferConfig(max_concurrency=STREAMS, multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)

    def run() -> int:
        total, waiting = 0, []
        with create_transfer_manager(s3, config) as manager:
            for key, size in listed(s3, given.bucket, given.prefix):
                waiting.append(manager.download(given.bucket, key, target(given.directory, given.prefix, key)))
                total += size
            for each in waiting:
                each.result()
        return total

    return run


def by_ranges(given: argparse.Namespace) -> Callable[[], int]:
    """Presigned requests for 8 MiB each, 16 at a time, written where they belong."""
    s3 = client(given.endpoint)

    def run() -> int:
        parts: queue.SimpleQueue[tuple[str, int, int, int]] = queue.SimpleQueue()
        failures: list[BaseException] = []
        descriptors, total = [], 0
        for key, size in listed(s3, given.bucket, given.prefix):
            descriptors.append(os.open(target(given.directory, given.prefix, key), os.O_WRONLY | os.O_CREAT, 0o644))
            os.ftruncate(descriptors[-1], size)
            url = urlsplit(s3.generate_presigned_url("get_object", {"Bucket": given.bucket, "Key": key}))
            for at in range(0, size, PART_BYTES):
                parts.put((f"{url.path}?{url.query}", descriptors[-1], at, min(at + PART_BYTES, size)))
            total += size
        threads = [threading.Thread(target=fetch, args=[given.endpoint, parts, failures]) for _ in range(STREAMS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for descriptor in descriptors:
            os.close(descriptor)
        if failures:
            raise failures[0]
        return total

    return run


def fetch(endpoint: str, parts: queue.SimpleQueue[tuple[str, int, int, int]], failures: list[BaseException]) -> None:
    """Part after part over one connection."""
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=LIMIT_S)
    block = memoryview(bytearray(BLOCK_BYTES))
    try:
        while not failures:
            path, descriptor, at, end = parts.get_nowait()
            connection.request("GET", path, headers={"Range": f"bytes={at}-{end - 1}"})
            answer = connection.getresponse()
            if answer.status not in {200, 206} or answer.length != end - at:  # rclone's server says 200 to a range
                raise OSError(f"{answer.status} with {answer.length} bytes")
            while at < end:
                if not (got := answer.readinto(block[: end - at])):
                    raise OSError("ended in the middle of a part")
                at += os.pwrite(descriptor, block[:got], at)
            answer.read()  # so that the connection can be used again
    except queue.Empty:
        pass
    except (OSError, http.client.HTTPException) as error:
        failures.append(error)
    finally:
        connection.close()


def by_runai(given: argparse.Namespace) -> Callable[[], int]:
    """One safetensors file into memory, with the streamer's own defaults and 16 connections."""
    os.environ.setdefault("RUNAI_STREAMER_CONCURRENCY", str(STREAMS))
    os.environ.setdefault("RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING", "0")
    os.environ.setdefault("AWS_ENDPOINT_URL", given.endpoint)
    os.environ.setdefault("AWS_REGION", "us-east-1")
    from runai_model_streamer import SafetensorsStreamer

    def run() -> int:
        total = 0
        with SafetensorsStreamer() as streamer:
            streamer.stream_file(f"s3://{given.bucket}/{given.prefix}")
            for _, tensor in streamer.get_tensors():
                total += tensor.numel() * tensor.element_size()
        return total

    return run


WAYS: dict[str, Callable[[argparse.Namespace], Callable[[], int]]] = {
    "boto3": by_boto3,
    "ranges": by_ranges,
    "runai": by_runai,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=WAYS)
    for name in ("endpoint", "bucket", "prefix", "directory"):
        parser.add_argument(name)
    given = parser.parse_args()
    run = WAYS[given.way](given)
    began = time.monotonic()
    total = run()
    print(json.dumps({"seconds": time.monotonic() - began, "bytes": total}), file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
