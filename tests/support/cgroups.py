"""A cgroup of its own for a command, one below which none can be made, as in most containers; and what a killed daemon
leaves."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mountd.process import cgroup
from tests.support.wait import until


@contextlib.contextmanager
def without_cgroups() -> Iterator[tuple[str, ...]]:
    """Words before a command: below it nobody can make a cgroup."""
    parent = cgroup.own()
    barren = None if parent is None else parent / f"mountd-t-{secrets.token_hex(4)}"
    try:
        if barren is not None:
            barren.mkdir()
            (barren / "cgroup.max.descendants").write_text("0")
    except OSError:
        yield ()  # none can be made here anyway
        return
    try:
        yield () if barren is None else ("sh", "-c", f'echo 0 >{barren}/cgroup.procs && exec "$@"', "sh")
    finally:
        if barren is not None:
            cgroup.remove(barren)


@contextlib.contextmanager
def of_its_own() -> Iterator[tuple[str, ...]]:
    """Words before a command: what it makes below its cgroups is not what another one makes at the same names.

    In cgroup v2 and in systemd's hierarchy of v1, where they are here and can be written to.
    """
    made: list[Path] = []
    name = f"mountd-t-{secrets.token_hex(4)}"
    try:
        for parent in (cgroup.own(), _own_of_systemd()):
            if parent is not None:
                with contextlib.suppress(OSError):
                    (parent / name).mkdir()
                    made.append(parent / name)
        entered = "".join(f"echo 0 >{path}/cgroup.procs && " for path in made)
        yield ("sh", "-c", f'{entered}exec "$@"', "sh")
    finally:
        for path in made:
            with contextlib.suppress(AssertionError):
                until(partial(_is_empty, path), 60, "the processes of a cgroup to end")
            cgroup.remove(path)


def _own_of_systemd() -> Path | None:
    """That of this process in the hierarchy `name=systemd` of cgroup v1, where systemd keeps it."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    place = next((line.partition(":name=systemd:")[2] for line in lines if ":name=systemd:" in line), None)
    path = None if place is None else Path("/sys/fs/cgroup/systemd") / place.lstrip("/")
    return path if path is not None and path.is_dir() else None


def can_be_made() -> bool:
    made = cgroup.make(f"t{secrets.token_hex(4)}", "try")
    if made is not None:
        cgroup.remove(made)
    return made is not None


def _is_empty(group: Path) -> bool:
    return not cgroup.members(group)


def clear(instance: str) -> None:
    """What a killed daemon left."""
    parent = cgroup.own()
    for path in parent.glob(f"{cgroup.PREFIX}{instance}-*") if parent is not None else ():
        with contextlib.suppress(OSError):
            (path / "cgroup.kill").write_text("1")
            until(partial(_is_empty, path), 60, "the processes of a previous run to end")
        cgroup.remove(path)
