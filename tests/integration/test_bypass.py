"""Reads fail because of the cache: rclone goes on without it, and tries it again when it can be used."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mountd.cache.bypass import CACHE_INTERVAL_S
from mountd.demo import hub
from tests.support.cache_disk import QUICK_RETURN, SEEN_S, assert_all_right, pids, read, refusal, remove_in_use
from tests.support.daemon import Daemon
from tests.support.explained import until_explained
from tests.support.faults import ANY, EXPIRED
from tests.support.machine import Tmpfs, read_only
from tests.support.not_ready import assert_silent, until_not_ready
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.root]


@pytest.fixture
def make_daemon(make_daemon: Callable[..., Daemon]) -> Callable[..., Daemon]:
    """Those that try a cache again soon."""
    return partial(make_daemon, program=(sys.executable, "-c", QUICK_RETURN))


def clear(directory: Path) -> None:
    """As `rm -rf DIRECTORY/*` does."""
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def lack_room(daemon: Daemon) -> None:
    """rclone gives up the model, which is closed, then what it has just fetched: such a read fails, or ends late."""
    assert refusal(daemon, 1) in (0, errno.EIO)
    until(lambda: any("no space left" in event["text"] for event in daemon.events("rclone says")), SEEN_S, "its log")


def assert_bypassed(daemon: Daemon, before: dict[str, Any], unread: Path, code: str) -> dict[str, Any]:
    """Degraded, and whatever is in the bucket can be read; the app was restarted once. The status then."""
    until(lambda: daemon.events("going on without the cache"), SEEN_S, "rclone to go on without its cache")
    daemon.until_reason(code, SEEN_S)
    until(lambda: daemon.status()["apps"]["webui"]["pid"] not in (None, pids(before)[1]), SEEN_S, "another app")
    expected = True, "Degraded", [code]

    def degraded() -> dict[str, Any] | None:
        now = daemon.status()
        return now if (now["ready"], now["health"], [each["code"] for each in now["reasons"]]) == expected else None

    status = until(degraded, SEEN_S, f"nothing but {code}")
    assert_all_right(daemon, unread)
    assert daemon.page()["version"] == "v23"
    rclone, _ = pids(status)
    assert rclone != pids(before)[0]
    command = words_of(rclone)
    assert "--vfs-cache-mode=off" in command
    assert not any(word.startswith(("--cache-dir", "--vfs-cache-max-size", "--vfs-cache-min-free")) for word in command)
    (logged,) = daemon.until_events("going on without the cache")
    assert logged["level"] == "warning"
    return status


def assert_back(daemon: Daemon, unread: Path, *, waits: bool = True) -> None:
    """By itself, with its cache again."""
    if waits:
        daemon.until_reason("cache-bypassed", SEEN_S)
    until(lambda: daemon.status()["health"] == "Healthy", SEEN_S, "all to be well")
    status = daemon.until_ready(SEEN_S)
    assert (status["reasons"], status["mounts"]["storage"]["restarts"]) == ([], 2)
    assert_all_right(daemon, unread)
    assert status["mounts"]["storage"]["pid"] in rclones_with_cache(daemon)
    (logged,) = daemon.until_events("going on with the cache again")
    assert logged["path"] == daemon.config["mounts"]["storage"]["cache"]["dir"]
    assert len(daemon.until_events("cache can be used again")) == len(daemon.until_events("cache cannot be used")) == 1
    assert_silent(daemon)


def words_of(pid: int) -> list[str]:
    """Its command line."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def rclones_with_cache(daemon: Daemon) -> set[int]:
    """Of this daemon, by what they were asked to do and by what they do."""
    pid = daemon.status()["mounts"]["storage"]["pid"]
    cache = Path(daemon.config["mounts"]["storage"]["cache"]["dir"])
    return {pid} if f"--cache-dir={cache}" in words_of(pid) and any((cache / "vfs").rglob("more/*")) else set()


@pytest.mark.thorough
@pytest.mark.slow
def test_reads_fail_on_a_full_disk(small_cache: Callable[..., tuple[Daemon, Tmpfs]], unread: Path) -> None:
    """rclone makes room by what it holds; where that is not enough, the reads go past the disk."""
    daemon, small = small_cache()
    before = daemon.start_ready()
    small.fill()
    lack_room(daemon)
    assert_bypassed(daemon, before, unread, "cache-full")
    small.empty()
    assert_back(daemon, unread)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_disk_becomes_read_only(small_cache: Callable[..., tuple[Daemon, Tmpfs]], unread: Path) -> None:
    daemon, small = small_cache()
    before = daemon.start_ready()
    read(daemon, 0)
    with read_only(small.path):
        reason = daemon.until_reason("cache-not-writable", SEEN_S)
        until_explained(daemon, "cache-not-writable")
        assert str(small.path) in reason["text"]
        assert reason["hint"]
        assert_bypassed(daemon, before, unread, "cache-not-writable")
    assert_back(daemon, unread)


