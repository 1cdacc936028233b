"""A wall clock that jumps, for one daemon alone.

Debian's libfaketime stands between mountd and the clock, and leaves the monotonic one alone. It is loaded into mountd's
own processes only: rclone, the app and the workers keep the machine's clock, which is never set.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.daemon import Daemon

HOUR_S = 3600
NEAR = timedelta(minutes=5)
# The library reads its variables all the time, so they stay; but nothing that mountd starts may load it. And what it
# shares with programs that are started, in /dev/shm, is left there by a process that is killed. A sleep until a moment
# of the monotonic clock, which is Python's, it takes for one of the wall clock (EINVAL): select() waits for a while.
UNLOADED = """
import glob, os, select, sys, time
time.sleep = lambda seconds: select.select((), (), (), seconds)
del os.environ["LD_PRELOAD"]
for path in glob.glob(f"/dev/shm/*faketime_s??_{os.getpid()}"):
    os.unlink(path)
from mountd.cli.main import main
sys.exit(main())
"""


def library() -> Path | None:
    """None where it is not installed."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


class Clock:
    """The wall clock of a daemon: the machine's, and an offset that may change while it runs."""

    def __init__(self, daemon: Daemon, library: Path) -> None:
        self.daemon = daemon
        self._file = daemon.root / "offset"
        self.offset = timedelta()
        self.jump(0)
        daemon.program = (sys.executable, "-c", UNLOADED)
        daemon.environment |= {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def jump(self, offset_s: int) -> None:
        """At once: the file is replaced as a whole."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{offset_s:+d}\n")
        written.replace(self._file)
        self.offset = timedelta(seconds=offset_s)

    def shows(self, text: str) -> bool:
        """Whether a timestamp of mountd is of the time that its clock shows now."""
        return abs(datetime.fromisoformat(text) - datetime.now(UTC) - self.offset) < NEAR
