"""How far the kernel reads ahead in a mount: further once all that its models' apps read lies on local disk.

What is there is read 1.5 to 1.9 times as fast then, for rclone answers several requests at once. What is not would be
asked for in any order, and rclone begins a download for each: up to 1.9 times the bytes came (1.75.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from mountd.errors import cause_of
from mountd.fuse.table import Entry
from mountd.mount.health import Report
from mountd.settings.schema import ModelSettings
from mountd.status.board import Board
from mountd.status.snapshot import ModelStatus

FAR_KIB = 1024
"""A hub of 0.9 GB, all cached, was loaded in 5.1 s with 128, 3.9 s with 256, 2.8 s with 512, 2.6 s with 1024, and no
faster with 2048 or 4096 (1.75.2, medians of four loads in turns)."""
DEVICES = Path("/sys/class/bdi")

log = structlog.get_logger()


def is_all_here(mount: str, models: Mapping[str, ModelSettings], shown: Mapping[str, ModelStatus]) -> bool:
    """Whether the live versions that are read through `mount` have been loaded as a whole, and there is one."""
    read = [
        shown[name].level == "data" and not model.warm.only_opened
        for name, model in models.items()
        if model.mount == mount and name in shown and not shown[name].pinned
    ]
    return bool(read) and all(read)


@dataclass(slots=True, eq=False)
class ReadAhead:
    """Of one mount, while it runs. `entry`: that in the table of mounts; None, or OSError: not to be had now."""

    mount: str
    entry: Callable[[], Entry | None]
    models: Callable[[], Mapping[str, ModelSettings]]
    board: Board
    devices: Path = DEVICES

    async def run(self, _report: Report) -> None:
        """Of a mount that has just started. Until the kernel does not let it, as where mountd is not root or /sys is
        read-only; else until cancelled."""
        try:
            entry = self.entry()
            if entry is None:
                return
            file = self.devices / entry.device / "read_ahead_kb"
            now_kib = first_kib = int(await asyncio.to_thread(file.read_text, "ascii"))
            while True:
                is_far = is_all_here(self.mount, self.models(), self.board.snapshot.models)
                wanted_kib = max(FAR_KIB, first_kib) if is_far else first_kib
                if wanted_kib == now_kib:
                    await self.board.changed()
                    continue  # and once more after a write: the board may have changed meanwhile
                await asyncio.to_thread(file.write_text, str(wanted_kib), "ascii")
                now_kib = wanted_kib
                log.info("the kernel reads ahead", mount=self.mount, kib=now_kib)
        except (OSError, ValueError) as error:
            cause = cause_of(error) if isinstance(error, OSError) else str(error)
            log.debug("the kernel's read-ahead stays as it is", mount=self.mount, cause=cause)
