"""Watches directories for the files that are opened in them, in a process that may be killed: JSON lines.

Run as `python -I -S -X utf8 opens_worker.py` with one stream as stdin and stdout; ends with that stream. It reads one
line, `{"root": "/mnt/x/hub_v23", "directories": ["models", ""]}`, and answers once these are watched, with the kernel's
errno when not all of them are: `{"watched": 2, "unwatched": 0, "errno": 0}`. Then it writes a line for each open of a
file, whoever opens it: `{"path": "models/gpt.pth", "order": 1, "at": 812.5, "count": 1}`, where `order` numbers the
files, `at` is monotonic and `count` numbers the opens of this file. Of these the first few are reported; what the
kernel saw twice in a row before it was read here counts once. `{"lost": true}`: there were more opens or files than can
be followed. `{"gone": true}`: what is watched was unmounted.

To watch a directory is to look it up, which touches the mount. After that nothing here does. inotify needs ctypes,
which is most of the start time.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Sequence

IN_OPEN, IN_UNMOUNT, IN_Q_OVERFLOW = 0x20, 0x2000, 0x4000
IN_ONLYDIR, IN_ISDIR = 0x0100_0000, 0x4000_0000
HEAD = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
BUFFER_BYTES = 64 * 1024
MOST_DIRECTORIES = 8192
"""The kernel gives each about 1 KiB, and a user 8,192 of them where it gives the fewest."""
MOST_FILES = 20_000
MOST_OPENS = 8
"""of one file that are reported"""


class Notify:
    """inotify, as the kernel has it."""

    def __init__(self) -> None:
        """Raises OSError."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._add: Callable[[int, bytes, int], int] = libc.inotify_add_watch
        self.descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            raise _error()

    def watch(self, directory: str) -> int:
        """The number of the watch. Raises OSError."""
        number = self._add(self.descriptor, os.fsencode(directory), IN_OPEN | IN_ONLYDIR)
        if number < 0:
            raise _error()
        return number


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


class Watched:
    """What is watched, and what was opened there."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._directories: dict[int, str] = {}
        self._opens: dict[str, list[int]] = {}
        """path → its order, its count"""
        self._is_lost = False

    def begin(self, root: str, directories: Sequence[str]) -> dict[str, object]:
        """Watches them in order, as far as it can."""
        failure = 0
        for directory in directories[:MOST_DIRECTORIES]:
            try:
                number = self._notify.watch(f"{root}/{directory}" if directory else root)
            except OSError as error:
                failure = error.errno or errno.EIO
                if failure == errno.ENOSPC:
                    break  # no user has more watches; the others would fail as well
            else:
                self._directories[number] = f"{directory}/" if directory else ""
        watched = len(self._directories)
        return {"watched": watched, "unwatched": len(directories) - watched, "errno": failure}

    def take(self, data: bytes) -> list[dict[str, object]]:
        """Events of the kernel → what is to be reported."""
        now, at = time.monotonic(), 0
        found: list[dict[str, object]] = []
        while at + HEAD.size <= len(data):
            number, mask, _, length = HEAD.unpack_from(data, at)
            name = data[at + HEAD.size : at + HEAD.size + length].rstrip(b"\0")
            at += HEAD.size + length
            if mask & IN_UNMOUNT:
                found.append({"gone": True})
            elif mask & IN_Q_OVERFLOW:
                found.append({"lost": True})
            elif mask & IN_OPEN and not mask & IN_ISDIR and name and number in self._directories:
                found += self._opened(self._directories[number] + os.fsdecode(name), now)
        return found

    def _opened(self, path: str, now: float) -> list[dict[str, object]]:
        known = self._opens.get(path)
        if known is None:
            if len(self._opens) >= MOST_FILES:
                was_lost, self._is_lost = self._is_lost, True
                return [] if was_lost else [{"lost": True}]
            known = self._opens[path] = [len(self._opens) + 1, 0]
        known[1] += 1
        if known[1] > MOST_OPENS:
            return []
        return [{"path": path, "order": known[0], "at": now, "count": known[1]}]


def say(*lines: dict[str, object]) -> None:
    text = "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines)
    sys.stdout.buffer.write(text.encode("ascii"))
    sys.stdout.buffer.flush()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the daemon's to handle
    try:
        request = json.loads(sys.stdin.buffer.readline())
        try:
            notify = Notify()
        except OSError as error:
            say({"watched": 0, "unwatched": len(request["directories"]), "errno": error.errno})
            return
        watched = Watched(notify)
        say(watched.begin(request["root"], request["directories"]))
        follow(notify.descriptor, watched)
    except (ConnectionError, ValueError):
        pass  # nobody is left to report to


def follow(descriptor: int, watched: Watched) -> None:
    """Until the end of stdin."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.register(0, select.POLLIN)
    while True:
        ready = {number for number, _ in poll.poll()}
        if descriptor in ready and (found := watched.take(os.read(descriptor, BUFFER_BYTES))):
            say(*found)
        if 0 in ready and not os.read(0, 4096):
            return


if __name__ == "__main__":
    main()
    os._exit(0)  # nothing to tidy up
