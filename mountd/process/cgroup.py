"""A cgroup for each app, where one can be made: whatever the app starts is in it, and all of that ends with it.

Where: cgroup v2, below the cgroup of the daemon; under systemd with `Delegate=yes`, in a container whose /sys/fs/cgroup
is writable. Its files are the kernel's own, so that no look at them waits for a disk or another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from mountd.process.orphans import command_of, kill

log = structlog.get_logger()

PATIENCE_S = 3.0
LOOK_S = 0.01
PREFIX = "mountd-"
SELF = "mountd.self"
"""That of mountd beside those of its apps, where these have limits (see `cgroup_limits.py`)."""


def own() -> Path | None:
    """The directory of the cgroup that is mountd's: the one that this process is in, or above SELF."""
    try:
        lines = _read(Path("/proc/self/cgroup")).splitlines()
        table = _read(Path("/proc/self/mountinfo")).splitlines()
    except OSError:
        return None
    found = find(lines, table)
    return found.parent if found is not None and found.name == SELF else found


def find(cgroups: list[str], mounts: list[str]) -> Path | None:
    """By the lines of /proc/PID/cgroup and /proc/PID/mountinfo; see cgroups(7) and proc_pid_mountinfo(5)."""
    place = next((line.removeprefix("0::") for line in cgroups if line.startswith("0::/")), None)
    if place is None:
        return None
    for line in mounts:
        fields, _, more = line.partition(" - ")
        root, mount_point = fields.split()[3:5]
        if more.split()[:1] != ["cgroup2"]:
            continue
        # Another namespace's is written with `/..`: what lies above the mount's root cannot be reached through it.
        if root in ("/", place) or place.startswith(f"{root}/"):
            below = place if root == "/" else place.removeprefix(root)
            if ".." not in below.split("/"):
                return Path(mount_point) / below.lstrip("/")
    return None


def make(instance: str, name: str) -> Path | None:
    """That of the app `name`, empty; None where it cannot be had."""
    parent = own()
    if parent is None:
        return None
    path = parent / f"{PREFIX}{instance}-{name}"
    try:
        path.mkdir(exist_ok=True)
    except OSError:
        return None
    # A process may be moved by who may write to both, and to what they have in common.
    if all(os.access(each / "cgroup.procs", os.W_OK) for each in (parent, path)):
        return path
    remove(path)
    return None


def members(path: Path) -> list[int]:
    """Who is in it, and below."""
    found: list[int] = []
    for each in _tree(path):
        with contextlib.suppress(OSError, ValueError):
            found += map(int, _read(each / "cgroup.procs").split())
    return found


async def end(path: Path) -> list[str]:
    """SIGKILL to all of it, and to what that spawns meanwhile; `PID COMMAND` of each. The cgroup is removed."""
    ended: dict[int, str] = {}
    deadline = time.monotonic() + PATIENCE_S
    while pids := members(path):
        ended.update((pid, _command(pid)) for pid in pids if pid not in ended)
        _kill(path, pids)
        if time.monotonic() >= deadline:
            log.warning("what is left is stuck in the kernel", cgroup=str(path), pids=pids[:20])
            break
        await asyncio.sleep(LOOK_S)
    remove(path)
    return [f"{pid} {command}" for pid, command in sorted(ended.items())]


async def end_all(instance: str) -> list[str]:
    """As `end`, of every app of this instance: orphans of a previous run."""
    parent = own()
    if parent is None:
        return []
    ended = []
    with contextlib.suppress(OSError):
        for path in sorted(parent.glob(f"{PREFIX}{instance}-*")):
            ended += await end(path)
    return ended


def remove(path: Path) -> None:
    """It and what the app made below it; one that is not empty stays."""
    for each in reversed(list(_tree(path))):
        with contextlib.suppress(OSError):
            each.rmdir()


def _tree(path: Path) -> Iterator[Path]:
    for directory, _, _ in os.walk(path):
        yield Path(directory)


def _kill(path: Path, pids: list[int]) -> None:
    try:
        (path / "cgroup.kill").write_text("1")  # all at once; Linux 5.14
    except OSError:
        for pid in pids:
            with contextlib.suppress(OSError):
                kill(pid, lambda pid: pid in members(path))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return command_of(pid)
    return "?"
