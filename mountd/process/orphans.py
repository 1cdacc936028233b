"""Kills orphans of a previous run, found by marks in their environment: `orphans.py INSTANCE [NAME [WORD…]]`.

A process of its own because reading another process's environment waits for that process's memory lock, which a reader
stuck on a hung mount may hold. Prints one line for each process, `PID COMMAND`. Only what carries the mark of the own
instance is ever touched, or provably came of what does; and neither the asker nor anything above it. Each WORD is about
those that do not show the mark:

- `uid=UID`: root without CAP_SYS_PTRACE, as in most containers, cannot read the environment of another user: then
  processes of UID count that have come loose from the daemon and were taken in by its parent, which is nobody else's
  either. UID must be nobody else's below this daemon.
- `loose=PID`: so does whatever else the daemon's parent PID took in and that has no mark of any instance: nothing else
  that runs could have left it. Never process 1, which takes in what anybody in the container leaves, nor a parent that
  had children before the daemon, such as `helper & exec mountd run` leaves to it.
- `PID:STARTED`: this one, seen below the marked process before it came loose.
- `list`: they are only printed, not killed.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

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


def environment_of(pid: int) -> set[bytes]:
    """Each `NAME=value` that it was started with. Raises OSError."""
    with open(f"/proc/{pid}/environ", "rb") as file:
        return set(file.read().split(b"\0"))


class Meant:
    """Processes of `instance`, and of `name`, by their mark; those of `name` also by what each word says."""

    def __init__(self, instance: str, name: str | None = None, *words: str) -> None:
        self.marks = {f"{INSTANCE}={instance}".encode()} | ({f"{NAME}={name}".encode()} if name is not None else set())
        given = {key: int(number) for key, _, number in (word.partition("=") for word in words) if number}
        self.uid, self.loose = given.get("uid"), given.get("loose")
        self.seen = {(int(pid), int(started)) for pid, _, started in (word.partition(":") for word in words) if started}

    def find(self) -> list[int]:
        spared = ancestors()
        pids = map(int, filter(str.isdigit, os.listdir("/proc")))
        return [pid for pid in pids if pid not in spared and self.includes(pid)]

    def includes(self, pid: int) -> bool:
        try:
            if self.marks <= environment_of(pid):
                return True
        except OSError:
            pass
        try:
            if self.seen and (pid, int(stat_fields(pid)[19])) in self.seen:
                return True
            return (self.loose is not None or self.uid is not None) and self._came_loose(pid)
        except OSError:
            return False

    def _came_loose(self, pid: int) -> bool:
        """Below the daemon's parent (the subreaper) but not below the daemon, and without any mark that can be read."""
        daemon = os.getppid()
        subreaper = int(stat_fields(daemon)[1])
        if subreaper <= 0 or pid == subreaper:
            return False
        uid = os.stat(f"/proc/{pid}").st_uid
        try:
            unmarked = not any(entry.startswith(f"{INSTANCE}=".encode()) for entry in environment_of(pid))
            known = unmarked and subreaper > 1 and subreaper == self.loose
        except PermissionError:
            known = self.uid is not None and uid == self.uid and uid != os.geteuid()
        if not known:
            return False
        began = int(stat_fields(daemon)[19])
        while pid not in (0, daemon, subreaper):
            fields = stat_fields(pid)
            if int(fields[19]) < began:
                return False  # older than the daemon: the process that started mountd started it
            pid = int(fields[1])
        return pid == subreaper


def alive(pid: int) -> bool:
    try:
        return stat_fields(pid)[0] not in ("Z", "X")
    except OSError:
        return False


def kill(pid: int, is_meant: Callable[[int], bool]) -> bool:
    """SIGKILL, if it is still meant when its number cannot pass to another process any more. Raises OSError."""
    fd = os.pidfd_open(pid)
    try:
        meant = is_meant(pid)
        if meant:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)
    return meant


def command_of(pid: int) -> str:
    """Its name on one line: each process chooses its own, and may choose line ends (PR_SET_NAME). Raises OSError."""
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace", newline="") as file:
        name = file.read().removesuffix("\n")
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in name)


def running(meant: Meant) -> list[tuple[int, str]]:
    found = []
    for pid in meant.find():
        try:
            if alive(pid):
                found.append((pid, command_of(pid)))
        except OSError:
            pass
    return sorted(found)


def end(meant: Meant) -> list[tuple[int, str]]:
    """SIGKILL to each, again for what they spawned meanwhile, until none is left or patience ends."""
    ended: dict[int, str] = {}
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        left = [pid for pid in meant.find() if alive(pid)]
        if not left:
            break
        for pid in left:
            try:
                command = command_of(pid)
                if kill(pid, meant.includes):
                    ended[pid] = command
            except OSError:
                pass
        time.sleep(0.02)
    return sorted(ended.items())


if __name__ == "__main__":
    for pid, command in (running if "list" in sys.argv[3:] else end)(Meant(*sys.argv[1:])):
        print(pid, command)
