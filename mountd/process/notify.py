"""sd_notify in both directions: ours to systemd, and a private socket on which each child reports to us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

MAX_MESSAGE_BYTES = 4096
MAX_UNSENT = 20
REPLACED = frozenset({"STATUS", "WATCHDOG"})
"""By the next of their kind, while they are unsent."""


class Notifier:
    """Tells systemd; silent when nobody listens. A message that cannot be taken now goes with the next ones, in order:
    without its READY=1 a unit would stay "activating" for ever."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self.watchdog_s: float | None = None
        self._unsent: deque[tuple[frozenset[str], bytes]] = deque(maxlen=MAX_UNSENT)
        if environment.get("WATCHDOG_USEC", "").isdigit():
            self.watchdog_s = int(environment["WATCHDOG_USEC"]) / 1_000_000

    def send(self, **fields: str | int) -> None:
        """`send(READY=1, STATUS="…")` → one datagram, values on one line each."""
        if not self._address:
            return
        text = "\n".join(f"{key}={' '.join(str(value).split())}" for key, value in fields.items())
        if len(fields) == 1 and fields.keys() <= REPLACED:
            self._unsent = deque((each for each in self._unsent if each[0] != fields.keys()), MAX_UNSENT)
        self._unsent.append((frozenset(fields), text.encode("utf-8", "backslashreplace")))
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.setblocking(False)
            while self._unsent:
                sock.sendto(self._unsent[0][1], address)
                self._unsent.popleft()

    def send_reloading(self) -> None:
        """What `Type=notify-reload` waits for after its SIGHUP; READY=1 must follow. The time is CLOCK_MONOTONIC's."""
        self.send(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)


class ReadySocket:
    """A datagram socket at `path` (in a private directory) on which one child says READY=1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ready = asyncio.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._socket.bind(str(path))
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            if b"READY=1" in self._socket.recv(MAX_MESSAGE_BYTES).splitlines():
                self._ready.set()

    async def wait(self) -> None:
        await self._ready.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)
