"""Versions beyond `keep` leave rclone's cache while it runs; what anybody needs stays, and reads stay right."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mountd.client.api import get
from mountd.demo import hub
from mountd.model import manifest
from tests.support.daemon import Daemon
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

# The product tries again after a minute what was in use.
AGAIN = """
import sys
from mountd.cli.main import main
from mountd.operation import prune
prune.AGAIN_S = 0.5
sys.exit(main())
"""
SOON_S = 30.0
GPT = "models/gpt.pth"


def add_version(store: RcloneS3, version: str) -> None:
    bucket = store.directory / hub.BUCKET
    shutil.copytree(bucket / "cache_hub_v22", bucket / f"cache_hub_{version}")
    path = bucket / f"cache_hub_{version}" / manifest.NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": version}))


def cached(daemon: Daemon) -> set[str]:
    """Versions of which rclone holds bytes."""
    found = (daemon.root / "cache" / "vfs").glob(f"store*/{hub.BUCKET}/cache_hub_*")
    return {path.name.removeprefix("cache_hub_") for path in found if any(each.is_file() for each in path.rglob("*"))}


def pruned(daemon: Daemon) -> list[dict[str, Any]]:
    events = get(str(daemon.socket), "/api/v1/events", timeout_s=10)["events"]
    return [event for event in events if event["code"] == "pruned"]


def switch(daemon: Daemon, version: str) -> None:
    done = daemon.cli("switch", version)
    assert done.code == 0, done


@pytest.mark.shown_by("bundled")
@pytest.mark.timeout(240)
def test_old_versions_leave_the_cache(make_daemon: Callable[..., Daemon], store: RcloneS3, each_rclone: Path) -> None:
    daemon = make_daemon(rclone=each_rclone, program=(sys.executable, "-c", AGAIN))
    daemon.config["models"]["cache_hub"]["watch"] = {"for": "0s"}
    for version in ("v24", "v25", "v26"):
        add_version(store, version)
    before = daemon.start_ready()
    switch(daemon, "v22")
    assert cached(daemon) == {"v22", "v23"}

    # A program that reads what is to go keeps it, and what it reads goes on being right.
    old = daemon.mount / "cache_hub_v23" / GPT
    content = (store.directory / hub.BUCKET / "cache_hub_v23" / GPT).read_bytes()
    with old.open("rb", buffering=0) as reader:
        assert reader.read(10) == content[:10]
        switch(daemon, "v24")
        until(lambda: daemon.events("version stays in the cache"), SOON_S, "the prune to find it in use")
        assert cached(daemon) == {"v22", "v23", "v24"}
        assert reader.read(len(content)) == content[10:]
    until(lambda: cached(daemon) == {"v22", "v24"}, SOON_S, "v23 to leave")
    assert old.read_bytes() == content
    event = until(lambda: pruned(daemon), SOON_S, "the event")[0]
    assert event["object"] == "cache_hub"
    assert event["text"].startswith("v23 has left the local cache: ")
    assert not list((daemon.root / "cache").glob("pruned/*"))

    # Not while it is paused; and what was read again meanwhile goes with the rest.
    assert daemon.cli("pause", "--reason", "to compare").code == 0
    switch(daemon, "v25")
    switch(daemon, "v26")
    assert cached(daemon) == {"v22", "v23", "v24", "v25", "v26"}
    assert daemon.cli("resume").code == 0
    until(lambda: cached(daemon) == {"v25", "v26"}, SOON_S, "all but the live and the previous one to leave")

    # The way back is there, and nothing was restarted for any of this.
    assert daemon.cli("rollback").code == 0
    assert daemon.page()["version"] == "v25"
    after = daemon.status()
    assert (after["ready"], after["health"]) == (True, "Healthy")
    assert after["mounts"]["storage"]["pid"] == before["mounts"]["storage"]["pid"]
    assert after["mounts"]["storage"]["restarts"] == 0
