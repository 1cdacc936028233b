"""The main job: from YAML to a ready app, a switch and back, and an end that leaves nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.s3 import RcloneS3
from tests.support.wait import until, until_gone

pytestmark = pytest.mark.fuse


def test_from_yaml_to_ready_switch_rollback_and_a_clean_end(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    status = daemon.start_ready()
    assert (status["ready"], status["health"], status["reasons"]) == (True, "Healthy", [])
    assert status["models"]["cache_hub"]["current"] == "v23"
    assert os.readlink(daemon.link) == f"{daemon.mount}/cache_hub_v23"
    assert daemon.page()["version"] == "v23"
    assert daemon.page()["digest"] == status["models"]["cache_hub"]["digest"]

    assert daemon.cli("switch", "v22").code == 0
    assert daemon.page()["version"] == "v22"
    assert daemon.cli("rollback").code == 0
    assert daemon.page()["version"] == "v23"
    model = daemon.status()["models"]["cache_hub"]
    assert (model["current"], model["previous"], model["desired"], model["sync"]) == ("v23", "v22", "v23", "Synced")

    conf = daemon.root / "run" / "private" / "rclone.conf"
    assert conf.stat().st_mode & 0o777 == 0o600
    assert conf.parent.stat().st_mode & 0o777 == 0o700
    secret = daemon.secret_access_key
    argv = b"".join(daemon.command_lines().values())
    assert secret.encode() not in argv
    assert secret not in daemon.log_text()

    assert daemon.stop() == 0
    assert daemon.mounts() == []
    assert daemon.processes() == []
    with closing(sqlite3.connect(daemon.root / "state" / "mountd.db")) as journal:
        events = [code for (code,) in journal.execute("SELECT code FROM events ORDER BY id")]
    first = [events.index(code) for code in ("mount-running", "model-linked", "app-running", "ready", "mount-stopped")]
    assert first == sorted(first)


def test_what_was_committed_is_live_after_a_restart(daemon: Daemon) -> None:
    daemon.start_ready()
    assert daemon.cli("switch", "v22").code == 0
    assert daemon.stop() == 0
    status = daemon.start_ready()
    model = status["models"]["cache_hub"]
    assert (model["current"], model["previous"], model["desired"]) == ("v22", "v23", "v22")
    assert daemon.page()["version"] == "v22"


@pytest.mark.thorough
def test_an_edited_version_asks_for_a_switch_at_the_next_start(daemon: Daemon) -> None:
    daemon.start_ready()
    assert daemon.stop() == 0
    daemon.config["models"]["cache_hub"]["version"] = "v22"
    daemon.start()
    assert daemon.cli("wait", "--for", "version=v22", "--timeout", "60s").code == 0
    daemon.until_ready()
    model = daemon.status()["models"]["cache_hub"]
    assert (model["current"], model["previous"], model["desired"]) == ("v22", "v23", "v22")
    assert daemon.page()["version"] == "v22"


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["kill", "unmount"])
def test_a_lost_mount_comes_back_and_the_app_with_it(daemon: Daemon, how: str) -> None:
    before = daemon.start_ready()
    if how == "kill":
        os.kill(before["mounts"]["storage"]["pid"], signal.SIGKILL)
    else:
        assert os.system(f"fusermount3 -uz {daemon.mount}") == 0
    until(lambda: daemon.status()["mounts"]["storage"]["restarts"] == 1, 60, "the mount to be back")
    until(
        lambda: daemon.status()["apps"]["webui"]["pid"] not in (None, before["apps"]["webui"]["pid"]), 20, "a new app"
    )
    daemon.until_ready()
    assert daemon.page()["version"] == "v23"
    assert len(daemon.mounts()) == 1


@pytest.mark.thorough
def test_a_stopped_rclone_is_found_and_replaced(daemon: Daemon) -> None:
    before = daemon.start_ready()
    os.kill(before["mounts"]["storage"]["pid"], signal.SIGSTOP)
    until(lambda: daemon.status()["mounts"]["storage"]["restarts"] == 1, 60, "the mount to be replaced")
    assert daemon.until_ready()["mounts"]["storage"]["pid"] != before["mounts"]["storage"]["pid"]


@pytest.mark.thorough
def test_a_killed_daemon_leaves_nothing_that_the_next_start_does_not_clear(daemon: Daemon) -> None:
    daemon.start_ready()
    assert daemon.process is not None
    pid = daemon.status()["pid"]
    daemon.process.kill()  # the parent; the kernel then signals the daemon, which may or may not finish its stop
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    daemon.wait_exit()
    until_gone(pid)  # until then it holds the journal
    status = daemon.start_ready()
    assert len(daemon.mounts()) == 1
    assert status["apps"]["webui"]["pid"] in daemon.processes()
    rclones = [pid for pid, line in daemon.command_lines().items() if b"rclone\0mount" in line]
    assert rclones == [status["mounts"]["storage"]["pid"]]


@pytest.mark.thorough
def test_a_killed_app_is_restarted(daemon: Daemon) -> None:
    before = daemon.start_ready()
    os.kill(before["apps"]["webui"]["pid"], signal.SIGKILL)
    until(lambda: daemon.status()["apps"]["webui"]["restarts"] == 1, 60, "the app to be back")
    assert daemon.until_ready()["apps"]["webui"]["pid"] != before["apps"]["webui"]["pid"]


@pytest.mark.thorough
def test_restart_of_a_mount_and_of_an_app_by_command(daemon: Daemon) -> None:
    before = daemon.start_ready()
    assert daemon.cli("restart", "webui").code == 0
    daemon.until_ready()
    assert daemon.cli("restart", "storage").code == 0
    after = daemon.until_ready()
    assert after["mounts"]["storage"]["pid"] != before["mounts"]["storage"]["pid"]
    assert daemon.cli("restart", "nothing").code == 3


@pytest.mark.thorough
def test_a_version_uploaded_after_the_start_is_seen_and_can_be_switched_to(daemon: Daemon, store: RcloneS3) -> None:
    daemon.start_ready()
    assert [row["version"] for row in daemon.cli("versions", "-o", "json").json["versions"]] == ["v22", "v23"]
    hub.build(store.directory, versions=("v24",), scale=1 / 10_000)
    seen = until(
        lambda: {row["version"]: row for row in daemon.cli("versions", "-o", "json").json["versions"]}.get("v24"),
        60,
        "v24",
    )
    assert (seen["complete"], seen["verified"]) == (True, True)
    assert daemon.cli("switch", "v24").code == 0
    assert daemon.page()["version"] == "v24"
