"""The listening sockets of the API: made, or why they cannot be."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from pathlib import Path

from mountd.errors import Busy, MountdError, cause_of
from mountd.process import directories, ports, tool
from mountd.settings.http import HttpSettings
from mountd.settings.schema import ControlSettings

QUEUE = 1024
"""Connections that wait to be accepted."""
PROBE_S = 1.0
GROUP_LIMIT_S = 30.0
"""For a directory service, which may be slow."""
Identity = tuple[int, int]


def identity(path: Path) -> Identity:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


async def find_group(control: ControlSettings) -> int | None:
    """The id of the group that may use the socket. Raises MountdError, also without an answer in GROUP_LIMIT_S."""
    if control.group is None:
        return None
    failure = f"cannot open {control.socket} to the group {control.group}"
    try:
        gid = await tool.find_group(control.group, timeout_s=GROUP_LIMIT_S)
    except MountdError as error:
        hint = f"see that `getent group {control.group}` answers: the directory service of the machine may be down"
        raise MountdError(f"{failure}: {error.text}", hint=hint) from None
    if gid is None:
        hint = f"create it (groupadd --system {control.group}) or remove control.group"
        raise MountdError(f"{failure}: no such group", hint=hint)
    return gid


def bind_unix(place: Path, gid: int | None = None) -> socket.socket:
    """Listens at `place`, with mode 0660 and the group `gid`, if any. Raises Busy, MountdError."""
    path = str(place)
    hint = "set control.socket to a path you may write"
    try:
        directories.make(place.parent, 0o755)  # the group must get to the socket
    except OSError as error:
        cause = cause_of(error)
        raise MountdError(f"cannot create the directory {place.parent}: {cause}", hint=hint) from None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o117)  # 0660 from the first moment on
    try:
        _make_room(path)
        sock.bind(path)
        if gid is not None:
            os.chown(path, -1, gid, follow_symlinks=False)
    except OSError as error:
        sock.close()
        raise MountdError(f"cannot listen on {path}: {cause_of(error)}", hint=hint) from None
    except MountdError:
        sock.close()
        raise
    finally:
        os.umask(mask)
    sock.listen(QUEUE)
    return sock


def _make_room(path: str) -> None:
    """Removes a socket that no process serves; anything else stays. Raises MountdError, Busy, OSError."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    hint = "move it away, or set control.socket to another path"
    if not stat.S_ISSOCK(mode):
        raise MountdError(f"cannot listen on {path}: what is there is not a socket", hint=hint)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            # A socket of another kind, or of a program that is too busy to accept: in use all the same.
            if error.errno in (errno.EPROTOTYPE, errno.EACCES):
                cause = "it is the socket of another program" if error.errno == errno.EPROTOTYPE else "it is not ours"
                raise MountdError(f"cannot listen on {path}: {cause}", hint=hint) from None
    raise Busy(f"cannot listen on {path}: another mountd answers there", hint="give this one another control.socket")


def bind_tcp(host: str, port: int) -> socket.socket:
    """Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))  # an empty host is every address
        sock.listen(QUEUE)
    except OSError:
        sock.close()
        raise
    return sock


async def cannot_listen(http: HttpSettings, error: OSError) -> MountdError:
    cause = cause_of(error)
    if error.errno == errno.EADDRINUSE:  # all processes are looked at for that
        cause = f"the port is taken by {await asyncio.to_thread(ports.holder, http.address[1])}"
    host, port = http.address
    text = f"cannot listen on {host}:{port}: {cause}"
    return MountdError(text, hint="set http.listen to a free port, such as 127.0.0.1:8781")
