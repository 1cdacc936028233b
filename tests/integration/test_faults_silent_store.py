"""A store that rclone asks at `statfs` how much room there is, as WebDAV: its silence is not taken for a hang."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mountd.mount.startup import ANSWERING_TIMEOUT_S
from tests.support import dies_with_us, hold_port
from tests.support.daemon import BUNDLED_RCLONE, Daemon
from tests.support.machine import Stopped
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

HUNG_S = 8.0 + 22.0
"""The promise, and something for a busy machine."""
SOON_S = 30.0


class WebDav:
    """`rclone serve webdav` over a directory; takes any password."""

    def __init__(self, directory: Path) -> None:
        (directory / "some").mkdir(parents=True)
        (directory / "some" / "file").write_text("content")
        self._held = hold_port()
        self.address = f"127.0.0.1:{self._held.getsockname()[1]}"
        argv = [str(BUNDLED_RCLONE), "--config", os.devnull, "serve", "webdav", str(directory), "--addr", self.address]
        self._process = subprocess.Popen(dies_with_us(argv), stderr=subprocess.DEVNULL, cwd="/")

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._held.close()


@pytest.fixture
def webdav(tmp_path: Path) -> Iterator[WebDav]:
    server = WebDav(tmp_path / "webdav")
    yield server
    server.close()


def mount_of(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status()["mounts"]["storage"]
    return found


def until_runs(daemon: Daemon, restarts: int, timeout_s: float = SOON_S) -> int:
    """Until it runs well in its life of that number; its pid."""

    def runs() -> int | None:
        mount = mount_of(daemon)
        well = (mount["state"], mount["health"], mount["restarts"]) == ("running", "Healthy", restarts)
        return int(mount["pid"]) if well else None

    pid = until(runs, timeout_s, f"the mount to run after {restarts} restarts", every_s=0.1)
    assert pid is not None
    return pid


@pytest.mark.thorough
@pytest.mark.timeout(240)
def test_a_silent_store_is_waited_for(make_daemon: Callable[..., Daemon], webdav: WebDav) -> None:
    daemon = make_daemon()
    daemon.config["remotes"] = {
        "dav": {
            "type": "webdav",
            "url": f"http://{webdav.address}",
            "vendor": "other",
            "user": "me",
            "pass": {"file": str(daemon.secret)},
        }
    }
    daemon.config["mounts"]["storage"] |= {"remote": "dav:", "profile": "plain", "options": {"dir-cache-time": "2s"}}
    daemon.config["models"], daemon.config["apps"] = {}, {}
    daemon.start()
    pid = until_runs(daemon, 0)

    with Stopped(webdav.pid):
        daemon.until_reason("mount-silent")
        daemon.until_reason("bucket-slow")
        daemon.secret.write_text("another password")
        until(lambda: daemon.events("a secret has changed, and the remount waits for the bucket"), SOON_S, "the secret")
        assert "mount-silent" in daemon.reasons()
        assert (mount_of(daemon)["pid"], mount_of(daemon)["restarts"]) == (pid, 0)
    pid = until_runs(daemon, 1)
    causes = [event.get("cause") for event in daemon.until_events("state changed", state="stopping")]
    assert causes == ["a secret has changed that only a new rclone reads"]

    with Stopped(pid):
        pid = until_runs(daemon, 2, HUNG_S)

    with Stopped(webdav.pid):
        os.kill(pid, signal.SIGKILL)
        pid = until(lambda: mount_of(daemon)["stage"] == "mounted" and mount_of(daemon)["pid"], SOON_S, "a new rclone")
        first = daemon.until_events("state changed", 4, state="starting")[-1]
        with pytest.raises(AssertionError, match="in vain for it to give up"):
            until(lambda: mount_of(daemon)["pid"] != pid, ANSWERING_TIMEOUT_S + 4, "it to give up", every_s=0.5)
        assert "bucket-silent" in daemon.reasons()
        assert daemon.events("state changed")[-1] == first
    assert until_runs(daemon, 3) == pid
