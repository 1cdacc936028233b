"""Descriptors, processes or memory are used up: what serves goes on, mountd reports it, and a stop is still a stop."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cache_disk import pids
from tests.support.daemon import Daemon
from tests.support.explained import until_explained
from tests.support.machine import Tmpfs
from tests.support.wait import until

pytestmark = pytest.mark.fuse

SEEN_S = 45.0
BACK_S = 60.0
LOOKS = 50
PIDS = Path("/sys/fs/cgroup/pids")
FILE = "cache_hub_v23/models/gpt.pth"


def no_descriptors(pid: int) -> None:
    """The next number is one too many, also once what is open for a moment is closed."""
    looks = [_first_free(pid)]

    def is_settled() -> bool:
        looks.append(_first_free(pid))
        return len(looks) - looks.index(min(looks)) > LOOKS

    until(is_settled, SEEN_S, "the lowest number that is free", every_s=0.01)
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(looks), hard))


def _first_free(pid: int) -> int:
    used = {int(each) for each in os.listdir(f"/proc/{pid}/fd")}
    return next(number for number in range(len(used) + 1) if number not in used)


def descriptors_again(pid: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def serves(daemon: Daemon, before: dict[str, Any]) -> None:
    """The same rclone and app as before, on a disk that answers."""
    assert (daemon.mount / FILE).stat().st_size > 0
    now = daemon.status()
    assert pids(now) == pids(before)
    assert now["mounts"]["storage"]["state"] == "running"


def ends_in_order(daemon: Daemon) -> None:
    assert daemon.stop() == 0
    assert str(daemon.mount) not in daemon.mounts()
    assert daemon.processes() == []
    assert "Traceback" not in daemon.own_log_text()


@contextlib.contextmanager
def cgroup() -> Iterator[Path]:
    path = PIDS / f"mountd-t-{uuid.uuid4().hex[:8]}"
    try:
        path.mkdir()
    except OSError:
        pytest.skip("no cgroup for the number of processes can be made here")
    try:
        yield path
    finally:
        (path / "pids.max").write_text("max")
        for pid in (path / "cgroup.procs").read_text().split():  # of a test that failed
            with contextlib.suppress(OSError):
                (PIDS / "cgroup.procs").write_text(pid)
        path.rmdir()


def no_processes(group: Path, members: list[int]) -> None:
    for pid in members:
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            (group / "cgroup.procs").write_text(str(pid))
    (group / "pids.max").write_text("1")  # below what there is: a process that exits makes no room for another one


def test_no_descriptor_is_left(daemon: Daemon) -> None:
    before = daemon.start_ready()
    no_descriptors(before["pid"])
    assert "LimitNOFILE" in daemon.until_reason("no-descriptors", SEEN_S)["hint"]
    assert until_explained(daemon, "no-descriptors")["root"]["layer"] == "machine"
    serves(daemon, before)
    ends_in_order(daemon)


def test_no_process_can_be_started(daemon: Daemon) -> None:
    """Nor a thread: of mountd, of rclone, or of the app."""
    before = daemon.start_ready()
    assert daemon.process is not None
    with cgroup() as group:
        no_processes(group, [daemon.process.pid, before["pid"], *daemon.processes()])
        serves(daemon, before)
        os.kill(pids(before)[0], signal.SIGKILL)
        reason = daemon.until_reason("no-processes", SEEN_S)
        until_explained(daemon, "no-processes")
        assert "TasksMax" in reason["hint"]
        assert "access-denied" not in daemon.reasons()
        (group / "pids.max").write_text("max")
        daemon.until_ready(BACK_S)
        until(lambda: "no-processes" not in daemon.reasons(), BACK_S, "what was lacking to be over")
        no_processes(group, [])
        ends_in_order(daemon)


@pytest.mark.thorough
def test_descriptors_come_back(daemon: Daemon) -> None:
    before = daemon.start_ready()
    no_descriptors(before["pid"])
    daemon.until_reason("no-descriptors", SEEN_S)
    os.kill(pids(before)[1], signal.SIGKILL)
    descriptors_again(before["pid"])
    until(lambda: daemon.reasons() == {}, BACK_S, "all to be well")

    def codes() -> list[str]:
        return [each["code"] for each in daemon.cli("events", "-o", "json").json["events"]]

    until(lambda: "recovered" in codes(), BACK_S, "the event")
    assert "no-descriptors" in codes()
    ends_in_order(daemon)


@pytest.mark.thorough
@pytest.mark.parametrize("limit", [resource.RLIMIT_AS, resource.RLIMIT_DATA], ids=["AS", "DATA"])
def test_no_more_memory(daemon: Daemon, limit: int) -> None:
    before = daemon.start_ready()
    pages = int(Path(f"/proc/{before['pid']}/statm").read_text().split()[0])
    resource.prlimit(before["pid"], limit, (pages * resource.getpagesize() if limit == resource.RLIMIT_AS else 1, -1))
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 15, 20, "each question to be put", every_s=1)
    serves(daemon, before)
    ends_in_order(daemon)


@pytest.mark.thorough
@pytest.mark.parametrize("directory", ["state", "run"])
def test_the_disk_of_the_state_or_of_the_sockets_is_full(daemon: Daemon, directory: str) -> None:
    with Tmpfs(daemon.root / directory, 4) as disk:
        before = daemon.start_ready()
        disk.fill()
        serves(daemon, before)
        os.kill(pids(before)[0], signal.SIGKILL)
        daemon.until_ready(BACK_S)
        ends_in_order(daemon)


# What must not happen: a mistake of mountd itself, in each of its long-lived parts.
BUG = """
import sys
from mountd.cli.main import main
from {module} import {kind}
async def bug(self, *_):
    import asyncio, os
    while not os.path.exists({trigger!r}):
        await asyncio.sleep(0.1)
    raise KeyError("a bug")
{kind}.{method} = bug
sys.exit(main())
"""
PARTS = [
    ("mountd.mount.bucket", "SecretsProbe", "run"),
    *(
        pytest.param(*each, marks=pytest.mark.thorough)
        for each in [
            ("mountd.model.audit", "Audit", "run"),
            ("mountd.app.app", "App", "watch"),
            ("mountd.app.app", "App", "_follow_needs"),
            ("mountd.daemon.recorder", "Recorder", "run"),
            ("mountd.cache.uploads", "Uploads", "drain"),
        ]
    ),
]


@pytest.mark.parametrize(("module", "kind", "method"), PARTS)
def test_a_bug_ends_mountd_in_order(daemon: Daemon, module: str, kind: str, method: str) -> None:
    trigger = daemon.root / "trigger"
    code = BUG.format(module=module, kind=kind, method=method, trigger=str(trigger))
    daemon.program = (sys.executable, "-c", code)
    if method == "_follow_needs":  # which would start the app
        daemon.start()
        until(lambda: daemon.status()["models"]["cache_hub"]["stage"] == "linked", BACK_S, "the model to be linked")
    else:
        daemon.start_ready()
    trigger.touch()
    if method == "drain":
        assert daemon.stop() == 20
    else:
        assert daemon.wait_exit() == 20
    assert daemon.mounts() == []
    assert daemon.processes() == []
    assert not daemon.events("still mounted")
    assert daemon.events("mountd has stopped")
    (bug,) = daemon.until_events("bug in mountd: stopping in order")
    assert "KeyError: 'a bug'" in bug["exception"]
