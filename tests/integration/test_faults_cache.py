"""A disk that fills up, becomes read-only or goes: reported, survived, and well again by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mountd.demo import hub
from tests.support.cache_disk import SEEN_S, assert_all_right, pids, read, refusal, remove_in_use
from tests.support.daemon import Daemon
from tests.support.explained import until_explained
from tests.support.machine import Tmpfs, read_only
from tests.support.not_ready import assert_app_never_started, assert_silent, until_not_ready
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.root]

PREFLIGHT_S = 45.0
"""A place that cannot be used is tried again each 10 s."""


def assert_goes_on(daemon: Daemon, before: dict[str, Any], code: str) -> None:
    """Degraded, and all that ran runs."""
    status = daemon.status()
    assert (status["ready"], status["health"]) == (True, "Degraded")
    assert [reason["code"] for reason in status["reasons"]] == [code]
    assert pids(status) == pids(before)
    assert daemon.page()["version"] == "v23"


def assert_recovers(daemon: Daemon, before: dict[str, Any], unread: Path) -> None:
    """By itself, with the same rclone and the same app, and what could not be read can be."""
    until(lambda: daemon.status()["health"] == "Healthy", SEEN_S, "all to be well")
    status = daemon.status()
    assert (status["ready"], status["reasons"], pids(status)) == (True, [], pids(before))
    assert_all_right(daemon, unread)
    if broken := daemon.events("cache cannot be used"):
        assert len(daemon.until_events("cache can be used again", len(broken))) == len(broken)
    assert_silent(daemon)


# -- while it runs ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_somebody_fills_the_disk(small_cache: Callable[..., tuple[Daemon, Tmpfs]], unread: Path) -> None:
    """As long as nobody misses anything, nothing is restarted."""
    daemon, small = small_cache()
    before = daemon.start_ready()
    small.fill()
    reason = daemon.until_reason("cache-full", SEEN_S)
    assert until_explained(daemon, "cache-full")["root"]["layer"] == "rclone"
    assert str(small.path) in reason["text"]
    assert reason["hint"]
    assert (reason["layer"], reason["object"]) == ("rclone", "storage")
    assert_goes_on(daemon, before, "cache-full")
    (logged,) = daemon.until_events("cache cannot be used")
    assert logged["level"] == "warning"
    small.empty()
    assert_recovers(daemon, before, unread)


@pytest.mark.thorough
@pytest.mark.slow
def test_the_disk_has_room_but_not_for_another_file(
    small_cache: Callable[..., tuple[Daemon, Tmpfs]], unread: Path
) -> None:
    daemon, small = small_cache()
    before = daemon.start_ready()
    usage = os.statvfs(small.path)
    few = usage.f_files - usage.f_ffree + 1
    subprocess.run(["mount", "-o", f"remount,nr_inodes={few}", str(small.path)], check=True, timeout=60)
    reason = daemon.until_reason("cache-full", SEEN_S)
    assert "df -i" in reason["hint"]
    assert_goes_on(daemon, before, "cache-full")
    subprocess.run(["mount", "-o", "remount,nr_inodes=0", str(small.path)], check=True, timeout=60)
    assert_recovers(daemon, before, unread)


@pytest.mark.slow
def test_the_directory_is_removed(make_daemon: Callable[..., Daemon], unread: Path) -> None:
    """rclone makes it again; the lock has to be taken again as well, or another mountd takes the same directory."""
    first, second = make_daemon(), make_daemon()
    before = first.start_ready()
    cache = first.root / "cache"
    read(first, 0)
    remove_in_use(cache)
    assert refusal(first, 0) == refusal(first, 1) == 0
    until((cache / "mountd.lock").exists, SEEN_S, "the lock to be there again")
    second.config["mounts"]["storage"]["cache"]["dir"] = str(cache)
    second.start()
    until_not_ready(second, "cache-taken", str(cache))
    explained = until_explained(second, "cache-taken")
    assert [each["code"] for each in explained["chain"]] == ["not-ready", "waiting-for-mount", "cache-taken"]
    assert second.stop() == 0
    assert_recovers(first, before, unread)


@pytest.mark.slow
@pytest.mark.thorough
def test_the_app_is_stopped_meanwhile_if_so_configured(
    small_cache: Callable[..., tuple[Daemon, Tmpfs]], unread: Path
) -> None:
    daemon, small = small_cache()
    daemon.config["mounts"]["storage"]["cache"]["on_failure"] = "stop"
    before = daemon.start_ready()
    small.fill()
    reason = daemon.until_reason("waiting-for-cache", SEEN_S)
    assert [each["code"] for each in until_explained(daemon, "cache-full")["chain"][1:]] == [
        "waiting-for-cache",
        "cache-full",
    ]
    assert (reason["layer"], reason["object"]) == ("app", "webui")
    assert reason["hint"]
    until(lambda: daemon.status()["apps"]["webui"]["pid"] is None, 60, "the app to be gone")
    status = daemon.status()
    assert (status["ready"], status["health"]) == (False, "Degraded")
    assert [reason["code"] for reason in status["reasons"]] == ["cache-full", "waiting-for-cache"]
    assert status["mounts"]["storage"]["pid"] == pids(before)[0]
    small.empty()
    after = daemon.until_ready(SEEN_S)
    assert after["mounts"]["storage"]["pid"] == pids(before)[0]
    assert after["apps"]["webui"]["pid"] not in (None, pids(before)[1])
    assert (after["health"], after["reasons"]) == ("Healthy", [])
    assert daemon.page()["version"] == "v23"
    assert_silent(daemon)


@pytest.mark.thorough
@pytest.mark.slow
def test_the_app_is_stopped_while_the_disk_is_read_only(
    small_cache: Callable[..., tuple[Daemon, Tmpfs]], unread: Path
) -> None:
    daemon, small = small_cache()
    daemon.config["mounts"]["storage"]["cache"]["on_failure"] = "stop"
    before = daemon.start_ready()
    with read_only(small.path):
        daemon.until_reason("waiting-for-cache", SEEN_S)
        until(lambda: daemon.status()["apps"]["webui"]["pid"] is None, 60, "the app to be gone")
        status = daemon.status()
        assert (status["ready"], status["mounts"]["storage"]["pid"]) == (False, pids(before)[0])
        assert [reason["code"] for reason in status["reasons"]] == ["cache-not-writable", "waiting-for-cache"]
    after = daemon.until_ready(SEEN_S)
    assert (after["health"], after["mounts"]["storage"]["pid"]) == ("Healthy", pids(before)[0])
    assert after["apps"]["webui"]["pid"] not in (None, pids(before)[1])
    assert_all_right(daemon, unread)
    assert_silent(daemon)


@pytest.mark.thorough
def test_a_change_of_mind_needs_no_restart(small_cache: Callable[..., tuple[Daemon, Tmpfs]]) -> None:
    daemon, small = small_cache()
    before = daemon.start_ready()
    small.fill()
    daemon.until_reason("cache-full", SEEN_S)
    daemon.config["mounts"]["storage"]["cache"]["on_failure"] = "stop"
    daemon.write_config()
    daemon.until_reason("waiting-for-cache")
    daemon.config["mounts"]["storage"]["cache"]["on_failure"] = "keep"
    daemon.write_config()
    assert daemon.until_ready()["mounts"]["storage"]["pid"] == pids(before)[0]


# -- at the start -----------------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("policy", ["keep", "stop"])
def test_a_disk_that_is_full_at_the_start(small_cache: Callable[..., tuple[Daemon, Tmpfs]], policy: str) -> None:
    daemon, small = small_cache()
    daemon.config["mounts"]["storage"]["cache"]["on_failure"] = policy
    small.fill(leave_bytes=10 * 1024**2)
    daemon.start()
    reason = until_not_ready(daemon, "cache-full", str(small.path), "9 MiB")
    assert reason["hint"]
    assert_app_never_started(daemon)
    until(lambda: daemon.status()["mounts"]["storage"]["state"] == "backoff", 60, "the next try to be waited for")
    small.empty()
    assert daemon.until_ready(PREFLIGHT_S)["reasons"] == []
    assert_silent(daemon)


@pytest.mark.thorough
def test_a_disk_that_the_cache_itself_fills_is_no_obstacle(
    small_cache: Callable[..., tuple[Daemon, Tmpfs]], store: RcloneS3
) -> None:
    """rclone gives up what it holds for what is read next: that is room, and none has to be freed."""
    daemon, small = small_cache(100)
    large = store.directory / hub.BUCKET / "large"
    large.write_bytes(os.urandom(60_000_000))
    daemon.start_ready()
    assert (daemon.mount / "large").read_bytes() == large.read_bytes()
    assert small.free_bytes < 64 * 1024**2
    assert daemon.stop() == 0
    status = daemon.start_ready()
    assert (status["health"], status["reasons"]) == ("Healthy", [])


# -- the state directory ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def full(disk: Tmpfs) -> Iterator[None]:
    disk.fill()
    yield
    disk.empty()


@contextlib.contextmanager
def unwritable(disk: Tmpfs) -> Iterator[None]:
    with read_only(disk.path):
        yield


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("spoil", [full, unwritable])
def test_a_state_directory_that_cannot_be_written(
    daemon: Daemon, spoil: Callable[[Tmpfs], contextlib.AbstractContextManager[None]]
) -> None:
    """A lost mount comes back all the same; what cannot be kept of it is reported."""
    with Tmpfs(daemon.root / "state", 4) as state:
        before = daemon.start_ready()
        with spoil(state):
            os.kill(pids(before)[0], signal.SIGKILL)
            until(lambda: daemon.status()["mounts"]["storage"]["restarts"] == 1, 60, "the mount to be back")
            status = daemon.until_ready()
            assert daemon.page()["version"] == "v23"
            print(daemon.cli("status").out)
            reason = daemon.until_reason("journal-unusable")
            assert str(state.path / "mountd.db") in reason["text"]
            assert reason["hint"]
            assert status["mounts"]["storage"]["state"] == "running"
            until(lambda: daemon.events("cannot keep evidence"), 60, "a warning")
            refused = daemon.cli("switch", "v22")
            assert refused.code == 1, refused
            assert daemon.page()["version"] == "v23"
        until(lambda: daemon.status()["health"] == "Healthy", 60, "all to be well")
        assert daemon.cli("switch", "v22").code == 0
        assert daemon.page()["version"] == "v22"
        assert_silent(daemon)
