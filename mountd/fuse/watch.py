"""mountinfo's change events: the table of mounts, read now and again whenever the kernel says that it changed.

Reading mountinfo never touches a mounted file system. An event comes within 2 ms of a mount or unmount (tried on Linux
6.18); a killed FUSE server alone changes nothing here, its mount stays until it is unmounted.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable

from mountd.fuse.table import Entry, parse

MOUNTINFO = "/proc/self/mountinfo"
MACHINE = "/proc/1/mountinfo"
"""Of the machine; in a container, of that."""
_PIECE = 256 * 1024


def read_table(source: str = MOUNTINFO) -> tuple[Entry, ...]:
    """What is mounted now, in this process's mount namespace or in that of MACHINE. Raises OSError for the latter."""
    handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read(handle)
    finally:
        os.close(handle)


def _read(handle: int) -> tuple[Entry, ...]:
    os.lseek(handle, 0, os.SEEK_SET)
    pieces = []
    while piece := os.read(handle, _PIECE):
        pieces.append(piece)
    return parse(b"".join(pieces).decode("utf-8", "surrogateescape"))


class TableWatch:
    """Calls `changed` in the event loop with the new table after each change; several changes may come as one.

    A change that has nothing to do with mountd calls too: the caller compares. No call for the state at `start()`.
    """

    def __init__(self, changed: Callable[[tuple[Entry, ...]], None]) -> None:
        self._changed = changed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mountinfo = -1
        self._epoll: select.epoll | None = None

    def start(self) -> None:
        """Inside a running loop. Changes after this call are reported; read the table after it, not before."""
        if self._epoll is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._mountinfo = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        # An epoll of its own, since the loop's would ask for EPOLLIN, which mountinfo always has.
        self._epoll = select.epoll()
        self._epoll.register(self._mountinfo, select.EPOLLPRI | select.EPOLLERR)
        self._loop.add_reader(self._epoll.fileno(), self._woken)

    def close(self) -> None:
        if self._epoll is None or self._loop is None:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        os.close(self._mountinfo)
        self._epoll, self._mountinfo = None, -1

    def _woken(self) -> None:
        if self._epoll is None:
            return
        # Being woken is the event. The loop's own poll of this epoll may already have consumed it, so that an empty
        # answer here means nothing; asking takes the item off the ready list, so that the loop is not woken for ever.
        self._epoll.poll(0)
        self._changed(_read(self._mountinfo))