@pytest.mark.thorough
@pytest.mark.slow
def test_another_mountd_takes_the_directory_that_was_removed(make_daemon: Callable[..., Daemon], unread: Path) -> None:
    """Two rclones on one directory would spoil each other's files: the first one leaves it."""
    first, second = make_daemon(), make_daemon()
    before = first.start_ready()
    cache = first.root / "cache"
    second.config["mounts"]["storage"]["cache"]["dir"] = str(cache)
    second.start()
    second.until_reason("cache-taken")
    # The first one looks each 5 s: the second is to be sooner once, however long that takes.
    for _ in range(20):
        remove_in_use(cache)
        second.cli("restart", "storage")
        if second.status()["mounts"]["storage"]["state"] != "backoff":
            break
    assert first.until_reason("cache-taken", SEEN_S)["hint"]
    assert_bypassed(first, before, unread, "cache-taken")
    assert second.stop() == 0
    assert_back(first, unread)


def _replace_all(cache: Path) -> Path:
    remove_in_use(cache)
    cache.touch()
    return cache


def _replace_data(cache: Path) -> Path:
    clear(cache)
    (cache / "vfs").touch()
    return cache / "vfs"


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("spoil", [_replace_all, _replace_data])
def test_a_file_is_in_its_place(daemon: Daemon, unread: Path, spoil: Callable[[Path], Path]) -> None:
    before = daemon.start_ready()
    cache = daemon.root / "cache"
    read(daemon, 0)
    file = spoil(cache)
    reason = daemon.until_reason("cache-not-writable", SEEN_S)
    assert str(cache) in reason["text"]
    assert reason["hint"]
    assert_bypassed(daemon, before, unread, "cache-not-writable")
    file.unlink()
    assert_back(daemon, unread)


@pytest.mark.thorough
@pytest.mark.slow
def test_rclone_is_killed_while_its_disk_is_read_only(
    small_cache: Callable[..., tuple[Daemon, Tmpfs]], unread: Path
) -> None:
    """A start can do without as well, once the directory was seen to work."""
    daemon, small = small_cache()
    before = daemon.start_ready()
    with read_only(small.path):
        os.kill(pids(before)[0], signal.SIGKILL)
        status = assert_bypassed(daemon, before, unread, "cache-not-writable")
        os.kill(pids(status)[0], signal.SIGKILL)
        until(lambda: daemon.status()["mounts"]["storage"]["restarts"] == 2, SEEN_S, "the mount to be back")
        assert daemon.until_ready(SEEN_S)["health"] == "Degraded"
        assert_all_right(daemon, unread)
        assert len(daemon.until_events("going on without the cache")) == 1
    asked = daemon.cli("restart", "storage")
    assert asked.code == 0, asked
    until(lambda: daemon.status()["health"] == "Healthy", SEEN_S, "all to be well")
    assert len(daemon.until_events("going on with the cache again")) == 1


@pytest.mark.thorough
@pytest.mark.slow
def test_a_switch_while_the_disk_is_read_only(small_cache: Callable[..., tuple[Daemon, Tmpfs]], unread: Path) -> None:
    """All is there that it needs; before reads go past the disk it would fail half-way."""
    daemon, small = small_cache()
    before = daemon.start_ready()
    with read_only(small.path):
        daemon.until_reason("cache-not-writable", SEEN_S)
        assert_bypassed(daemon, before, unread, "cache-not-writable")
        switched = daemon.cli("switch", "v22")
        assert switched.code == 0, switched
        assert daemon.page()["version"] == "v22"
        assert daemon.status()["health"] == "Degraded"
    daemon.until_reason("cache-bypassed", SEEN_S)
    assert daemon.cli("rollback").code == 0
    assert_back(daemon, unread)
    assert daemon.page()["version"] == "v23"


@pytest.mark.thorough
@pytest.mark.slow
def test_some_room_is_not_enough_to_go_back(small_cache: Callable[..., tuple[Daemon, Tmpfs]], unread: Path) -> None:
    """More than rclone leaves when it runs, and less than it needs to begin: it is not tried in vain."""
    daemon, small = small_cache()
    before = daemon.start_ready()
    small.fill()
    lack_room(daemon)
    status = assert_bypassed(daemon, before, unread, "cache-full")
    small.empty()
    small.fill(leave_bytes=30 * 1024**2)
    until(lambda: "only 30 MiB" in daemon.until_reason("cache-full")["text"], SEEN_S, "the room to be seen")
    assert pids(daemon.status()) == pids(status)
    assert daemon.events("cache can be used again") == []
    asked = daemon.cli("restart", "storage")
    assert asked.code == 0, asked
    until(lambda: "only 30 MiB" in daemon.until_reason("cache-full")["text"], SEEN_S, "it to be reported")
    assert "--vfs-cache-mode=off" in words_of(pids(daemon.status())[0])
    small.empty()
    until(lambda: daemon.status()["health"] == "Healthy", SEEN_S, "all to be well")
    assert_all_right(daemon, unread)


