"""The daemon's own process never touches its mount, and answers all the time while the mount hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.wait import until

WITNESS = Path(__file__).parent.parent / "support" / "witness.py"
ANSWER_S = 30.0
"""A loop that touches a hung mount does not answer until that is replaced, or for ever."""


def test_the_witness_sees_what_a_process_touches(tmp_path: Path) -> None:
    """Else the next test could not fail."""
    watched, log = tmp_path / "watched", tmp_path / "log"
    watched.mkdir()
    config = watched / "mountd.yaml"
    config.write_text("remotes: {}\n")
    subprocess.run(
        [sys.executable, str(WITNESS), str(log), str(watched), "config", "check", "-c", str(config)], check=False
    )
    assert f"open {config}" in log.read_text()


@pytest.mark.fuse
def test_no_path_of_the_mount_is_touched(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.mount.mkdir()  # making it is the only touch that is right, before anything is mounted
    log = daemon.root / "touched"
    daemon.program = (sys.executable, str(WITNESS), str(log), str(daemon.mount))
    status = daemon.start_ready()
    assert daemon.cli("versions").code == 0
    assert daemon.cli("switch", "v22").code == 0
    os.kill(status["mounts"]["storage"]["pid"], signal.SIGKILL)
    until(lambda: daemon.status()["mounts"]["storage"]["restarts"] == 1, 60, "the mount to be back")
    daemon.until_ready()
    assert daemon.cli("restart", "storage").code == 0
    daemon.until_ready()
    assert daemon.cli("rollback").code == 0
    assert daemon.stop() == 0
    assert log.exists(), "the witness did not run"
    assert log.read_text() == ""


@pytest.mark.thorough
@pytest.mark.fuse
def test_it_answers_all_the_time_while_the_mount_hangs(daemon: Daemon) -> None:
    status = daemon.start_ready()
    rclone = status["mounts"]["storage"]["pid"]
    os.kill(rclone, signal.SIGSTOP)
    answers, deadline = 0, time.monotonic() + 60
    while daemon.status()["mounts"]["storage"]["restarts"] == 0:
        assert time.monotonic() < deadline, "the hung mount was not replaced"
        urllib.request.urlopen(f"http://127.0.0.1:{daemon.http_port}/healthz", timeout=ANSWER_S).close()
        answers += 1
        time.sleep(0.02)
    assert answers > 5, "it stood still until the mount was replaced"
    daemon.until_ready()


@pytest.mark.thorough
@pytest.mark.fuse
def test_a_stop_while_the_mount_hangs_ends_and_leaves_nothing(daemon: Daemon) -> None:
    status = daemon.start_ready()
    os.kill(status["mounts"]["storage"]["pid"], signal.SIGSTOP)
    assert daemon.stop() == 0
    assert daemon.mounts() == []
    assert daemon.processes() == []
