"""Limits of an app's cgroup: of its memory and its processors.

The kernel gives controllers to the cgroups below one only while no process is in that itself. So mountd, its parent and
its children move into a cgroup beside those of the apps, once a limit is asked for.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mountd.process import cgroup, family

PERIOD_US = 100_000
TRIES = 5
"""What is forked meanwhile is moved the next time."""
NO_LIMIT = "max"


def apply(path: Path, *, memory_bytes: int | None, cpus: float | None) -> str:
    """To the app's cgroup at `path`, also while the app runs → why it cannot be done, "" when it is."""
    wanted = {
        "memory.max": NO_LIMIT if memory_bytes is None else str(memory_bytes),
        "cpu.max": f"{NO_LIMIT if cpus is None else round(cpus * PERIOD_US)} {PERIOD_US}",
    }
    needed = {name for name, limit in (("memory", memory_bytes), ("cpu", cpus)) if limit is not None}
    try:
        if needed and (why_not := _enable(path.parent, needed)):
            return why_not
        for name, value in wanted.items():
            if (path / name).exists():
                (path / name).write_text(value)
        if (path / "memory.oom.group").exists():
            (path / "memory.oom.group").write_text("1" if memory_bytes is not None else "0")  # it ends whole
    except OSError as error:
        return f"{error.filename or path}: {(error.strerror or str(error)).lower()}"
    return ""


def ran_out_of_memory(path: Path) -> bool:
    """Whether the kernel has ended something in it for that."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        events = dict(line.split() for line in (path / "memory.events").read_text().splitlines())
        return int(events.get("oom_kill", 0)) > 0
    return False


def machine_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _enable(parent: Path, needed: set[str]) -> str:
    """The controllers, for the cgroups below `parent`. Raises OSError."""
    lacking = needed - set((parent / "cgroup.controllers").read_text().split())
    if lacking:
        return f"no {' and no '.join(sorted(lacking))} controller of cgroup v2 is passed to {parent}"
    control = parent / "cgroup.subtree_control"
    missing = sorted(needed - set(control.read_text().split()))
    if not missing:
        return ""
    words = " ".join(f"+{name}" for name in missing)
    for left in reversed(range(TRIES)):
        _move_own(parent)
        try:
            control.write_text(words)
        except OSError as error:
            others = _strangers(parent)
            if others:
                return f"other processes than mountd's are in its cgroup {parent}: {others[:5]}"
            if not left:
                raise error
        else:
            return ""
    raise AssertionError


def _own() -> set[int]:
    """This process, its parent that reaps for it, and all that came of it."""
    me = os.getpid()
    parent = os.getppid()
    own = {pid for pid, _ in family.descendants(family.of(me), family.table())}
    return own | {me, parent}


def _move_own(parent: Path) -> None:
    """Raises OSError where none can be made."""
    leaf = parent / cgroup.SELF
    leaf.mkdir(exist_ok=True)
    own = _own()
    for pid in _procs(parent):
        if pid in own:
            with contextlib.suppress(ProcessLookupError):
                (leaf / "cgroup.procs").write_text(str(pid))


def _strangers(parent: Path) -> list[int]:
    own = _own()
    return [pid for pid in _procs(parent) if pid not in own]


def _procs(parent: Path) -> list[int]:
    return [int(word) for word in (parent / "cgroup.procs").read_text().split()]
