"""The hub in moto's S3, which holds keys that no file system can, and archived objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.proxy import Proxy
from tests.support.s3 import MotoS3


@contextmanager
def moto_hub(hub_directory: Path) -> Iterator[tuple[MotoS3, Proxy]]:
    """A server with the demo's bucket, and a proxy in front of it."""
    with MotoS3() as server, Proxy(server.endpoint) as proxy:
        server.create_bucket(hub.BUCKET)
        server.upload(hub.BUCKET, hub_directory / hub.BUCKET)
        yield server, proxy


def archive(server: MotoS3, key: str) -> None:
    """From now on it must be restored before it can be read."""
    body = server.client.get_object(Bucket=hub.BUCKET, Key=key)["Body"].read()
    server.client.put_object(Bucket=hub.BUCKET, Key=key, Body=body, StorageClass="GLACIER")


def daemon_on(make_daemon: Callable[..., Daemon], proxy: Proxy) -> Daemon:
    return make_daemon(endpoint=proxy.endpoint, access_key_id="MOUNTDTESTKEY0001", secret_access_key="any-secret-0001")
