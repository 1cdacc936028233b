"""Who is at the other end of the control socket."""

from __future__ import annotations

import pwd
import socket
import struct
from dataclasses import dataclass

_UCRED = struct.Struct("3i")
_NO_LOGIN = 4294967295


@dataclass(frozen=True, slots=True)
class Peer:
    uid: int
    pid: int

    @classmethod
    def of(cls, sock: socket.socket) -> Peer:
        """By SO_PEERCRED: what the kernel says, not what the caller says."""
        pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return cls(uid, pid)

    def operator(self) -> str:
        """The user's name, with the login behind it when it came through sudo: `alice (as root)`."""
        user = _name(self.uid)
        login = _login_uid(self.pid)
        return user if login in (None, self.uid) else f"{_name(login)} (as {user})"


def _login_uid(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/loginuid") as file:
            uid = int(file.read())
    except (OSError, ValueError):
        return None
    return None if uid == _NO_LOGIN else uid


def _name(uid: int | None) -> str:
    if uid is None:
        return "unknown"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
