"""What is read and written through real mounts shows up in `/api/v1/traffic` and in the totals of the metrics."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mountd.client.api import get
from mountd.demo import hub
from tests.support.daemon import ANSWER_S, Daemon
from tests.support.metrics import scrape
from tests.support.outputs import Outputs, making
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

SOON_S = 60.0
SIZE = 30_000_000


def traffic(daemon: Daemon, mount: str) -> dict[str, Any]:
    document = get(str(daemon.socket), "/api/v1/traffic", timeout_s=ANSWER_S)
    assert (document["schema"], document["interval_s"]) == (1, 5)
    found: dict[str, Any] = document["mounts"][mount]
    lengths = {len(found[key]) for key in ("fetched_bytes_per_s", "uploaded_bytes_per_s", "cache_bytes")}
    assert len(lengths) == 1
    return found


def bytes_of(found: dict[str, Any], key: str) -> int:
    return sum(map(int, found[key])) * 5


def total(daemon: Daemon, way: str, mount: str) -> float:
    return scrape(daemon).value(f"mountd_mount_{way}_bytes_total", mount=mount)


def read(path: Path) -> None:
    subprocess.run(["cat", str(path)], stdout=subprocess.DEVNULL, timeout=SOON_S, check=True)


def test_reads_through_the_mount_show_up(daemon: Daemon, store: RcloneS3) -> None:
    (store.directory / hub.BUCKET / "large.bin").write_bytes(os.urandom(SIZE))
    daemon.config["mounts"]["storage"]["cache"]["max_size"] = "1G"
    # Else rclone counts what its cache holds once a minute.
    daemon.config["mounts"]["storage"]["options"] = {"vfs-cache-poll-interval": "5s"}
    daemon.start_ready()
    before = until(lambda: traffic(daemon, "storage") or None, SOON_S, "a first answer")
    assert before["cache_limit_bytes"] == 1 << 30
    read(daemon.mount / "large.bin")
    found = until(
        lambda: (
            (now := traffic(daemon, "storage"))
            and bytes_of(now, "fetched_bytes_per_s") >= SIZE * 0.9
            and now["cache_bytes"][-1] >= SIZE
            and now
        ),
        SOON_S,
        "what was read to be shown",
    )
    assert bytes_of(found, "uploaded_bytes_per_s") == 0
    assert len(found["cache_bytes"]) <= 120
    until(lambda: total(daemon, "fetched", "storage") >= SIZE, SOON_S, "all of it to be counted")
    metrics = scrape(daemon)
    assert metrics.value("mountd_mount_fetched_bytes_total", mount="storage") < 2 * SIZE
    assert metrics.value("mountd_mount_uploaded_bytes_total", mount="storage") == 0
    assert metrics.value("mountd_cache_bytes", mount="storage") >= SIZE
    assert metrics.value("mountd_cache_limit_bytes", mount="storage") == 1 << 30


def test_uploads_are_separated_from_reads_and_counted_before_a_restart(
    store: RcloneS3, proxy: Proxy, make_daemon: Callable[..., Daemon]
) -> None:
    outputs: Outputs = making(store, proxy, make_daemon)()
    (outputs.bucket / "old.wav").write_bytes(os.urandom(2_000_000))
    daemon = outputs.daemon
    daemon.start_ready()
    files = {f"{number}.wav": outputs.write(f"{number}.wav", 1_000_000) for number in range(5)}
    read(daemon.mount / "old.wav")
    outputs.until_uploaded(files, SOON_S)
    until(
        lambda: bytes_of(traffic(daemon, "outputs"), "uploaded_bytes_per_s") >= 5_000_000 * 0.9,
        SOON_S,
        "the uploads to be shown",
    )
    files = {"last.wav": outputs.write("last.wav", 3_000_000)}
    assert daemon.cli("restart", "outputs").code == 0
    until(lambda: daemon.status()["mounts"]["outputs"]["state"] == "running", SOON_S, "the mount to run again")
    outputs.until_uploaded(files, SOON_S)
    until(lambda: total(daemon, "uploaded", "outputs") >= 8_000_000, SOON_S, "the uploads to be counted")
    assert total(daemon, "uploaded", "outputs") < 8_500_000
    until(lambda: total(daemon, "fetched", "outputs") >= 2_000_000, SOON_S, "what was read to be counted")
    assert total(daemon, "fetched", "outputs") < 2_500_000
