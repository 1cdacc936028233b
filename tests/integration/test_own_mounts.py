"""What mountd unmounts and ends is its own: not what somebody else has made of it, and also what it no longer knows."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mountd.process import orphans
from tests.support.daemon import Daemon
from tests.support.wait import until, until_gone

pytestmark = [pytest.mark.fuse, pytest.mark.root]


@contextmanager
def bound(what: Path, where: Path) -> Iterator[None]:
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", str(what), str(where)], check=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(where)], check=False, timeout=60)


def kill(daemon: Daemon) -> None:
    """The daemon and its parent, at once; rclone and the app live on, if they are to."""
    status = daemon.status()
    assert daemon.process is not None
    for pid in (daemon.process.pid, status["pid"]):
        os.kill(pid, signal.SIGKILL)
    daemon.process.wait()
    daemon.process = None
    until_gone(status["pid"])  # it holds the lock until then


def test_what_somebody_has_bound_of_the_mount_is_his(make_daemon: Callable[..., Daemon]) -> None:
    """A part and the whole: over a stop, a start, a crash of mountd and its start."""
    daemon = make_daemon()
    daemon.config["apps"] = {}
    part, whole = daemon.root / "part", daemon.root / "whole"
    daemon.start_ready()
    private = daemon.root / "run" / "private"
    assert (private / "rclone.conf").exists()
    with bound(daemon.mount / "cache_hub_v23", part), bound(daemon.mount, whole):
        assert daemon.stop() == 0
        assert {path.name for path in private.iterdir()} <= {"mountd.lock", "instances.json"}, "no key outlives a stop"
        assert daemon.mounts() == [str(part), str(whole)]
        daemon.start_ready()
        assert sorted(daemon.mounts()) == sorted(map(str, (part, whole, daemon.mount)))
        kill(daemon)
        daemon.start_ready()
        assert sorted(daemon.mounts()) == sorted(map(str, (part, whole, daemon.mount)))
        assert daemon.stop() == 0
    assert daemon.mounts() == []


@pytest.mark.thorough
def test_a_part_that_is_bound_over_the_mount_point_is_reported_and_left(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.config["apps"] = {}
    before = daemon.start_ready()
    with bound(daemon.mount / "cache_hub_v23", daemon.mount):
        daemon.until_reason("cannot-unmount")
        assert daemon.mounts() == [str(daemon.mount)] * 2, "the one below as well"
    until(lambda: daemon.status()["mounts"]["storage"]["pid"] != before["mounts"]["storage"]["pid"], 60, "a new rclone")
    daemon.until_ready()


@pytest.mark.thorough
def test_a_mount_at_a_former_place_is_cleared(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.config["apps"] = {}
    daemon.start_ready()
    kill(daemon)
    daemon.config["mounts"]["storage"]["path"] = str(daemon.root / "elsewhere")
    daemon.start_ready()
    assert daemon.mounts() == [str(daemon.root / "elsewhere")]


@pytest.mark.thorough
def test_what_lives_on_is_found_although_the_state_directory_is_gone(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    before = daemon.start_ready()
    former = {before["mounts"]["storage"]["pid"], before["apps"]["webui"]["pid"]}
    kill(daemon)
    instance = daemon.instance.id
    shutil.move(daemon.root / "state", daemon.root / "gone")  # one that is removed may give its number to the next
    after = daemon.start_ready()
    assert daemon.instance.id != instance
    until(lambda: not any(orphans.alive(pid) for pid in former), 60, "what lived on to end")
    assert after["mounts"]["storage"]["pid"] not in former
    assert daemon.mounts() == [str(daemon.mount)]
    assert daemon.stop() == 0


@pytest.mark.thorough
def test_a_living_daemon_keeps_its_own_although_its_state_directory_is_gone(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    before = daemon.start_ready()
    shutil.move(daemon.root / "state", daemon.root / "aside")
    second = daemon.cli("run", "-c", str(daemon.config_file))
    assert (second.code, f"pid {before['pid']}" in second.err) == (6, True)
    shutil.rmtree(daemon.root / "state")
    shutil.move(daemon.root / "aside", daemon.root / "state")
    after = daemon.status()
    assert after["ready"]
    for kind, name in (("mounts", "storage"), ("apps", "webui")):
        assert after[kind][name]["pid"] == before[kind][name]["pid"]
    assert daemon.stop() == 0


@pytest.mark.thorough
def test_a_mount_that_only_mountd_sees_is_reported(make_daemon: Callable[..., Daemon]) -> None:
    """As with ProtectSystem or PrivateTmp in its unit: all works for its apps, and nobody else finds the files."""
    daemon = make_daemon(wrap=("unshare", "--mount", "--propagation", "private"))
    status = daemon.start_ready()
    assert not daemon.mounts()
    assert (status["health"], daemon.reasons()["mount-not-visible"]["object"]) == ("Degraded", "storage")
    reported = daemon.cli("doctor", "-c", str(daemon.config_file), "-o", "json")
    assert ("namespace", "fail") in {(check["name"], check["result"]) for check in reported.json["checks"]}
