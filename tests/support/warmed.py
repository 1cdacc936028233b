"""Files of a version that a test warms, and what it hears meanwhile."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from mountd.warm.plan import WantedFile
from mountd.warm.results import WarmProgress

MIB = 1024 * 1024
NAMES = ("models/gpt.pth", "models/s2mel.pth", "config.yaml", "empty", "音色 #1/with space.bin")
SIZES = (20 * MIB + 123, 3 * MIB, 2_882, 0, 70_001)


def make_version(directory: Path) -> list[WantedFile]:
    """Files of several sizes below `directory`, and what a manifest says of them."""
    files = []
    for name, size in zip(NAMES, SIZES, strict=True):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
        files.append(wanted(directory, name))
    return files


def wanted(directory: Path, name: str) -> WantedFile:
    content = (directory / name).read_bytes()
    return WantedFile(name, len(content), hashlib.sha256(content).hexdigest())


class Heard:
    """What was reported."""

    def __init__(self) -> None:
        self.reports: list[WarmProgress] = []

    def __call__(self, progress: WarmProgress) -> None:
        self.reports.append(progress)

    @property
    def last(self) -> WarmProgress:
        return self.reports[-1]

    @property
    def bytes_done(self) -> int:
        return self.last.bytes_done if self.reports else 0

    def options(self, **more: Any) -> dict[str, Any]:
        return {"environment": {"MOUNTD_INSTANCE": "test-warm"}, "patience_s": 60.0, "report": self, **more}
