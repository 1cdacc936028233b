"""mountd as process 1 of a PID namespace, with mounts and a /proc of its own, as in a container."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil

from tests.support import dies_with_us
from tests.support.daemon import STOP_S, Daemon
from tests.support.wait import until

NEW_PID_NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--")
ORPHANS = 1000
# Becomes the words after its own. Before, it leaves grandchildren whose parents end first: process 1 takes each in, and
# must reap it.
ORPHANING = f"""\
import os, sys
for _ in range({ORPHANS}):
    if os.fork() == 0:
        if os.fork() == 0:
            while os.getppid() != 1:
                pass
        os._exit(0)
    os.wait()
print("orphans left", flush=True)
os.execv(sys.argv[1], sys.argv[1:])
"""


def zombies(process: psutil.Process) -> list[int]:
    """Those below `process` that nobody has reaped."""
    found = []
    for each in process.children(recursive=True):
        try:
            if each.status() == psutil.STATUS_ZOMBIE:
                found.append(each.pid)
        except psutil.NoSuchProcess:
            continue
    return found


class ProcessOne(Daemon):
    """A daemon that is process 1 of a PID namespace, with mounts and a /proc of its own, as in a container."""

    holder: subprocess.Popen[bytes] | None = None

    @property
    def init(self) -> psutil.Process:
        assert self.process is not None
        (init,) = psutil.Process(self.process.pid).children()
        return init

    def hold_mounts(self) -> None:
        """Keep its mount namespace, so that what it left mounted can be seen after its end."""
        words = ["nsenter", f"--mount=/proc/{self.init.pid}/ns/mnt", "sleep", "600"]
        self.holder = holder = subprocess.Popen(dies_with_us(words), cwd="/")
        until(lambda: Path(f"/proc/{holder.pid}/comm").read_text() == "sleep\n", 60, "nsenter")

    def mounts(self) -> list[str]:
        if self.holder is None:
            return super().mounts()
        table = Path(f"/proc/{self.holder.pid}/mountinfo").read_text()
        return [line.split()[4] for line in table.splitlines() if line.split()[4].startswith(f"{self.seen_root}/")]

    @property
    def seen_root(self) -> str:
        """Its directory, as its mount namespace shows it outside of its root."""
        return str(self.root)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """`unshare` itself ignores the signal; its child is process 1, whose exit code it hands on."""
        assert self.process is not None
        os.kill(self.init.pid, number)
        return self.wait_exit(STOP_S)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()  # and with it, by --kill-child, all of the namespace
            self.process.wait()
            self.process = None
        if self.holder is not None:
            self.holder.kill()
            self.holder.wait()
            self.holder = None
        super().close()
