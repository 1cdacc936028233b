"""What a daemon holds: processes, mounts, descriptors, threads and memory."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from tests.support.daemon import Daemon
from tests.support.machine import children

POOL_THREADS = min(32, (os.cpu_count() or 1) + 4)
"""asyncio's pool starts its threads one by one, when all others are busy, and never has more than this."""
KINDS = {"rclone\0mount": "rclone", "files/worker.py": "worker", "webui.py": "app"}


@dataclass(frozen=True, slots=True)
class Census:
    """`descriptors`, `threads` and `memory_bytes` are the daemon's own; `below` are all of its descendants, by kind."""

    mounts: int
    descriptors: int
    threads: int
    memory_bytes: int
    below: dict[str, int] = field(default_factory=dict)

    def least(self, other: Self) -> Census:
        """What both have: the rest is not held for long."""
        figures = {key: min(value, getattr(other, key)) for key, value in asdict(self).items() if key != "below"}
        return Census(**figures, below=dict(Counter(self.below) & Counter(other.below)))

    def more_than(self, before: Self, memory_share: float) -> list[str]:
        """What there is more of; empty when there is nothing."""
        found = [
            f"{getattr(self, name)} {name}, {getattr(before, name)} before"
            for name, more in (("mounts", 0), ("descriptors", 0), ("threads", POOL_THREADS))
            if getattr(self, name) > getattr(before, name) + more
        ]
        found += [
            f"{count} more {kind} processes" for kind, count in (Counter(self.below) - Counter(before.below)).items()
        ]
        if self.memory_bytes > before.memory_bytes * (1 + memory_share):
            found.append(f"{self.memory_bytes} bytes of memory, {before.memory_bytes} before")
        return found

    def shown(self) -> list[tuple[str, str]]:
        """Name and figure, for a table."""
        return [
            ("processes", str(sum(self.below.values()))),
            *((f"  {kind}", str(self.below.get(kind, 0))) for kind in sorted(KINDS.values())),
            ("mounts", str(self.mounts)),
            ("descriptors", str(self.descriptors)),
            ("threads", str(self.threads)),
            ("memory (RSS)", f"{self.memory_bytes / 1024**2:.1f} MiB"),
        ]


def take(daemon: Daemon, pid: int) -> Census:
    """`pid` is that of the daemon itself, as its status says."""
    below = Counter(_kind(child) for child in {*children(pid, all_below=True), *daemon.processes()} - {pid})
    with open(f"/proc/{pid}/statm", encoding="utf-8") as file:
        pages = int(file.read().split()[1])
    return Census(
        mounts=len(daemon.mounts()),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=len(os.listdir(f"/proc/{pid}/task")),
        memory_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
        below=dict(below),
    )


def _kind(pid: int) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        return next((kind for mark, kind in KINDS.items() if mark in words), "other")
    return "gone"
