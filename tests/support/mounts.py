"""Real rclone mounts that a test makes, stops and kills: all of them go at its end, whatever state they are in."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mountd.fuse import table
from mountd.fuse.watch import read_table
from tests.support.daemon import BUNDLED_RCLONE

SOON_S = 30.0
TOP = Path(__file__).parents[2]


@dataclass
class Mounts:
    """rclone mounts that a test makes; all of them go at its end, whatever state they are in."""

    tmp: Path
    processes: list[subprocess.Popen[bytes]]
    points: list[str]
    instance: str

    @property
    def source(self) -> str:
        return table.devname(self.instance, "x")

    def of(self, point: str) -> list[table.Entry]:
        return table.of_source(read_table(), self.source, point)

    def start(self, point: str, *, remote: str = "", more: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """A mount of a local directory with one file, or of `remote`, with `more` flags; back when mountinfo has it."""
        directory = self.tmp / "source"
        directory.mkdir(exist_ok=True)
        (directory / "file").write_bytes(b"data")
        Path(point).mkdir(exist_ok=True)
        before = len(self.of(point))
        self.points.append(point)
        named = ["--devname", self.source]
        own = ["--config", str(self.tmp / "rclone.conf"), "--cache-dir", str(self.tmp / "cache")]
        with (self.tmp / "rclone.log").open("ab") as log:
            process = subprocess.Popen(
                [str(BUNDLED_RCLONE), "mount", remote or str(directory), point, *named, *own, *more],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        self.processes.append(process)
        deadline = time.monotonic() + SOON_S
        while len(self.of(point)) == before:
            assert process.poll() is None, (self.tmp / "rclone.log").read_text()
            assert time.monotonic() < deadline, "rclone did not mount"
            time.sleep(0.01)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(SOON_S)
        for point in self.points:
            while self.of(point):
                subprocess.run(["umount", "-c", "-i", "-l", point], check=True, timeout=SOON_S)


@contextmanager
def mounting(tmp: Path) -> Iterator[Mounts]:
    mounts = Mounts(tmp, [], [], f"test-{uuid.uuid4().hex[:8]}")
    try:
        yield mounts
    finally:
        mounts.end()


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, f"not in {SOON_S} s: {what}"
        await asyncio.sleep(0.01)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(SOON_S)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
