"""rclone dies, hangs or loses its mount, and mountd dies: reads work again by themselves, and what happened is kept."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest

from mountd.demo import hub
from mountd.mount.evidence import KEPT
from mountd.process import orphans
from tests.support import dies_with_us
from tests.support.daemon import PATIENT_EVIDENCE, Daemon
from tests.support.explained import until_explained
from tests.support.machine import Stopped, external_unmount, state
from tests.support.wait import until, until_gone

pytestmark = pytest.mark.fuse

BACK_S = 60.0
"""Far more than it takes: how long it takes is measured by `./dev bench recovery`."""
READ_S = 60.0
FILE = "cache_hub_v23/models/gpt.pth"

HOLDER = """if True:
    import sys
    held = open(sys.argv[1], "rb")
    held.read(1)
    print("held", flush=True)
    sys.stdin.read(1)
    try:
        held.seek(0)
        print("read", len(held.read()), flush=True)
    except OSError as error:
        print("error", error.errno, flush=True)
"""

# Takes what the kernel asks rclone, and drops it, as a bug in rclone would: rclone runs, and statfs gets no answer.
THIEF = """if True:
    import ctypes, os, sys, threading
    libc = ctypes.CDLL(None, use_errno=True)
    pid = int(sys.argv[1])
    pidfd = os.pidfd_open(pid)
    PIDFD_GETFD = 438
    (number,) = [n for n in os.listdir(f"/proc/{pid}/fd") if os.readlink(f"/proc/{pid}/fd/{n}") == "/dev/fuse"]
    device = libc.syscall(PIDFD_GETFD, pidfd, int(number), 0)
    assert device >= 0, os.strerror(ctypes.get_errno())

    def steal():
        while True:
            os.read(device, 1 << 21)

    for _ in range(32):
        threading.Thread(target=steal, daemon=True).start()
    print("steals", flush=True)
    import select
    select.select([pidfd], [], [], 120)
    os._exit(0)
