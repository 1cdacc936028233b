"""Ends children of a former life, found by marks in their environment: `orphans.py INSTANCE [NAME [UID]]`.

A process of its own because reading another process's environment waits for that process's memory lock, which a reader
stuck on a hung mount may hold. Prints one line a process ended, `PID COMMAND`. Only what carries the mark of the own
instance is ever touched, and neither the asker nor anything above it. Root without CAP_SYS_PTRACE, as in most
containers, cannot read the environment of another user: then processes of UID count that have come loose from the
daemon and were taken in by its parent, which is nobody else's either. UID must be nobody else's below this daemon.
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
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
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


def came_loose(pid: int, uid: int) -> bool:
    """Of user `uid`, unreadable, and below the daemon's parent (the subreaper) but not below the daemon."""
    daemon = os.getppid()
    try:
        subreaper = int(stat_fields(daemon)[1])
        if uid == os.geteuid() or subreaper <= 0 or os.stat(f"/proc/{pid}").st_uid != uid:
            return False
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                file.read(1)
            return False
        except PermissionError:
            pass
        while pid not in (0, daemon, subreaper):
            pid = int(stat_fields(pid)[1])
    except OSError:
        return False
    return pid == subreaper


def is_meant(pid: int, instance: str, name: str | None, uid: int | None) -> bool:
    return marked(pid, instance, name) or (uid is not None and came_loose(pid, uid))


def find(instance: str, name: str | None, uid: int | None) -> list[int]:
    spared = ancestors()
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in pids if pid not in spared and is_meant(pid, instance, name, uid)]


def alive(pid: int) -> bool:
    try:
        return stat_fields(pid)[0] not in ("Z", "X")
    except OSError:
        return False


def end(instance: str, name: str | None = None, uid: int | None = None) -> list[tuple[int, str]]:
    """SIGKILL to each, again for what they spawned meanwhile, until none is left or patience ends."""
    ended: dict[int, str] = {}
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        left = [pid for pid in find(instance, name, uid) if alive(pid)]
        if not left:
            break
        for pid in left:
            try:
                fd = os.pidfd_open(pid)
            except OSError:
                continue
            try:
                # The number may have been given to another process since it was read: look again, holding it.
                if is_meant(pid, instance, name, uid):
                    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                        ended[pid] = file.read().strip()
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
            except OSError:
                pass
            finally:
                os.close(fd)
        time.sleep(0.02)
    return sorted(ended.items())


if __name__ == "__main__":
    words = sys.argv[1:]
    for pid, command in end(words[0], words[1] if words[1:] else None, int(words[2]) if words[2:] else None):
        print(pid, command)
