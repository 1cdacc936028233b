"""A mount that stays down while the app still runs: not ready after a minute, and ready again by itself."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import BUNDLED_RCLONE, Daemon
from tests.support.explained import until_explained
from tests.support.not_ready import assert_silent, readyz
from tests.support.scripted_rclone import ScriptedRclone
from tests.support.wait import until

pytestmark = pytest.mark.fuse

# The product waits a minute.
IMPATIENT = """
import sys
from mountd.cli.main import main
from mountd.mount import mount
mount.GONE_S = 10.0
sys.exit(main())
"""


@pytest.mark.thorough
def test_an_app_whose_mount_stays_down_is_not_ready(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    scripted = ScriptedRclone(tmp_path, BUNDLED_RCLONE)
    daemon = make_daemon(rclone=scripted.path, program=(sys.executable, "-c", IMPATIENT))
    before = daemon.start_ready()
    scripted.behave("echo the sky fell down >&2; exit 3")
    os.kill(before["mounts"]["storage"]["pid"], signal.SIGKILL)
    until(lambda: daemon.status()["mounts"]["storage"]["state"] != "running", 60, "the mount to be down")
    assert readyz(daemon)[0] == 200, "a repair takes no readiness away"
    reason = daemon.until_reason("app-without-mount")
    assert "mountd logs storage" in reason["hint"]
    code, document = readyz(daemon)
    assert (code, document["ready"]) == (503, False)
    app = daemon.status()["apps"]["webui"]
    assert (app["state"], app["pid"]) == ("running", before["apps"]["webui"]["pid"]), "it is left alone"
    explained = until_explained(daemon, "rclone-exited")
    assert [each["code"] for each in explained["chain"]] == ["not-ready", "app-without-mount", "rclone-exited"]
    assert any("the sky fell down" in fact for fact in explained["root"]["evidence"])
    scripted.behave("")
    assert daemon.cli("restart", "storage").code == 0
    daemon.until_ready()
    until(lambda: daemon.status()["health"] == "Healthy", 60, "Healthy")
    assert readyz(daemon)[0] == 200
    assert_silent(daemon)
