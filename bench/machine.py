"""The machine that figures belong to, and what a process of it holds; no names."""

from __future__ import annotations

import os
import platform
import subprocess
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
