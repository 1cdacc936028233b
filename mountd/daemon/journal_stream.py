"""Entries for systemd's journal in its own protocol: the line that people read, and each key as a field of its own.

`journalctl MOUNTD_MOUNT=storage` finds what was logged of that mount. The protocol is that of systemd's page "Native
Journal Protocol": a datagram of fields, or one that passes a sealed memfd where it would be too large.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import struct
from collections.abc import Mapping
from typing import Any, TextIO

from mountd.journald import PRIORITIES, prefixed
from mountd.text import printable

IDENTIFIER = "mountd"
LONGEST_NAME = 64
_TOO_LARGE = (errno.EMSGSIZE, errno.ENOBUFS)
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def fields(event: Mapping[str, Any], level: str, message: str) -> dict[str, str]:
    """`message`: the line of the event. Each of its keys becomes MOUNTD_KEY, its phrase MOUNTD_EVENT."""
    found = {
        "MESSAGE": message,
        "PRIORITY": str(PRIORITIES.get(level, PRIORITIES["error"])),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
    }
    for key, value in event.items():
        if key in ("level", "exception") or value is None:
            continue
        name = re.sub("[^A-Z0-9]", "_", f"MOUNTD_{key}".upper())[:LONGEST_NAME]
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        found[name] = printable(text, keep="\n\t")
    return found


def encode(entry: Mapping[str, str]) -> bytes:
    """A value of several lines comes with its length, so that none forges a field."""
    data = bytearray()
    for name, value in entry.items():
        raw = value.encode("utf-8", "backslashreplace")
        if b"\n" in raw:
            data += name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
        else:
            data += name.encode() + b"=" + raw + b"\n"
    return bytes(data)


class JournalStream:
    """What the thread of the log writes to: entries go to the journal's socket, lines to stderr, which leads to the
    journal as well. So does an entry that the socket does not take."""

    def __init__(self, address: str, stderr: TextIO) -> None:
        self._address = address
        self._stderr = stderr
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def write(self, text: str | Mapping[str, str]) -> None:
        """Waits as long as the journal does not read. Raises OSError, ValueError."""
        if isinstance(text, str):
            self._stderr.write(text)
            return
        data = encode(text)
        try:
            self._send(data)
        except OSError:
            level = next(name for name, number in PRIORITIES.items() if str(number) == text["PRIORITY"])
            self._stderr.write(prefixed(f"{text['MESSAGE']}\n", level))

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, self._address)
        except OSError as error:
            if error.errno not in _TOO_LARGE:
                raise
            self._send_file(data)

    def _send_file(self, data: bytes) -> None:
        fd = os.memfd_create("mountd-log", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            while data:
                data = data[os.write(fd, data) :]
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
            self._socket.sendmsg([], [rights], 0, self._address)
        finally:
            os.close(fd)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stderr.flush()
