"""Who comes from whom: the processes of this machine with their parents, and all that came of some of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mountd.process.orphans import stat_fields


class Process(NamedTuple):
    """`started` distinguishes it from a later one of the same number."""

    parent: int
    started: int


def table() -> dict[int, Process]:
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended, or a sandbox shows less of it
            found[pid] = _process(pid)
    return found


def of(pid: int) -> set[tuple[int, int]]:
    """(pid, started), if it lives."""
    with contextlib.suppress(OSError):
        return {(pid, _process(pid).started)}
    return set()


def _process(pid: int) -> Process:
    fields = stat_fields(pid)
    return Process(int(fields[1]), int(fields[19]))


def descendants(known: Iterable[tuple[int, int]], now: Mapping[int, Process]) -> set[tuple[int, int]]:
    """Those of `known`, each (pid, started), that still live, and all that came of them, as `table` is `now`."""
    children: dict[int, list[int]] = {}
    for pid, process in now.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[tuple[int, int]] = set()
    waiting = [(pid, started) for pid, started in known if pid in now and now[pid].started == started]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += [(pid, now[pid].started) for pid in children.get(one[0], ())]
    return found
