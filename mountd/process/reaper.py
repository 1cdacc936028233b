"""The daemon's parent at work: forwards signals, reaps what has ended, and ends what the daemon leaves.

Run as `python -I -S reaper.py PID READER KNOWN [WORD…]`, see `main`. It is there for as long as the daemon is, so it
knows little more than the standard library.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Set as AbstractSet
from typing import NoReturn

if __name__ == "__main__":
    sys.path.append(__file__.removesuffix("/mountd/process/reaper.py"))

from mountd.journald import for_stderr
from mountd.process import family

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
WATCHED = frozenset({*FORWARDED, signal.SIGCHLD})
"""All of them are blocked in the calling thread: they are waited for."""
LEFTOVER_PATIENCE_S = 5.0
LAST_PATIENCE_S = 5.0
"""For a daemon that has said with which code it ends: a thread that waits in the kernel for a disk holds it there."""


def main() -> NoReturn:
    """PID and READER: `daemon` and `reader` of `look_after`; KNOWN: its `before`, as `PID:STARTED,…`."""
    _, daemon, reader, known, *_ = sys.argv
    pairs = (each.partition(":") for each in known.split(",") if each)
    before = {(int(pid), int(started)) for pid, _, started in pairs}
    sys.exit(look_after(int(daemon), int(reader), before))


def look_after(daemon: int, reader: int, before: AbstractSet[tuple[int, int]]) -> int:
    """Until the child `daemon` ends. Returns its exit code, or 128 + the signal that ended it.

    `reader`: does not block; the daemon writes a byte there, its exit code, when it is about to end. `before`: children
    (pid, started) from before the daemon, which go on.
    """
    while True:
        received = signal.sigwait(WATCHED)
        if received == signal.SIGCHLD:
            code = reap(daemon)
            if code is None:
                with contextlib.suppress(BlockingIOError):
                    if said := os.read(reader, 1):
                        code = _reap_at_last(daemon, said[0])
            if code is not None:
                _end_leftovers(before)
                return code
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon, received)


def _reap_at_last(main: int, said: int) -> int:
    """The exit code of `main`, by its word when it does not end."""
    deadline = time.monotonic() + LAST_PATIENCE_S
    while time.monotonic() < deadline:
        code = reap(main)
        if code is not None:
            return code
        time.sleep(0.01)
    warning = f"mountd: exiting without the daemon ({main}): it has stopped, but the kernel holds it"
    with contextlib.suppress(OSError):
        print(for_stderr(warning, "warning"), file=sys.stderr)
    return said


def reap(main: int | None = None) -> int | None:
    """Reap whatever has ended; the exit code of `main` when it is among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == main:
            ended = os.waitstatus_to_exitcode(status)
            code = ended if ended >= 0 else 128 - ended


def children() -> set[tuple[int, int]]:
    """(pid, started) of each."""
    me = os.getpid()
    return {(pid, each.started) for pid, each in family.table().items() if each.parent == me}


def _end_leftovers(before: AbstractSet[tuple[int, int]]) -> None:
    """SIGKILL whatever the daemon left, and what that leaves in turn; bounded, because D state ignores SIGKILL.

    `before`: children from before the daemon, which go on.
    """
    deadline = time.monotonic() + LEFTOVER_PATIENCE_S
    while time.monotonic() < deadline and (left := children() - before):
        for pid, _ in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        reap()
        time.sleep(0.01)


if __name__ == "__main__":
    main()