"""


def reads(daemon: Daemon) -> bool:
    """Whether a file comes whole through the mount; asked by a child, which may get stuck."""
    child = subprocess.Popen(
        ["sha256sum", str(daemon.mount / FILE)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        said, _ = child.communicate(timeout=READ_S)
    except subprocess.TimeoutExpired:
        child.kill()  # not waited for: in D it stays until the repair
        return False
    return said.partition(" ")[0] == expected()


@cache
def expected() -> str:
    """The digest of FILE, which is the same in each build of the hub."""
    with tempfile.TemporaryDirectory() as root:
        hub.build(Path(root), versions=("v23",), scale=1 / 10_000)
        return hashlib.sha256(Path(root, hub.BUCKET, FILE).read_bytes()).hexdigest()


def until_back(daemon: Daemon, before: dict[str, Any]) -> dict[str, Any]:
    """Its status once another rclone serves and the app has been restarted."""
    old = before["mounts"]["storage"]["pid"]

    def back() -> dict[str, Any] | None:
        status = daemon.status()
        mount, app = status["mounts"]["storage"], status["apps"]["webui"]
        assert mount["state"] != "failed", mount
        renewed = mount["pid"] != old and app["pid"] not in (None, before["apps"]["webui"]["pid"])
        return status if renewed and mount["state"] == "running" else None

    status = until(back, BACK_S, "another rclone", every_s=0.1)
    assert status is not None
    assert until(lambda: reads(daemon), BACK_S, "reads through the mount", every_s=0.1)
    assert_one_of_each(daemon)
    assert not orphans.alive(old)
    return status


def rclones(daemon: Daemon) -> list[int]:
    return [pid for pid, line in daemon.command_lines().items() if b"rclone\0mount" in line]


def assert_one_of_each(daemon: Daemon) -> None:
    assert daemon.mounts() == [str(daemon.mount)]
    assert rclones(daemon) == [daemon.status()["mounts"]["storage"]["pid"]]


def until_well(daemon: Daemon) -> None:
    until(lambda: (daemon.status()["ready"], daemon.status()["health"]) == (True, "Healthy"), BACK_S, "all to be well")


def incidents(daemon: Daemon) -> list[Path]:
    return sorted((daemon.root / "state" / "incidents").iterdir())


def the_incident(daemon: Daemon, *verdicts: str) -> tuple[Path, dict[str, Any]]:
    """The only one kept: its directory, and what its incident.json says."""
    (kept,) = incidents(daemon)
    document: dict[str, Any] = json.loads((kept / "incident.json").read_text())
    assert document["verdict"] in verdicts
    assert kept.name.endswith(f"-storage-{document['verdict']}")
    assert_private(daemon, kept)
    return kept, document


def assert_private(daemon: Daemon, incident: Path) -> None:
    assert incident.parent.stat().st_mode & 0o777 == 0o700
    assert incident.stat().st_mode & 0o777 == 0o700
    for file in incident.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
        assert daemon.secret_access_key not in file.read_text(errors="replace")


@contextmanager
def held_open(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that has a file of the mount open, and reads it when the test asks."""
    holder = subprocess.Popen(
        dies_with_us([sys.executable, "-c", HOLDER, str(path)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.wait()


def test_a_killed_rclone(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(program=(sys.executable, "-c", PATIENT_EVIDENCE))
    before = daemon.start_ready()
    os.kill(before["mounts"]["storage"]["pid"], signal.SIGKILL)
    explained = until_explained(daemon, "rclone-killed")
    assert "SIGKILL" in explained["root"]["evidence"][0]
    after = until_back(daemon, before)
    assert after["mounts"]["storage"]["restarts"] == 1
    daemon.until_ready()
    assert daemon.page()["version"] == "v23"
    kept, document = the_incident(daemon, "exited")
    assert "SIGKILL" in document["cause"]
    assert document["pid"] is None, "it had ended"
    assert (kept / "log.txt").read_text()
    (reported,) = daemon.until_events("evidence kept")
    assert reported["path"] == str(kept)


def runs(daemon: Daemon) -> int | None:
    """The rclone whose start is complete."""
    mount = daemon.status()["mounts"]["storage"]
    return int(mount["pid"]) if mount["state"] == "running" else None


@pytest.mark.thorough
def test_killed_again_and_again_there_is_no_wait_between_and_the_evidence_is_bounded(daemon: Daemon) -> None:
    daemon.program = (sys.executable, "-c", PATIENT_EVIDENCE)
    kept = daemon.root / "state" / "incidents"
    kept.mkdir(parents=True, mode=0o700)
    for number in range(KEPT + 5):
        old = kept / f"20200101T0000{number:02}.000000Z-storage-hung"
        old.mkdir(mode=0o700)
        (old / "incident.json").write_text("{}")
    daemon.start_ready()
    for _ in range(5):
        pid = daemon.status()["mounts"]["storage"]["pid"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: runs(daemon) not in (None, pid), BACK_S, "another rclone")  # noqa: B023
        assert until(lambda: reads(daemon), BACK_S, "reads through the mount")
    daemon.until_events("state changed", 6, mount="storage", state="running")
    states = [event["state"] for event in daemon.events("state changed") if event.get("mount") == "storage"]
    assert states.count("running") == 6
    assert "backoff" not in states
    until(lambda: len(daemon.events("evidence kept")) == 5, BACK_S, "the evidence")
    found = incidents(daemon)
    assert len(found) == KEPT
    new = [each for each in found if not each.name.startswith("2020")]
    assert len(new) == 5
    for each in new:
        assert_private(daemon, each)
    daemon.until_ready()
    assert_one_of_each(daemon)


@pytest.mark.thorough
def test_a_stopped_rclone(make_daemon: Callable[..., Daemon]) -> None:
    """SIGSTOP: replaced and not continued; what its threads waited for in the kernel is kept."""
    daemon = make_daemon(program=(sys.executable, "-c", PATIENT_EVIDENCE))
    before = daemon.start_ready()
    pid = before["mounts"]["storage"]["pid"]
    with held_open(daemon.mount / FILE) as holder, Stopped(pid):
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write("x")
        holder.stdin.flush()  # a reader that is stuck when the repair comes
        seen = set[str]()

        def is_gone() -> bool:
            seen.add(state(pid))
            return "" in seen

        until(is_gone, BACK_S, "it to be ended")
        assert "S" not in seen, "it was continued"  # R and D are its end: a killed process runs through its own exit
        until_back(daemon, before)
        said = holder.stdout.readline().split()[0]
        assert said in ("read", "error"), "the reader is free again; with what it had read ahead it may even succeed"
    kept, document = the_incident(daemon, "hung")
    assert document["stopped"] is True
    assert document["pid"] == pid
    threads = (kept / "threads.txt").read_text()
    assert f"{pid} rclone T " in threads
    if os.geteuid() == 0:
        assert "signal_stop" in threads, "the kernel stack"
    assert (kept / "log.txt").read_text()
    assert not (kept / "goroutines.txt").exists(), "mountd does not continue a stopped process to get them"
    assert "hung" in daemon.until_events("state changed", state="stopping")[0]["cause"]


@pytest.mark.root
def test_an_rclone_that_runs_and_answers_nothing(daemon: Daemon) -> None:
    """Then its goroutines are kept as well; the exit code of that (2) is not taken for that of a usage error."""
    daemon.program = (sys.executable, "-c", PATIENT_EVIDENCE)
    before = daemon.start_ready()
    pid = before["mounts"]["storage"]["pid"]
    thief = subprocess.Popen(
        dies_with_us([sys.executable, "-c", THIEF, str(pid)]), stdout=subprocess.PIPE, cwd="/", text=True
    )
    try:
        assert thief.stdout is not None
        assert thief.stdout.readline() == "steals\n"
        until_explained(daemon, "mount-silent", "mount-hung")
        until_explained(daemon, "mount-hung")
        until_back(daemon, before)
    finally:
        thief.kill()
        thief.wait()
    kept, document = the_incident(daemon, "hung")
    assert document["stopped"] is False
    goroutines = (kept / "goroutines.txt").read_text()
    assert "goroutine 1 " in goroutines
    assert "SIGQUIT" in goroutines
    assert "diskCache" in json.loads((kept / "stats.json").read_text())["vfs/stats"]
    assert "goroutine 1 " not in daemon.log_text(), "it would flood the log"
    states = [event.get("state") for event in daemon.events("state changed") if event.get("mount") == "storage"]
    assert "failed" not in states
    assert "usage" not in json.dumps(daemon.events("state changed"))
    assert daemon.until_ready()["mounts"]["storage"]["restarts"] == 1


@pytest.mark.root
@pytest.mark.shown_by("fusermount3")
@pytest.mark.parametrize("how", ["fusermount3", "umount"])
def test_somebody_else_unmounts(daemon: Daemon, how: Literal["fusermount3", "umount"]) -> None:
    daemon.program = (sys.executable, "-c", PATIENT_EVIDENCE)
    before = daemon.start_ready()
    external_unmount(daemon.mount, how)
    until_explained(daemon, "mount-dead", "rclone-exited")
    until_back(daemon, before)
    # rclone ends by itself then: whichever is seen first.
    the_incident(daemon, "dead", "exited")
    until_well(daemon)


@pytest.mark.thorough
@pytest.mark.root
def test_somebody_else_unmounts_while_a_program_has_a_file_open(daemon: Daemon) -> None:
    """The file keeps the old mount, and so the old rclone, alive: it is ended, and the program gets an error."""
    daemon.program = (sys.executable, "-c", PATIENT_EVIDENCE)
    before = daemon.start_ready()
    with held_open(daemon.mount / FILE) as holder:
        external_unmount(daemon.mount, "umount")
        until_back(daemon, before)
        assert holder.poll() is None
        said, _ = holder.communicate("x", timeout=READ_S)
        assert said.split()[0] in ("read", "error"), "it does not hang"
    the_incident(daemon, "dead")
    until_well(daemon)


def test_mountd_itself_is_killed_and_started_again(make_daemon: Callable[..., Daemon]) -> None:
    """Parent and daemon at once, with an rclone that hangs: nothing of the previous run is left."""
    daemon = make_daemon()
    before = daemon.start_ready()
    former = daemon.processes()
    assert before["mounts"]["storage"]["pid"] in former
    with held_open(daemon.mount / FILE), Stopped(before["mounts"]["storage"]["pid"]):
        assert daemon.process is not None
        os.kill(daemon.process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(before["pid"], signal.SIGKILL)
        daemon.wait_exit()
        until_gone(before["pid"])
        assert orphans.alive(before["mounts"]["storage"]["pid"])
        without = daemon.cli("explain", "-c", str(daemon.config_file), "-o", "json")
        assert (without.code, without.json["root"]["code"]) == (8, "not-running")
        assert [each["object"] for each in without.json["others"]] == [str(daemon.mount)], "which was not touched"
        daemon.start()
        until(daemon.socket.exists, BACK_S, "the daemon")
        until_explained(daemon, "mountd-restarted-after-crash")
        until_back(daemon, before)
    after = daemon.until_ready()
    assert [pid for pid in former if orphans.alive(pid)] == []
    assert after["pid"] != before["pid"]
    assert after["mounts"]["storage"]["restarts"] == 0, "a new life"
    assert daemon.page()["version"] == "v23"
    assert daemon.stop() == 0
    assert daemon.processes() == []
    assert daemon.mounts() == []
