"""Threads of our apps that wait for a disk and get nowhere: the readers that no beat sees.

Reads only what the kernel answers without asking any file system: `stat`, `status` and `children` in /proc, and the
names (not the targets) of open files. Nothing that takes a stuck process's memory lock, as `cmdline` and `maps` do.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator

MAX_PROCESSES = 256
MAX_THREADS = 4096
_SWITCHES = re.compile(r"^(?:non)?voluntary_ctxt_switches:\s+(\d+)$", re.MULTILINE)


def waiting(roots: Iterable[int], path: str) -> frozenset[str]:
    """`pid/tid/switches` of each thread that waits for a file system, in those of the processes `roots` and their
    descendants that have a file below `path` open. The same key at two looks: the thread has not run in between."""
    found = set()
    for pid in _tree(roots):
        stuck = [key for tid in _threads(pid) if (key := _stuck(pid, tid))]
        if stuck and _uses(pid, path):
            found.update(stuck)
    return frozenset(found)


def _tree(roots: Iterable[int]) -> Iterator[int]:
    queue, seen = [*roots], set[int]()
    while queue and len(seen) < MAX_PROCESSES:
        pid = queue.pop()
        if pid in seen:
            continue
        seen.add(pid)
        yield pid
        for tid in _threads(pid):
            with contextlib.suppress(OSError):
                queue += map(int, _read(f"/proc/{pid}/task/{tid}/children").split())


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")][:MAX_THREADS]
    except OSError:
        return []  # gone meanwhile


def _stuck(pid: int, tid: int) -> str:
    try:
        state = _read(f"/proc/{pid}/task/{tid}/stat").rpartition(")")[2].split()[0]
        if state != "D" and "request_wait_answer" not in _read(f"/proc/{pid}/task/{tid}/wchan"):
            return ""  # a page that FUSE fetches is awaited in D, an answer to open or readdir in S, but in there
        switches = sum(map(int, _SWITCHES.findall(_read(f"/proc/{pid}/task/{tid}/status"))))
    except (OSError, IndexError):
        return ""
    return f"{pid}/{tid}/{switches}"


def _uses(pid: int, path: str) -> bool:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for name in names:
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/{name}").startswith(f"{path}/"):
                return True
    return False


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read(65536)
