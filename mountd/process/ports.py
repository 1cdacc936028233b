"""Who listens on a TCP port: read from /proc/net/tcp, which costs one small file, and the app's own descriptors."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

_LISTEN = "0A"
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket: its inode, and the user it belongs to."""

    port: int
    uid: int
    inode: int


def parse(text: str) -> list[Listener]:
    """The listening sockets of a table as in /proc/net/tcp, see proc_pid_net(5)."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN:
            found.append(Listener(int(fields[1].rpartition(":")[2], 16), int(fields[7]), int(fields[9])))
    return found


def listeners(port: int) -> list[Listener]:
    """Who listens on `port`, of whatever address, in this network namespace."""
    found: list[Listener] = []
    for table in _TABLES:
        try:
            with open(table, encoding="ascii") as file:
                found += parse(file.read())
        except OSError:
            continue  # no IPv6 here
    return [listener for listener in found if listener.port == port]


def belongs(found: Iterable[Listener], pids: Iterable[int], uid: int) -> bool:
    """Whether one of the sockets is held by one of the processes `pids`.

    Without CAP_SYS_PTRACE (root in most containers) the descriptors of another user's processes cannot be seen; then
    the socket's user decides. That no stranger listened there was seen before the app was started.
    """
    inodes = {f"socket:[{listener.inode}]" for listener in found}
    for pid in pids:
        try:
            for entry in os.scandir(f"/proc/{pid}/fd"):
                if os.readlink(entry.path) in inodes:
                    return True
        except PermissionError:
            if any(listener.uid == uid for listener in found):
                return True
        except OSError:
            continue  # it has ended meanwhile
    return False


def holder(port: int) -> str:
    """The program that listens on `port`, for people; looks at every process, so only when something is wrong."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return "another process"
