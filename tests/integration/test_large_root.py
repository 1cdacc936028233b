"""A bucket with more in its root than fits a page or two: it is proven, and the bucket probe stays one request."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mountd.demo import hub
from mountd.mount.proof import LIST_LIMIT
from mountd.rclone.rc import NONEXISTENT_DIR
from tests.support.daemon import Daemon
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse


@pytest.mark.thorough
def test_a_root_of_many_objects(make_daemon: Callable[..., Daemon], store: RcloneS3, proxy: Proxy) -> None:
    for number in range(LIST_LIMIT + 100):
        (store.directory / hub.BUCKET / f"{number:06}").write_text(f"{number}")
    proxy.latency_s = 1.0  # listing the root takes longer than what is slow
    daemon = make_daemon(endpoint=proxy.endpoint)
    daemon.config["models"], daemon.config["apps"] = {}, {}
    daemon.config["mounts"]["storage"]["health"] = {"backend": "2s"}
    status = daemon.start_ready()
    assert proxy.counts.object_bytes > 0, "bytes were read to prove it"
    assert (status["health"], status["reasons"]) == ("Healthy", [])
    proxy.reset_counts()
    until(lambda: proxy.counts.kinds["LIST"] >= 2, 60, "two questions to the bucket")
    seen = proxy.reset_counts()
    assert all(NONEXISTENT_DIR in exchange.target for exchange in seen.exchanges)
    assert set(seen.kinds) == {"LIST"}
    assert daemon.status()["health"] == "Healthy"
