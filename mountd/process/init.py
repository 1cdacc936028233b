"""The parent of the daemon: child subreaper, forwards signals, reaps everything, and leaves nothing behind.

A process that runs asyncio must not `waitpid(-1)`: it steals the exit codes of its own children. So mountd forks before
anything heavy is imported; the child becomes the daemon and this small parent does what an init does, not only as PID 1
of a container: what an app detaches with setsid is reparented here and ends here.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from mountd.journald import for_stderr
from mountd.process import family
from mountd.text import printable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
LEFTOVER_PATIENCE_S = 5.0
LAST_PATIENCE_S = 5.0
"""For a daemon that has said with which code it ends: a thread that waits in the kernel for a disk holds it there."""
_parent: tuple[int, int] | None = None
"""Of the daemon: the process that forked it, and the descriptor on which it receives the exit code."""
_parent_had_children = False


def fork_daemon(daemon: Callable[[], int]) -> int:
    """Run `daemon` in a child and look after it. Returns its exit code, or 128 + the signal that ended it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    watched = {*FORWARDED, signal.SIGCHLD}
    # Nothing may be lost between the fork and the first wait; and what means nothing here must not end it.
    signal.pthread_sigmask(signal.SIG_BLOCK, watched | {signal.SIGUSR1, signal.SIGUSR2})
    _reset_ignored()
    parent = os.getpid()
    _reap()  # what has ended can leave nothing behind any more
    before = _children()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    pid = os.fork()
    if pid == 0:
        global _parent, _parent_had_children
        _parent, _parent_had_children = (parent, writer), bool(before)
        os.setsid()  # a Ctrl-C reaches the daemon once, through the parent
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _run_and_exit(daemon)
    os.close(writer)
    while True:
        received = signal.sigwait(watched)
        if received == signal.SIGCHLD:
            code = _reap(pid)
            if code is None:
                with contextlib.suppress(BlockingIOError):
                    if said := os.read(reader, 1):
                        code = _reap_at_last(pid, said[0])
            if code is not None:
                _end_leftovers(before)
                return code
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, received)


def _reset_ignored() -> None:
    """Signals that the starting process ignores (`nohup`, `mountd run &` in a script) mean here what they always do.

    SIGHUP is a reload, since no terminal's end reaches the daemon, and SIGCHLD says that a child has ended.
    """
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN and number not in _IGNORED_BY_PYTHON:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _run_and_exit(daemon: Callable[[], int]) -> None:
    code = 20
    try:
        code = daemon()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        shown = printable(traceback.format_exc().rstrip(), keep="\n\t")
        print(for_stderr(shown), file=sys.stderr)  # the next line ends the process
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        leave(code)


def subreaper() -> int | None:
    """Of the daemon: its parent, to which falls what the daemon's children leave, and nothing else does.

    None when the parent had children before the daemon, which survive an exec: a script may start a helper and then
    `exec mountd run`. What those leave falls to the parent as well.
    """
    alone = _parent is not None and os.getppid() == _parent[0] and not _parent_had_children
    return os.getppid() if alone else None


def leave(code: int) -> NoReturn:
    """Ends the daemon at once, from any of its threads. It does not wait for one that is held in the kernel: the
    parent gets the code, and exits without it."""
    if _parent is not None and os.getppid() == _parent[0]:
        with contextlib.suppress(OSError):
            os.write(_parent[1], bytes([code & 0xFF]))
            os.kill(_parent[0], signal.SIGCHLD)
    os._exit(code)


def _reap_at_last(main: int, said: int) -> int:
    """The exit code of `main`, by its word when it does not end."""
    deadline = time.monotonic() + LAST_PATIENCE_S
    while time.monotonic() < deadline:
        code = _reap(main)
        if code is not None:
            return code
        time.sleep(0.01)
    warning = f"mountd: exiting without the daemon ({main}): it has stopped, but the kernel holds it"
    with contextlib.suppress(OSError):
        print(for_stderr(warning, "warning"), file=sys.stderr)
    return said


def _reap(main: int | None = None) -> int | None:
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


def _children() -> set[tuple[int, int]]:
    """(pid, started) of each."""
    me = os.getpid()
    return {(pid, each.started) for pid, each in family.table().items() if each.parent == me}


def _end_leftovers(before: set[tuple[int, int]]) -> None:
    """SIGKILL whatever the daemon left, and what that leaves in turn; bounded, because D state ignores SIGKILL.

    `before`: children from before the daemon, which go on.
    """
    deadline = time.monotonic() + LEFTOVER_PATIENCE_S
    while time.monotonic() < deadline and (left := _children() - before):
        for pid, _ in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        _reap()
        time.sleep(0.01)
