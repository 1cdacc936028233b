"""A start before the content: nothing is served from half a version, and it becomes ready by itself."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.demo import hub
from mountd.model import manifest
from mountd.model.model import CONTENT_INTERVAL_S
from tests.support.daemon import Daemon
from tests.support.explained import until_explained
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

BY_ITSELF_S = 60.0
GPT = "models/gpt.pth"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RcloneS3]:
    """A server whose bucket holds nothing, instead of the hub."""
    (tmp_path / "store" / hub.BUCKET).mkdir(parents=True)
    with RcloneS3(tmp_path / "store") as server:
        yield server


def upload(store: RcloneS3, version: Path, *names: str) -> None:
    """As `mountd publish` would: in this order, the manifest last."""
    for name in names:
        store.put(hub.BUCKET, f"{version.name}/{name}", (version / name).read_bytes())


def files(version: Path) -> list[str]:
    found = (path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file())
    return sorted(name for name in found if name != manifest.NAME)


def check_waits(daemon: Daemon) -> None:
    """Not ready, and nothing was started or linked early."""
    status = daemon.status()
    assert (status["ready"], status["models"]["cache_hub"]["health"]) == (False, "Missing")
    assert status["mounts"]["storage"]["stage"] == "ready"
    assert (status["apps"]["webui"]["state"], status["apps"]["webui"]["pid"]) == ("stopped", None)
    assert not os.path.lexists(daemon.link)
    assert daemon.events("app says") == []


@pytest.mark.slow
def test_an_empty_bucket_and_the_version_that_comes_later(daemon: Daemon, store: RcloneS3, hub_directory: Path) -> None:
    daemon.start()
    reason = daemon.until_reason("waiting-for-content")
    assert "cache_hub_v23" in reason["text"]
    assert reason["hint"]
    check_waits(daemon)
    explained = until_explained(daemon, "waiting-for-content")
    assert [each["code"] for each in explained["chain"]] == ["not-ready", "waiting-for-model", "waiting-for-content"]
    assert daemon.reasons()["waiting-for-model"]["object"] == "webui"
    assert daemon.cli("versions", "-o", "json").json["versions"] == []

    # Another version does not help, and may be asked for nevertheless.
    v22, v23 = (hub_directory / hub.BUCKET / f"cache_hub_{version}" for version in ("v22", "v23"))
    upload(store, v22, *files(v22), manifest.NAME)
    until(lambda: len(daemon.cli("versions", "-o", "json").json["versions"]) == 1, 60, "v22 to be seen")
    check_waits(daemon)

    upload(store, v23, *files(v23), manifest.NAME)
    began = time.monotonic()
    daemon.until_ready(BY_ITSELF_S)
    assert time.monotonic() - began < CONTENT_INTERVAL_S + 30.0
    model = daemon.status()["models"]["cache_hub"]
    assert (model["current"], model["previous"], model["desired"], model["sync"]) == ("v23", None, "v23", "Synced")
    assert daemon.page()["version"] == "v23"


@pytest.mark.thorough
@pytest.mark.slow
def test_a_version_that_is_completed_while_mountd_waits(daemon: Daemon, store: RcloneS3, hub_directory: Path) -> None:
    """Its manifest too was read in a former state: what was seen of it then must not stay."""
    version = hub_directory / hub.BUCKET / "cache_hub_v23"
    whole = (version / manifest.NAME).read_bytes()
    upload(store, version, *(name for name in files(version) if name != GPT))
    store.put(hub.BUCKET, f"{version.name}/{manifest.NAME}", whole[: len(whole) // 2])
    daemon.start()
    text = daemon.until_reason("waiting-for-content")["text"]
    assert GPT in text
    assert manifest.NAME in text
    check_waits(daemon)
    versions = daemon.cli("versions", "-o", "json").json["versions"]
    assert [(row["version"], row["complete"], row["verified"]) for row in versions] == [("v23", False, False)]
    refused = daemon.cli("switch", "v23")
    assert (refused.code, "incomplete" in refused.err) == (7, True), refused
    check_waits(daemon)

    upload(store, version, GPT, manifest.NAME)
    daemon.until_ready(BY_ITSELF_S)
    model = daemon.status()["models"]["cache_hub"]
    assert (model["current"], model["verified"]) == ("v23", True)
    assert daemon.page()["digest"] == manifest.digest(manifest.parse(whole)) == model["digest"]


@pytest.mark.thorough
def test_a_switch_ends_the_wait(daemon: Daemon, store: RcloneS3, hub_directory: Path) -> None:
    """What was configured is not there, another version is: asked for, it becomes the first."""
    v22 = hub_directory / hub.BUCKET / "cache_hub_v22"
    shutil.copytree(v22, store.directory / hub.BUCKET / v22.name)
    daemon.start()
    daemon.until_reason("waiting-for-content")
    check_waits(daemon)
    done = daemon.cli("switch", "v22")
    assert done.code == 0, done
    daemon.until_ready()
    model = daemon.status()["models"]["cache_hub"]
    assert (model["current"], model["previous"], model["desired"], model["sync"]) == ("v22", None, "v22", "Synced")
    assert daemon.page()["version"] == "v22"
    assert daemon.stop() == 0
    daemon.start_ready()
    assert daemon.page()["version"] == "v22"
