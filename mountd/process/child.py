"""One child process: a session of its own, signalled as a group, awaited by its pidfd, its output kept in a ring."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)
"""The limit that mountd was started with; mountd raises its own, programs that use select() must not see that."""
READ_BYTES = 64 * 1024
FLOOD_LINES = 500
FLOOD_PAUSE_S = 0.04
RING_LINES = 2000
LINE_BYTES = 8192
"""What is kept of a child: 2,000 lines of at most 8 KiB; a longer line is cut."""
REAP_S = 1.0
"""A child that cannot be watched is killed, and is gone by then."""

# The directory is entered, and the program looked up, after this first exec: a chdir or an exec on a mount that hangs
# must hang a child that can be killed, not the fork inside the daemon.
# Not a shell: that would drop variables whose names are no shell names.
_LAUNCH = ("/usr/bin/env", "-C")
CANNOT_ENTER = 125
"""What the launcher exits with when it cannot enter the directory; 126 and 127 are about the program."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended: its code, or minus the number of the signal."""

    code: int

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exit code {self.code}"
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-self.code).name}"
        return f"signal {-self.code}"


@dataclass(frozen=True, slots=True)
class Line:
    time: str
    text: str


class Ring:
    """The last lines of a child, over all of its lives; followers hear of each new one."""

    def __init__(self, lines: int = RING_LINES) -> None:
        self._lines: deque[Line] = deque(maxlen=lines)
        self._followers: list[Callable[[Line], None]] = []

    def append(self, text: str) -> None:
        line = Line(datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"), text)
        self._lines.append(line)
        for follower in tuple(self._followers):
            follower(line)

    def last(self, count: int) -> list[Line]:
        return list(self._lines)[-count:] if count > 0 else []

    def follow(self, follower: Callable[[Line], None]) -> Callable[[], None]:
        """Calls `follower` with each new line until the returned function is called."""
        self._followers.append(follower)
        return lambda: self._followers.remove(follower)


class Child:
    """A running child. Made by `spawn`; `exit` is set once it has ended and was reaped."""

    def __init__(self, process: subprocess.Popen[bytes], on_line: Callable[[str], None], flood_lines: int) -> None:
        self.pid = process.pid
        self.started = time.monotonic()
        self.exit: Exit | None = None
        self._process = process
        self._on_line = on_line
        self._flood_lines = flood_lines
        self._ended = asyncio.Event()
        self._partial = b""
        self._skipping = False
        assert process.stdout is not None
        self._output = process.stdout.fileno()
        os.set_blocking(self._output, False)
        loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(process.pid)
        try:
            loop.add_reader(self._pidfd, self._reap)
            loop.add_reader(self._output, self._read)
        except OSError:
            loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            raise

    async def wait(self) -> Exit:
        await self._ended.wait()
        assert self.exit is not None
        return self.exit

    def signal(self, number: signal.Signals) -> None:
        """To the whole process group; silent when it is gone."""
        # Its number is kept for the group as long as that has a member: a process of this number is somebody else.
        if self.exit is not None and os.path.exists(f"/proc/{self.pid}"):
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _reap(self) -> None:
        code = self._process.poll()
        if code is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._read()  # what it said last is often the reason
        self.exit = Exit(code)
        self._ended.set()

    def _read(self) -> None:
        if self._process.stdout is None or self._process.stdout.closed:
            return  # the number of its descriptor may by now be another's
        try:
            data = os.read(self._output, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close_output()
            return
        if len(data) == READ_BYTES:
            self._pause()
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(lines) > self._flood_lines:
            self._on_line(f"… {len(lines) - self._flood_lines} lines left out: too many at once")
            lines = lines[-self._flood_lines :]
        for line in lines:
            if not self._skipping:
                self._emit(line)
            self._skipping = False
        if len(self._partial) > LINE_BYTES:
            if not self._skipping:
                self._emit(self._partial)
            self._partial, self._skipping = b"", True

    def _pause(self) -> None:
        """A child that floods us waits a moment, so that the loop need not: 1.6 MB/s of output is enough."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._output)
        loop.call_later(FLOOD_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._process.stdout is not None and not self._process.stdout.closed:
            asyncio.get_running_loop().add_reader(self._output, self._read)

    def _emit(self, line: bytes) -> None:
        text = line[:LINE_BYTES].decode(errors="replace").rstrip("\r")
        if text:
            self._on_line(text)

    def _close_output(self) -> None:
        if self._process.stdout is None or self._process.stdout.closed:
            return
        asyncio.get_running_loop().remove_reader(self._output)
        self._process.stdout.close()
        if self._partial and not self._skipping:
            self._emit(self._partial)
        self._partial = b""

    def release(self) -> None:
        """Stop listening to its output; a grandchild that holds the pipe must not hold us."""
        self._close_output()


def spawn(
    argv: Sequence[str],
    environment: Mapping[str, str],
    on_line: Callable[[str], None],
    *,
    directory: str = "/",
    user: User | None = None,
    flood_lines: int = FLOOD_LINES,
) -> Child:
    """Start `argv` in a new session with exactly `environment`; both its streams go to `on_line`.

    Of what comes at once, at most 64 KiB, only the last `flood_lines` lines are kept.

    A program that does not exist exits 127, a directory that cannot be entered 126. Raises OSError when even the
    launcher cannot be started, or what was started cannot be watched; then it is ended again.
    """
    process = subprocess.Popen(
        [*_LAUNCH, directory, "--", *argv],
        env=dict(environment),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=user.groups if user else None,
    )
    with contextlib.suppress(OSError):
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, DESCRIPTORS)
    try:
        return Child(process, on_line, flood_lines)
    except BaseException:
        # Nobody would see it end, or end it.
        os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()
        asyncio.get_running_loop().call_later(REAP_S, process.poll)
        raise


@dataclass(frozen=True, slots=True)
class User:
    """Who a child runs as: resolved before the fork, because name services can block."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
