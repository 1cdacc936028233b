"""Versions beyond `keep` are evicted before rclone starts; the live and the previous one stay, and reads stay right."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable

import pytest

from mountd.demo import hub
from mountd.model import manifest
from tests.support.daemon import Daemon
from tests.support.s3 import RcloneS3

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

# The product keeps what was used within a day.
PROGRAM = """
import sys
from mountd.cli.main import main
from mountd.cache import retention
retention.RECENT_S = 0.0
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


def switch(daemon: Daemon, version: str) -> None:
    done = daemon.cli("switch", version)
    assert done.code == 0, done


def remount(daemon: Daemon) -> None:
    done = daemon.cli("restart", "storage")
    assert done.code == 0, done
    daemon.until_ready(SOON_S)


@pytest.mark.timeout(240)
@pytest.mark.thorough
def test_old_versions_are_evicted_before_rclone_starts(make_daemon: Callable[..., Daemon], store: RcloneS3) -> None:
    daemon = make_daemon(program=(sys.executable, "-c", PROGRAM))
    daemon.config["models"]["cache_hub"]["watch"] = {"for": "0s"}
    for version in ("v24", "v25"):
        add_version(store, version)
    daemon.start_ready()
    for version in ("v22", "v24"):
        switch(daemon, version)
    assert cached(daemon) == {"v22", "v23", "v24"}, "a running rclone keeps what it holds"

    remount(daemon)
    assert cached(daemon) == {"v22", "v24"}
    (logged,) = daemon.until_events("evicted version from the cache")
    assert (logged["mount"], logged["version"], logged["bytes"] > 0) == ("storage", "v23", True)
    content = (store.directory / hub.BUCKET / "cache_hub_v23" / GPT).read_bytes()
    assert (daemon.mount / "cache_hub_v23" / GPT).read_bytes() == content

    # Not while it is paused; and what was read again meanwhile goes with the rest.
    assert daemon.cli("pause", "--reason", "to compare").code == 0
    switch(daemon, "v25")
    remount(daemon)
    assert cached(daemon) == {"v22", "v23", "v24", "v25"}
    assert daemon.cli("resume").code == 0
    assert daemon.stop() == 0
    daemon.start_ready()
    assert cached(daemon) == {"v24", "v25"}

    # The way back is there.
    assert daemon.cli("rollback").code == 0
    assert daemon.page()["version"] == "v24"
