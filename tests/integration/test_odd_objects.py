"""Objects with keys that cannot be paths, or bytes that cannot be had: none decides over the mount.

What is wrong with an object of a version is the fault of that version, and named.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mountd.client.api import get
from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.explained import until_explained
from tests.support.faults import DENIED, Failure
from tests.support.moto import archive, daemon_on, moto_hub
from tests.support.not_ready import assert_silent
from tests.support.proxy import Proxy
from tests.support.read import read_like
from tests.support.s3 import MotoS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

KEYS = (
    "/oops.txt",
    "/",
    "team//x",
    "team//y/z.txt",
    "cache_hub_v23//x.txt",
    "cache_hub_v23/",
    "cache_hub_v23",
    "cache_hub_v22",
    "both",
    "both/x",
    "./a",
    "../b",
    "c/./d",
    "c/../e",
    "n" * 300,
    "声" * 100,
    "n" * 300 + "/x",
    "cr\rlf",
    "nul\0x",
    "esc\x1b[31m",
    "back\\slash",
    " ",
    "...",
    "\u2024\uff0f",
    "mark/",
)
LEFT_OUT = ("/…", "cache_hub_v23", "n" * 300, "声" * 100)


@pytest.fixture
def moto(hub_directory: Path) -> Iterator[tuple[MotoS3, Proxy]]:
    with moto_hub(hub_directory) as made:
        yield made


@pytest.fixture
def server(moto: tuple[MotoS3, Proxy]) -> MotoS3:
    return moto[0]


@pytest.fixture
def proxy(moto: tuple[MotoS3, Proxy]) -> Proxy:
    return moto[1]


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon], proxy: Proxy) -> Daemon:
    return daemon_on(make_daemon, proxy)


def mount_of(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status()["mounts"]["storage"]
    return found


def until_remounted(daemon: Daemon) -> None:
    before = mount_of(daemon)["restarts"]
    os.kill(mount_of(daemon)["pid"], signal.SIGKILL)
    until(lambda: mount_of(daemon)["restarts"] > before, 60, "the mount to be back")
    daemon.until_ready()


def test_keys_that_cannot_be_paths(daemon: Daemon, server: MotoS3) -> None:
    """They are there at the start, come while it runs, and outlive rclone's death."""
    for key in KEYS[:9]:
        server.put(hub.BUCKET, key, b"nobody asked for it")
    daemon.start_ready()
    for key in KEYS[9:]:
        server.put(hub.BUCKET, key, b"nobody asked for it")
    until_remounted(daemon)
    assert daemon.page()["version"] == "v23"
    assert mount_of(daemon)["restarts"] == 1, "it is not replaced repeatedly"
    version = daemon.mount / "cache_hub_v23"
    assert read_like({"config.yaml": ""}, version, 20)["config.yaml"] != "EIO"
    document = get(str(daemon.socket), "/api/v1/versions", timeout_s=60)
    assert [(each["version"], each["complete"]) for each in document["versions"]] == [("v22", True), ("v23", True)]
    reported = "\n".join(document["ignored"])
    for key in LEFT_OUT:
        assert f"{key}: " in reported
    assert "/…" in daemon.cli("versions").err
    assert "/…" in daemon.cli("doctor", "-c", str(daemon.config_file)).out
    assert daemon.status()["health"] == "Healthy"
    archive(server, "cache_hub_v22/models/gpt.pth")
    refused = daemon.cli("switch", "v22")
    assert refused.code == 7, refused
    assert "models/gpt.pth" in refused.err
    assert daemon.status()["apps"]["webui"]["state"] == "running"
    assert mount_of(daemon)["restarts"] == 1
    assert_silent(daemon)


@pytest.mark.thorough
@pytest.mark.parametrize("fault", ["archived", "denied"])
def test_one_unreadable_object_is_the_fault_of_its_version(
    daemon: Daemon, server: MotoS3, proxy: Proxy, fault: str
) -> None:
    """The mount comes up, also when it dies; other versions are live and can be switched to; this one is refused."""
    bad = ["cache_hub_v22/models/gpt.pth", "cache_hub_v22/MANIFEST.json", "audio_samples/prompts_zh.json"]
    if fault == "archived":
        for key in bad[:1]:
            archive(server, key)
    else:
        denied = Failure(403, "AccessDenied", where=lambda it: it.key.startswith(f"{bad[0]}"))
        proxy.faults.fail = {"GET": denied, "HEAD": denied}
    before = daemon.start_ready()
    refused = daemon.cli("switch", "v22")
    assert refused.code == 7, refused
    assert "models/gpt.pth" in refused.err
    assert ("GLACIER" in refused.err) is (fault == "archived")
    assert daemon.status()["apps"]["webui"]["pid"] == before["apps"]["webui"]["pid"], "it was not even stopped"
    until_remounted(daemon)
    if fault == "archived":
        archive(server, bad[1])
        refused = daemon.cli("switch", "v22")
        assert refused.code == 7, refused
        assert "MANIFEST.json" in refused.err
        wrong = {each["version"]: each["problems"] for each in daemon.cli("versions", "-o", "json").json["versions"]}
        assert (bool(wrong["v22"]), wrong["v23"]) == (True, [])
    assert mount_of(daemon)["restarts"] == 1
    assert daemon.status()["models"]["cache_hub"]["current"] == "v23"
    if fault == "denied":
        proxy.faults.clear()
        for key in ("cache_hub_v22", "cache_hub_v23", "/oops"):
            server.put(hub.BUCKET, key, b"in the way of what is live, and of what is switched to")
        assert daemon.cli("switch", "v22").code == 0
        assert daemon.page()["version"] == "v22"
    assert_silent(daemon)


@pytest.mark.thorough
def test_a_first_version_that_is_archived_is_waited_for(daemon: Daemon, server: MotoS3) -> None:
    archive(server, "cache_hub_v23/models/gpt.pth")
    daemon.start()
    reason = daemon.until_reason("waiting-for-content")
    until_explained(daemon, "waiting-for-content")
    assert "models/gpt.pth" in reason["text"]
    assert "GLACIER" in reason["text"], "its class of storage"
    assert reason["hint"]
    assert (mount_of(daemon)["state"], mount_of(daemon)["restarts"]) == ("running", 0)
    assert daemon.status()["apps"]["webui"]["state"] == "stopped"
    restore = {"Days": 1, "GlacierJobParameters": {"Tier": "Standard"}}
    server.client.restore_object(Bucket=hub.BUCKET, Key="cache_hub_v23/models/gpt.pth", RestoreRequest=restore)
    daemon.until_ready()
    assert daemon.page()["version"] == "v23"


@pytest.mark.thorough
def test_a_bucket_that_may_be_listed_and_not_read_is_reported_without_a_loop(daemon: Daemon, proxy: Proxy) -> None:
    proxy.faults.fail = {"GET": DENIED, "HEAD": DENIED}
    daemon.start()
    daemon.until_reason("mount-not-proven")
    until_explained(daemon, "mount-not-proven")
    pid = mount_of(daemon)["pid"]
    until(lambda: len(daemon.events("mount is not proven yet")) > 4, 60, "more tries than a mount of its own fault has")
    assert mount_of(daemon)["pid"] == pid, "another rclone would be refused as well"
    proxy.faults.clear()
    daemon.until_ready()
    assert_silent(daemon)
