"""mountinfo's change events: the table of mounts, read now and again whenever the kernel says that it changed.

Reading mountinfo never touches a mounted file system. An event comes within 2 ms of a mount or unmount (tried on Linux
6.18); a killed FUSE server alone changes nothing here, its mount stays until it is unmounted.
"""

from __future__ import annotations

import asyncio
import io
import select
import threading
from collections.abc import AsyncGenerator
from functools import cache

from mountd.fuse.table import Entry, parse

MOUNTINFO = "/proc/self/mountinfo"
MACHINE = "/proc/1/mountinfo"
"""Of the machine; in a container, of that."""


def read_table(source: str = MOUNTINFO, mount_point: str = "") -> tuple[Entry, ...]:
    """What is mounted now, in this process's mount namespace or in that of MACHINE. Raises OSError for the latter.

    `mount_point`: what is mounted there is enough, see `parse`.
    """
    with io.FileIO(source) as mountinfo:
        return _read(mountinfo, mount_point)


def known_table(mount_point: str = "") -> tuple[Entry, ...]:
    """As `read_table` of this process's mount namespace, for callers that ask each second: read only when a mount has
    come or gone since. That a mount becomes shared is no such change. Raises OSError when it cannot be opened."""
    return parse(_known().text(), mount_point)


class _Known:
    def __init__(self) -> None:
        self._mountinfo = io.FileIO(MOUNTINFO)
        self._changes = select.poll()
        self._changes.register(self._mountinfo, select.POLLPRI | select.POLLERR)
        self._lock = threading.Lock()
        self._text = ""

    def text(self) -> str:
        with self._lock:
            # The kernel reports a change once to each open file. Asked before reading, so that one in between is seen
            # the next time.
            if self._changes.poll(0) or not self._text:
                self._text = _text(self._mountinfo)
            return self._text


_known = cache(_Known)


def _read(mountinfo: io.FileIO, mount_point: str = "") -> tuple[Entry, ...]:
    return parse(_text(mountinfo), mount_point)


def _text(mountinfo: io.FileIO) -> str:
    mountinfo.seek(0)
    return mountinfo.read().decode("utf-8", "surrogateescape")


async def tables(mount_point: str = "") -> AsyncGenerator[tuple[Entry, ...], None]:
    """The table now, and again after each change; several changes may come as one, and there may be none. To be closed.
    `mount_point` as in `read_table`.

    A change that has nothing to do with mountd counts too: the caller compares.
    """
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    # An epoll of its own, since the loop's would ask for EPOLLIN, which mountinfo always has.
    with io.FileIO(MOUNTINFO) as mountinfo, select.epoll() as epoll:
        epoll.register(mountinfo, select.EPOLLPRI | select.EPOLLERR)
        loop.add_reader(epoll.fileno(), changed.set)
        try:
            while True:
                yield _read(mountinfo, mount_point)
                await changed.wait()
                changed.clear()
                # Being woken is the event. The loop's own poll of this epoll may already have consumed it, so that an
                # empty answer here means nothing; asking takes the item off the ready list, so that the loop is not
                # woken for ever.
                epoll.poll(0)
        finally:
            loop.remove_reader(epoll.fileno())
