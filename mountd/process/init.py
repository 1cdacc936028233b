"""Gives the daemon a parent: a child subreaper that forwards signals, reaps everything, and leaves nothing behind.

A process that runs asyncio must not `waitpid(-1)`: it steals the exit codes of its own children. So mountd forks before
anything heavy is imported; the child becomes the daemon and its small parent (reaper.py) does what an init does, not
only as PID 1 of a container: what an app detaches with setsid is reparented there and ends there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import NoReturn

from mountd.journald import for_stderr
from mountd.process import reaper
from mountd.text import printable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_parent: tuple[int, int] | None = None
"""Of the daemon: the process that forked it, and the descriptor on which it receives the exit code."""
_parent_had_children = False


def fork_daemon(daemon: Callable[[], int]) -> int:
    """Run `daemon` in a child and look after it. Returns its exit code, or 128 + the signal that ended it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    watched = reaper.WATCHED
    # Nothing may be lost between the fork and the first wait; and what means nothing here must not end it.
    signal.pthread_sigmask(signal.SIG_BLOCK, watched | {signal.SIGUSR1, signal.SIGUSR2})
    _reset_ignored()
    parent = os.getpid()
    reaper.reap()  # what has ended can leave nothing behind any more
    before = reaper.children()
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
    _become_reaper(pid, reader, before)
    return reaper.look_after(pid, reader, before)


def _become_reaper(daemon: int, reader: int, before: Iterable[tuple[int, int]]) -> None:
    """A new interpreter in this process, with the same children and blocked signals: what was imported for the command
    line is 6 MB that a parent does not need. Returns when it cannot be started.

    The words of the command stay at the end, for who looks for `mountd run` among processes.
    """
    known = ",".join(f"{pid}:{started}" for pid, started in before)
    words = [sys.executable, "-I", "-S", "-X", "utf8", reaper.__file__, str(daemon), str(reader), known]
    os.set_inheritable(reader, True)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    with contextlib.suppress(OSError):
        os.execv(sys.executable, [*words, *sys.argv])  # noqa: S606 (no shell is wanted)


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
