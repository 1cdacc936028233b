"""A disk that fills up, becomes read-only or goes: told in plain words, survived, and well again by itself."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.machine import Tmpfs, read_only
from tests.support.not_ready import assert_app_never_started, assert_silent, until_not_ready
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.current_first]

SEEN_S = 45.0
"""The cache is looked at each 5 s, and on a busy machine a little later."""
PREFLIGHT_S = 45.0
"""A place that cannot be used is tried again each 10 s."""
FILES = 4
FILE_BYTES = 3_000_000


@pytest.fixture
def more(store: RcloneS3) -> Path:
    """Files in the bucket that nobody has read: 0, 1, 2, …"""
    directory = store.directory / hub.BUCKET / "more"
    directory.mkdir()
    for number in range(FILES):
        (directory / str(number)).write_bytes(os.urandom(FILE_BYTES))
    return directory


@pytest.fixture
def disk(make_daemon: Callable[..., Daemon]) -> Iterator[Callable[..., tuple[Daemon, Tmpfs]]]:
    """Makes a daemon whose cache has a small disk of its own."""
    with contextlib.ExitStack() as stack:

        def make(mib: int = 200, **changes: Any) -> tuple[Daemon, Tmpfs]:
            daemon = make_daemon(**changes)
            return daemon, stack.enter_context(Tmpfs(daemon.root / "cache", mib))

        yield make


def read(daemon: Daemon, number: int) -> bytes:
    return (daemon.mount / "more" / str(number)).read_bytes()


def refusal(daemon: Daemon, number: int) -> int:
    """The error that reading this file gives, 0 if none."""
    try:
        read(daemon, number)
    except OSError as error:
        return error.errno or -1
    return 0


def clear(directory: Path) -> None:
    """As `rm -rf DIRECTORY/*` does."""
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def pids(status: dict[str, Any]) -> tuple[int, int]:
    return status["mounts"]["storage"]["pid"], status["apps"]["webui"]["pid"]


def assert_goes_on(daemon: Daemon, before: dict[str, Any], code: str) -> None:
    """Degraded, and all that ran runs."""
    status = daemon.status()
    assert (status["ready"], status["health"]) == (True, "Degraded")
    assert [reason["code"] for reason in status["reasons"]] == [code]
    assert pids(status) == pids(before)
    assert daemon.page()["version"] == "v23"


def assert_mends(daemon: Daemon, before: dict[str, Any], more: Path) -> None:
    """By itself, with the same rclone and the same app, and what could not be read can be."""
    until(lambda: daemon.status()["health"] == "Healthy", SEEN_S, "all to be well")
    status = daemon.status()
    assert (status["ready"], status["reasons"], pids(status)) == (True, [], pids(before))
    for number in range(FILES):
        assert read(daemon, number) == (more / str(number)).read_bytes()
    assert len(daemon.events("cache can be used again")) == len(daemon.events("cache cannot be used"))
    assert_silent(daemon)


# -- while it runs ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_somebody_fills_the_disk(disk: Callable[..., tuple[Daemon, Tmpfs]], more: Path, each_rclone: Path) -> None:
    daemon, small = disk(rclone=each_rclone)
    before = daemon.start_ready()
    cached = read(daemon, 0)
    small.fill()
    assert refusal(daemon, 1) == errno.EIO
    reason = daemon.until_reason("cache-full", SEEN_S)
    assert reason["text"] == (
        f"cannot use the cache directory {small.path}: only 0 MiB are free;"
        " reads of files that are not cached may fail meanwhile"
    )
    assert "free at least 64 MiB" in reason["hint"]
    assert (reason["layer"], reason["object"]) == ("rclone", "storage")
    assert read(daemon, 0) == cached == (more / "0").read_bytes()
    assert_goes_on(daemon, before, "cache-full")
    (told,) = daemon.events("cache cannot be used")
    assert told["level"] == "warning"
    small.empty()
    assert_mends(daemon, before, more)


@pytest.mark.slow
def test_the_disk_becomes_read_only(disk: Callable[..., tuple[Daemon, Tmpfs]], more: Path, each_rclone: Path) -> None:
    daemon, small = disk(rclone=each_rclone)
    before = daemon.start_ready()
    read(daemon, 0)
    with read_only(small.path):
        reason = daemon.until_reason("cache-not-writable", SEEN_S)
        assert f"cannot use the cache directory {small.path}: read-only file system" in reason["text"]
        assert "reads of files that are not open yet may fail meanwhile, cached or not" in reason["text"]
        assert f"uid {os.geteuid()} can write" in reason["hint"]
        assert refusal(daemon, 1) == errno.EIO
        assert_goes_on(daemon, before, "cache-not-writable")
    assert_mends(daemon, before, more)


@pytest.mark.thorough
@pytest.mark.slow
def test_the_disk_has_room_but_not_for_another_file(disk: Callable[..., tuple[Daemon, Tmpfs]], more: Path) -> None:
    daemon, small = disk()
    before = daemon.start_ready()
    usage = os.statvfs(small.path)
    few = usage.f_files - usage.f_ffree + 1
    subprocess.run(["mount", "-o", f"remount,nr_inodes={few}", str(small.path)], check=True, timeout=20)
    reason = daemon.until_reason("cache-full", SEEN_S)
    assert "has room, but not for more files" in reason["text"]
    assert "df -i" in reason["hint"]
    assert_goes_on(daemon, before, "cache-full")
    subprocess.run(["mount", "-o", "remount,nr_inodes=0", str(small.path)], check=True, timeout=20)
    assert_mends(daemon, before, more)


@pytest.mark.slow
def test_the_directory_is_removed(make_daemon: Callable[..., Daemon], more: Path, each_rclone: Path) -> None:
    """rclone makes it again; the lock has to be taken again as well, or another mountd takes the same directory."""
    first, second = make_daemon(rclone=each_rclone), make_daemon(rclone=each_rclone)
    before = first.start_ready()
    cache = first.root / "cache"
    read(first, 0)
    shutil.rmtree(cache)
    assert refusal(first, 0) == refusal(first, 1) == 0
    until((cache / "mountd.lock").exists, SEEN_S, "the lock to be there again")
    second.config["mounts"]["storage"]["cache"]["dir"] = str(cache)
    second.start()
    until_not_ready(second, "cache-taken", f"cannot use the cache directory {cache}: another mount uses it")
    assert second.stop() == 0
    assert_mends(first, before, more)


@pytest.mark.thorough
@pytest.mark.slow
def test_another_mountd_takes_the_directory_that_was_removed(make_daemon: Callable[..., Daemon]) -> None:
    first, second = make_daemon(), make_daemon()
    before = first.start_ready()
    cache = first.root / "cache"
    second.config["mounts"]["storage"]["cache"]["dir"] = str(cache)
    second.start()
    second.until_reason("cache-taken")
    # The first one looks each 5 s: the second is to be sooner once, however long that takes.
    for _ in range(20):
        shutil.rmtree(cache)
        second.cli("restart", "storage")
        if second.status()["mounts"]["storage"]["state"] != "backoff":
            break
    reason = first.until_reason("cache-taken", SEEN_S)
    assert "another mount uses it" in reason["text"]
    assert "cache.dir of its own" in reason["hint"]
    assert_goes_on(first, before, "cache-taken")
    assert second.stop() == 0
    until(lambda: first.status()["health"] == "Healthy", SEEN_S, "it to be the first's again")


def _replace_all(cache: Path) -> Path:
    shutil.rmtree(cache)
    cache.touch()
    return cache


def _replace_data(cache: Path) -> Path:
    clear(cache)
    (cache / "vfs").touch()
    return cache / "vfs"


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "text"), [(_replace_all, ": not a directory"), (_replace_data, ": vfs in it is not a directory")]
)
def test_a_file_is_in_its_place(daemon: Daemon, more: Path, spoil: Callable[[Path], Path], text: str) -> None:
    before = daemon.start_ready()
    cache = daemon.root / "cache"
    read(daemon, 0)
    file = spoil(cache)
    reason = daemon.until_reason("cache-not-writable", SEEN_S)
    assert f"cannot use the cache directory {cache}{text}" in reason["text"]
    assert reason["hint"]
    assert_goes_on(daemon, before, "cache-not-writable")
    file.unlink()
    assert_mends(daemon, before, more)


@pytest.mark.slow
def test_the_app_is_stopped_meanwhile_if_so_configured(disk: Callable[..., tuple[Daemon, Tmpfs]], more: Path) -> None:
    daemon, small = disk()
    daemon.config["mounts"]["storage"]["cache"]["on_failure"] = "stop"
    before = daemon.start_ready()
    small.fill()
    reason = daemon.until_reason("waiting-for-cache", SEEN_S)
    assert reason["text"] == "webui waits for the cache of mount storage"
    assert "starts by itself" in reason["hint"]
    until(lambda: daemon.status()["apps"]["webui"]["pid"] is None, 10, "the app to be gone")
    status = daemon.status()
    assert (status["ready"], status["health"]) == (False, "Degraded")
    assert [reason["code"] for reason in status["reasons"]] == ["cache-full", "waiting-for-cache"]
    assert status["mounts"]["storage"]["pid"] == pids(before)[0]
    assert "webui waits for the cache" in daemon.cli("status").out
    small.empty()
    after = daemon.until_ready(SEEN_S)
    assert after["mounts"]["storage"]["pid"] == pids(before)[0]
    assert after["apps"]["webui"]["pid"] not in (None, pids(before)[1])
    assert (after["health"], after["reasons"]) == ("Healthy", [])
    assert daemon.page()["version"] == "v23"
    assert_silent(daemon)


@pytest.mark.thorough
def test_a_change_of_mind_needs_no_restart(disk: Callable[..., tuple[Daemon, Tmpfs]]) -> None:
    daemon, small = disk()
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
def test_a_disk_that_is_full_at_the_start(disk: Callable[..., tuple[Daemon, Tmpfs]], policy: str) -> None:
    daemon, small = disk()
    daemon.config["mounts"]["storage"]["cache"]["on_failure"] = policy
    small.fill(leave_bytes=10 * 1024**2)
    daemon.start()
    reason = until_not_ready(daemon, "cache-full", f"{small.path}: only 9 MiB are free")
    assert "free at least 64 MiB" in reason["hint"]
    assert_app_never_started(daemon)
    assert daemon.status()["mounts"]["storage"]["state"] == "backoff"
    small.empty()
    assert daemon.until_ready(PREFLIGHT_S)["reasons"] == []
    assert_silent(daemon)


@pytest.mark.thorough
def test_a_disk_that_the_cache_itself_fills_is_no_obstacle(
    disk: Callable[..., tuple[Daemon, Tmpfs]], store: RcloneS3, each_rclone: Path
) -> None:
    """rclone gives up what it holds for what is read next: that is room, and nobody has to free any."""
    daemon, small = disk(100, rclone=each_rclone)
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
    """A lost mount comes back all the same; what cannot be kept of it is told."""
    with Tmpfs(daemon.root / "state", 4) as state:
        before = daemon.start_ready()
        with spoil(state):
            os.kill(pids(before)[0], signal.SIGKILL)
            until(lambda: daemon.status()["mounts"]["storage"]["restarts"] == 1, 20, "the mount to be back")
            status = daemon.until_ready()
            assert daemon.page()["version"] == "v23"
            print(daemon.cli("status").out)
            reason = daemon.until_reason("journal-unusable")
            assert str(state.path / "mountd.db") in reason["text"]
            assert reason["hint"]
            assert status["mounts"]["storage"]["state"] == "running"
            until(lambda: daemon.events("cannot keep evidence"), 10, "a warning")
            refused = daemon.cli("switch", "v22")
            assert refused.code == 1, refused
            assert "cannot use the journal" in refused.err
            assert daemon.page()["version"] == "v23"
        until(lambda: daemon.status()["health"] == "Healthy", 20, "all to be well")
        assert daemon.cli("switch", "v22").code == 0
        assert daemon.page()["version"] == "v22"
        assert_silent(daemon)