@pytest.mark.thorough
@pytest.mark.slow
def test_another_policy_while_the_disk_is_read_only(
    small_cache: Callable[..., tuple[Daemon, Tmpfs]], unread: Path
) -> None:
    """What runs is left as it is, but for the app; and all goes back as soon as it can."""
    daemon, small = small_cache()
    before = daemon.start_ready()
    with read_only(small.path):
        status = assert_bypassed(daemon, before, unread, "cache-not-writable")
        daemon.config["mounts"]["storage"]["cache"]["on_failure"] = "stop"
        daemon.write_config()
        daemon.until_reason("waiting-for-cache")
        assert daemon.status()["mounts"]["storage"]["pid"] == pids(status)[0]
    assert_back(daemon, unread, waits=False)


@pytest.mark.thorough
@pytest.mark.slow
def test_a_mount_that_can_be_written_keeps_its_cache(
    small_cache: Callable[..., tuple[Daemon, Tmpfs]], store: RcloneS3
) -> None:
    """What waits for its upload lies there, and is uploaded when the disk can be written again."""
    options = {"vfs-cache-mode": "full", "vfs-write-back": "40s"}
    daemon, small = small_cache()
    daemon.config["mounts"]["storage"] |= {"profile": "plain", "options": options}
    before = daemon.start_ready()
    content = os.urandom(100_000)
    (daemon.mount / "written").write_bytes(content)
    with read_only(small.path):
        daemon.until_reason("cache-not-writable", SEEN_S)
        until(lambda: daemon.status()["mounts"]["storage"]["cache"]["uploads_queued"] == 1, SEEN_S, "it to be counted")
        looks_end = time.monotonic() + 2 * CACHE_INTERVAL_S  # others are without their cache by then
        until(lambda: pids(daemon.status()) != pids(before) or time.monotonic() > looks_end, SEEN_S, "further looks")
        assert pids(daemon.status()) == pids(before)
    uploaded = store.directory / hub.BUCKET / "written"
    until(lambda: uploaded.read_bytes() == content, 120.0, "the upload")
    until(lambda: daemon.status()["health"] == "Healthy", SEEN_S, "all to be well")
    assert (pids(daemon.status()), daemon.events("going on without the cache")) == (pids(before), [])


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("policy", ["keep", "stop"])
def test_a_start_on_a_disk_that_is_read_only(
    small_cache: Callable[..., tuple[Daemon, Tmpfs]], unread: Path, policy: str
) -> None:
    """A directory that was used before is no mistake in the configuration, but a disk that fails."""
    daemon, small = small_cache()
    daemon.config["mounts"]["storage"]["cache"]["on_failure"] = policy
    daemon.start_ready()
    read(daemon, 0)
    assert daemon.stop() == 0
    with read_only(small.path):
        daemon.start()
        if policy == "keep":
            assert daemon.until_ready(SEEN_S)["health"] == "Degraded"
            assert_all_right(daemon, unread)
        else:
            until_not_ready(daemon, "cache-not-writable", str(small.path))
            assert daemon.status()["apps"]["webui"]["pid"] is None
    until(lambda: daemon.status()["health"] == "Healthy", SEEN_S, "all to be well")
    assert daemon.until_ready()["reasons"] == []
    assert_all_right(daemon, unread)
    assert_silent(daemon)


@pytest.mark.thorough
@pytest.mark.slow
def test_rclone_cannot_use_what_looks_well(daemon: Daemon, unread: Path) -> None:
    """It goes on without its cache silently, and is asked to, then."""
    daemon.start_ready()
    read(daemon, 0)
    assert daemon.stop() == 0
    (inside,) = (daemon.root / "cache" / "vfs").iterdir()
    shutil.rmtree(inside)
    inside.touch()
    status = daemon.start_ready()
    daemon.until_reason("cache-off")
    assert status["health"] == "Degraded"
    assert_all_right(daemon, unread)
    inside.unlink()
    until(lambda: daemon.status()["health"] == "Healthy", SEEN_S, "all to be well")
    assert_all_right(daemon, unread)
    assert rclones_with_cache(daemon)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["bucket-unreachable", "credentials-expired"])
def test_the_bucket_gives_nothing_while_the_disk_is_read_only(
    small_cache: Callable[..., tuple[Daemon, Tmpfs]], proxy: Proxy, unread: Path, fault: str
) -> None:
    """A new rclone could not serve anything then: what is open goes on with the one that there is."""
    daemon, small = small_cache(endpoint=proxy.endpoint)
    before = daemon.start_ready()
    if fault == "bucket-unreachable":
        proxy.down()
    else:
        proxy.faults.fail = {ANY: EXPIRED}
    daemon.until_reason(fault, SEEN_S)
    with read_only(small.path):
        daemon.until_reason("cache-not-writable", SEEN_S)
        until(lambda: daemon.events("the remount waits for the bucket"), SEEN_S, "it to be reported")
        assert pids(daemon.status()) == pids(before)
        proxy.faults.clear()
        proxy.up()
        assert_bypassed(daemon, before, unread, "cache-not-writable")
    assert_back(daemon, unread)
