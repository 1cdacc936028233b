"""The machine that figures belong to, and what a process of it holds; no names."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path


def describe(rclone: Path) -> dict[str, str]:
    """`text` is one line for people."""
    version = subprocess.run([rclone, "version"], capture_output=True, text=True, check=True, timeout=20).stdout
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    found = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": str(os.cpu_count()),
        "memory": f"{gib:.0f} GiB",
        "rclone": version.splitlines()[0].removeprefix("rclone "),
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    words = "{kernel}, {cpus} CPUs, {memory}, rclone {rclone}, Python {python}, load average {load} at the start"
    return {**found, "text": words.format(**found)}


def pss_bytes(pids: Iterable[int]) -> int:
    """Memory that these processes hold, what they share with others in proportion; those that are gone hold none."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
            total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total * 1024


def cpu_s(pids: Iterable[int]) -> float:
    """What these processes, and those children of theirs that they have waited for, have used: user and system."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            ticks += sum(map(int, text.rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")
