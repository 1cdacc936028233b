"""A place where no cgroup can be made, as in most containers; and what a killed daemon leaves."""

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
            until(partial(_is_empty, path), 10, "the processes of a previous run to end")
        cgroup.remove(path)
