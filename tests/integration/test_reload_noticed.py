"""Reload without a command: a file or secret that is written, swapped or touched is noticed, and so is SIGHUP."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.daemon import Daemon
from tests.support.reloading import SOON_S, assert_restarted, pids, reload, start_with_bystanders
from tests.support.wait import until

pytestmark = pytest.mark.fuse


@pytest.fixture
def running(daemon: Daemon) -> Daemon:
    return start_with_bystanders(daemon)


@pytest.mark.thorough
def test_a_secret_of_an_app_restarts_it(daemon: Daemon) -> None:
    token = daemon.root / "token"
    token.write_text("first-token\n")
    daemon.config["apps"]["webui"]["environment"]["HF_TOKEN"] = {"file": str(token)}
    daemon.start_ready()
    before = pids(daemon)
    token.write_text("second-token\n")  # nobody asks
    assert_restarted(daemon, before, "webui")
    assert b"HF_TOKEN=second-token" in Path(f"/proc/{pids(daemon)['webui']}/environ").read_bytes().split(b"\0")
    [event] = daemon.until_events("configuration reloaded")
    assert event["changed"] == ["apps.webui.environment.HF_TOKEN"]
    assert "second-token" not in daemon.log_text()


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


def by_rename(file: Path, text: str) -> None:
    """As vim and most others do."""
    other = file.with_name(".mountd.yaml.swp")
    other.write_text(text)
    os.replace(file, file.with_name("mountd.yaml~"))
    os.replace(other, file)


@pytest.mark.thorough
@pytest.mark.parametrize("write", [in_place, by_rename])
def test_a_changed_file_is_noticed(running: Daemon, write: Callable[[Path, str], None]) -> None:
    for number in range(2):
        before = pids(running)
        running.config["apps"]["free"]["environment"] = {"NUMBER": str(number)}
        began = time.monotonic()
        write(running.config_file, yaml.safe_dump(running.config))
        until(lambda: pids(running)["free"] not in (None, before["free"]), SOON_S, "the app to be restarted")  # noqa: B023
        assert time.monotonic() - began < SOON_S
        assert_restarted(running, before, "free")
    assert len(running.until_events("configuration reloaded", 2)) == 2


@pytest.fixture
def config_map(daemon: Daemon) -> Path:
    """The file and the secret as Kubernetes mounts them: links through `..data`, which is replaced as a whole."""
    root = daemon.root / "config-map"
    root.mkdir()
    return root


def publish(root: Path, generation: str, files: dict[str, str]) -> None:
    directory = root / f"..{generation}"
    directory.mkdir()
    for name, text in files.items():
        (directory / name).write_text(text)
        with contextlib.suppress(FileExistsError):
            (root / name).symlink_to(f"..data/{name}")
    former = (root / "..data").resolve() if (root / "..data").is_symlink() else None
    (root / "..data_tmp").symlink_to(directory.name)
    os.replace(root / "..data_tmp", root / "..data")
    if former is not None:
        for path in former.iterdir():
            path.unlink()
        former.rmdir()


def test_a_config_map_is_swapped(daemon: Daemon, config_map: Path) -> None:
    webui = daemon.config["apps"]["webui"]
    webui["environment"]["HF_TOKEN"] = {"file": str(config_map / "token")}
    webui["environment"]["TURN"] = "0"
    publish(config_map, "0", {"mountd.yaml": yaml.safe_dump(daemon.config), "token": "t0"})
    daemon.config_file.symlink_to(config_map / "mountd.yaml")
    daemon.start_ready()
    for turn in ("1", "2"):
        before = pids(daemon)
        webui["environment"]["TURN"] = turn
        publish(config_map, turn, {"mountd.yaml": yaml.safe_dump(daemon.config), "token": f"t{turn}"})
        until(lambda: pids(daemon)["webui"] not in (None, before["webui"]), SOON_S, "the app to be restarted")  # noqa: B023
        assert_restarted(daemon, before, "webui")
        environment = Path(f"/proc/{pids(daemon)['webui']}/environ").read_bytes().split(b"\0")
        assert {f"TURN={turn}".encode(), f"HF_TOKEN=t{turn}".encode()} <= set(environment)
    changed = [event["changed"] for event in daemon.until_events("configuration reloaded", 2)]
    assert changed == [["apps.webui.environment.TURN", "apps.webui.environment.HF_TOKEN"]] * 2


@pytest.mark.thorough
def test_a_file_that_was_touched_changes_nothing(running: Daemon) -> None:
    running.config["log"] = {"level": "debug"}
    reload(running)
    running.until_events("configuration reloaded", level="info")
    known = len(running.events("configuration reloaded"))
    before = pids(running)
    os.utime(running.config_file)
    running.secret.write_text(running.secret_access_key + "\n")  # no other secret
    until(lambda: len(running.events("configuration reloaded")) > known, SOON_S, "the file to be read")
    levels = {event["level"] for event in running.events("configuration reloaded")[known:]}
    assert levels == {"debug"}
    assert pids(running) == before


@pytest.mark.thorough
def test_sighup(running: Daemon) -> None:
    before = pids(running)
    running.config["apps"]["free"]["environment"] = {"NEW": "1"}
    running.write_config()
    assert running.process is not None
    running.process.send_signal(signal.SIGHUP)
    assert_restarted(running, before, "free")


@pytest.mark.thorough
def test_a_mount_that_has_failed_comes_back_with_its_cause_gone(daemon: Daemon) -> None:
    daemon.config["mounts"]["storage"]["options"] = {"no-such-flag": "1"}
    daemon.start()
    daemon.until_reason("rclone-usage")
    until(lambda: daemon.status()["mounts"]["storage"]["state"] == "failed", 60, "the mount to be given up")
    daemon.config["mounts"]["storage"]["options"] = {}
    daemon.write_config()
    daemon.until_ready()


@pytest.mark.thorough
def test_a_version_is_edited_before_any_was_live(daemon: Daemon) -> None:
    daemon.config["models"]["cache_hub"]["version"] = "v99"
    daemon.start()
    daemon.until_reason("waiting-for-content")
    daemon.config["models"]["cache_hub"]["version"] = "v22"
    daemon.write_config()
    status = daemon.until_ready()
    assert status["models"]["cache_hub"]["current"] == "v22"
    assert status["operation"] is None
    assert daemon.events("operation step") == [], "there was nothing to switch from"
