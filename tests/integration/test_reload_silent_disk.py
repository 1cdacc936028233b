"""The configuration lies on a disk that stops answering: reported in time, nobody waits, and read once it is back."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.mounts import mounting, stop
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.thorough]

TOLD_S = 30.0
BACK_S = 30.0


def test_a_configuration_on_a_silent_disk(daemon: Daemon, tmp_path: Path) -> None:
    daemon.start_ready()
    with mounting(tmp_path) as mounts:
        point = tmp_path / "far"
        rclone = mounts.start(str(point))
        good = daemon.config_file.read_text()
        (tmp_path / "source" / "mountd.yaml").write_text(good)
        until((point / "mountd.yaml").exists, BACK_S, "the file to be there")
        daemon.config_file.unlink()
        daemon.config_file.symlink_to(point / "mountd.yaml")
        assert daemon.cli("reload").code == 0
        stop(rclone)
        began = time.monotonic()
        result = daemon.cli("reload")
        assert time.monotonic() - began < TOLD_S
        assert result.code == 2, result
        daemon.until_reason("config-broken", TOLD_S)
        assert daemon.cli("restart", "webui").code == 0, "nothing else waits for the disk"
        rclone.send_signal(signal.SIGCONT)
        until(lambda: "config-broken" not in daemon.reasons(), BACK_S, "the file to be read, without anybody asking")
        daemon.config_file.unlink()
        daemon.config_file.write_text(good)
        assert daemon.cli("reload").code == 0
