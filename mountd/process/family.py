"""Who comes from whom: the processes of this machine with their parents, and all that came of some of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mountd.process.orphans import stat_fields


@dataclass(frozen=True, slots=True)
class Process:
    """`started` distinguishes it from a later one of the same number."""

    parent: int
    started: int


def table() -> dict[int, Process]:
    return {pid: process for pid in _pids() if (process := _process(pid)) is not None}


def of(pids: Iterable[int]) -> set[tuple[int, int]]:
    """(pid, started) of those that live."""
    return {(pid, process.started) for pid in pids if (process := _process(pid)) is not None}


def _pids() -> Iterable[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def _process(pid: int) -> Process | None:
    try:
        fields = stat_fields(pid)
    except OSError:
        return None  # it has ended meanwhile
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
