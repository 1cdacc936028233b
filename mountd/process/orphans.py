"""Ends children of a former life, found by marks in their environment: `python -I -S orphans.py INSTANCE [NAME]`.

A process of its own because reading another process's environment waits for that process's memory lock, which a reader
stuck on a hung mount may hold. Prints one line a process ended, `PID COMMAND`. Only what carries the mark of the own
instance is ever touched, and neither the asker nor anything above it.
"""

import os
import signal
import sys
import time

INSTANCE = "MOUNTD_INSTANCE"
NAME = "MOUNTD_NAME"
PATIENCE_S = 3.0


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command, which may itself hold spaces and brackets."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def ancestors() -> set[int]:
    found = set()
    pid = os.getpid()
    while pid > 0:
        found.add(pid)
        try:
            pid = int(stat_fields(pid)[1])
        except OSError:
            break
    return found


def marked(pid: int, instance: str, name: str | None) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return False
    if f"{INSTANCE}={instance}".encode() not in entries:
        return False
    return name is None or f"{NAME}={name}".encode() in entries


def find(instance: str, name: str | None) -> list[int]:
    spared = ancestors()
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in pids if pid not in spared and marked(pid, instance, name)]


def alive(pid: int) -> bool:
    try:
        return stat_fields(pid)[0] not in ("Z", "X")
    except OSError:
        return False


def end(instance: str, name: str | None) -> list[tuple[int, str]]:
    """SIGKILL to each, again for what they spawned meanwhile, until none is left or patience ends."""
    ended: dict[int, str] = {}
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        left = [pid for pid in find(instance, name) if alive(pid)]
        if not left:
            break
        for pid in left:
            try:
                fd = os.pidfd_open(pid)
            except OSError:
                continue
            try:
                # The number may have been given to another process since it was read: look again, holding it.
                if marked(pid, instance, name):
                    with open(f"/proc/{pid}/comm") as file:
                        ended[pid] = file.read().strip()
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            except OSError:
                pass
            finally:
                os.close(fd)
        time.sleep(0.02)
    return sorted(ended.items())


if __name__ == "__main__":
    for pid, command in end(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None):
        print(pid, command)
