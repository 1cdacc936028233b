"""One child process: a session of its own, signalled as a group, awaited by its pidfd, its output kept in a ring."""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import os
import resource
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mountd.clock import now_text
from mountd.process import launch
from mountd.process.lines import Lines
from mountd.process.orphans import INSTANCE, NAME

DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)
"""The limit that mountd was started with; mountd raises its own, programs that use select() must not see that."""
READ_BYTES = 64 * 1024
FLOOD_LINES = 500
FLOOD_PAUSE_S = 0.04
RING_LINES = 2000
PREVIOUS_LINES = 500
"""What is kept of a child: 2,000 lines of at most 8 KiB, and 500 of the process before the one that runs."""
STATE_S = 1.0
"""How often followers hear of a line that is not ended, such as a progress bar."""
REAP_S = 1.0
"""A child that cannot be watched is killed, and is gone by then."""

_LAUNCHER = (sys.executable, "-I", "-S", launch.__file__)
_OF_LAUNCHER = (INSTANCE, NAME)
"""What of the child's environment is the launcher's as well: it is known by that from its first moment."""
_LINKER = "LD_LIBRARY_PATH"
"""Of mountd's own environment: its Python may need it, and the child's must not be tried on it."""
MOST_ANSWER = 100


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The program never ran: at which step of launch.py that failed, and why, in words."""

    step: str
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended: its code, or minus the number of the signal; that of the launcher, if `not_started`."""

    code: int
    not_started: NotStarted | None = field(default=None, compare=False)

    @property
    def obstacle(self) -> str | None:
        """Why the program never ran; "" when only the code says so, which a shell or the loader of its libraries ended
        with. None: it ran."""
        if self.not_started is not None:
            return self.not_started.text
        return "" if self.code in (launch.CANNOT_EXECUTE, launch.NOT_FOUND) else None

    def __str__(self) -> str:
        if self.not_started is not None:
            return self.not_started.text
        if self.code >= 0:
            return f"exit code {self.code}"
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-self.code).name}"
        return f"signal {-self.code}"


@dataclass(frozen=True, slots=True)
class Line:
    time: str
    text: str
    at: float
    """monotonic"""
    life: int
    """which process of its owner has said it: 1 the first"""


class Ring:
    """The last lines of a child, over all of its lives; followers hear of each new one."""

    def __init__(self, lines: int = RING_LINES) -> None:
        self.life = 0
        self._lines: deque[Line] = deque(maxlen=lines)
        self._previous: list[Line] = []
        self._state: Line | None = None
        self._state_since = self._state_told = 0.0
        self._followers: list[Callable[[Line], None]] = []

    def begin(self) -> None:
        """A new process of it is about to be started."""
        if self._state is not None:
            self._lines.append(self._state)
            self._state = None
        if self.life:
            self._previous = [line for line in self._lines if line.life == self.life][-PREVIOUS_LINES:]
        self.life += 1

    def append(self, text: str) -> None:
        self._state = None
        line = self._line(text)
        self._lines.append(line)
        self._tell(line)

    def show(self, state: str) -> None:
        """What stands in the line that is not ended; the next whole line takes its place.

        Followers hear of it when it was begun a while ago, as a progress bar is: many programs write the end of a
        line after the line, and each line would come twice.
        """
        before, self._state = self._state, self._line(state) if state else None
        if self._state is None:
            return
        now = self._state.at
        if before is None:
            self._state_since = now
        if now - max(self._state_since, self._state_told) >= STATE_S:
            self._state_told = now
            self._tell(self._state)

    def last(self, count: int, since_s: float | None = None) -> list[Line]:
        """At most so many, of the last `since_s` seconds."""
        lines = [*self._lines, *((self._state,) if self._state else ())]
        return _latest(lines, count, since_s)

    def previous(self, count: int, since_s: float | None = None) -> list[Line]:
        """As `last`, of the process before the one that was started last."""
        return _latest(self._previous, count, since_s)

    def _line(self, text: str) -> Line:
        return Line(now_text(), text, time.monotonic(), self.life)

    def _tell(self, line: Line) -> None:
        for follower in tuple(self._followers):
            follower(line)

    def follow(self, follower: Callable[[Line], None]) -> Callable[[], None]:
        """Calls `follower` with each new line until the returned function is called."""
        self._followers.append(follower)
        return lambda: self._followers.remove(follower)


def _latest(lines: Sequence[Line], count: int, since_s: float | None) -> list[Line]:
    since = None if since_s is None else time.monotonic() - since_s
    return [line for line in lines if since is None or line.at >= since][-count:] if count > 0 else []


class Child:
    """A running child. Made by `spawn`; `exit` is set once it has ended and was reaped."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        on_line: Callable[[str], None],
        flood_lines: int,
        order: _Order,
        on_state: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.pid = process.pid
        self.exit: Exit | None = None
        self._process = process
        self._order = order
        self._on_line = on_line
        self._on_state = on_state
        self._flood_lines = flood_lines
        self._ended = asyncio.Event()
        self._lines = Lines()
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

    def signal_alone(self, number: signal.Signals) -> bool:
        """To its own process, not to the group; False when that has ended. Raises OSError."""
        if self.exit is not None:
            return False
        os.kill(self.pid, number)  # not reaped yet, so the number is its own
        return True

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
        self.exit = Exit(code, self._order.take_answer())
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
            self.release()
            return
        if len(data) == READ_BYTES:
            self._pause()
        lines = self._lines.feed(data)
        if len(lines) > self._flood_lines:
            self._on_line(f"… {len(lines) - self._flood_lines} lines left out: too many at once")
            lines = lines[-self._flood_lines :]
        for line in lines:
            self._emit(line)
        self._on_state(self._lines.state.decode(errors="replace"))

    def _pause(self) -> None:
        """A child that floods us waits a moment, so that the loop need not: 1.6 MB/s of output is enough."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._output)
        loop.call_later(FLOOD_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._process.stdout is not None and not self._process.stdout.closed:
            asyncio.get_running_loop().add_reader(self._output, self._read)

    def _emit(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        if text.strip():
            self._on_line(text)

    def release(self) -> None:
        """Stop listening to its output; a grandchild that holds the pipe must not hold us."""
        if self._process.stdout is None or self._process.stdout.closed:
            return
        asyncio.get_running_loop().remove_reader(self._output)
        self._process.stdout.close()
        for line in self._lines.end():
            self._emit(line)


def spawn(
    argv: Sequence[str],
    environment: Mapping[str, str],
    on_line: Callable[[str], None],
    *,
    directory: str = "/",
    user: User | None = None,
    umask: int = -1,
    flood_lines: int = FLOOD_LINES,
    cgroup: Path | None = None,
    on_state: Callable[[str], None] = lambda _: None,
) -> Child:
    """Start `argv` in a new session with exactly `environment`; both its streams go to `on_line`.

    `on_state` hears what stands in a line that is not ended yet, also when that is written over.

    Without `umask` it has that of mountd. Of what comes at once, at most 64 KiB, only the last `flood_lines` lines are
    kept.

    Whatever signals mountd's own starter ignored or blocked, it begins with the default ones. `cgroup`: the directory
    of one that it is to be in. Where the program cannot be executed, or the directory not be entered, its Exit is
    `not_started`. Raises OSError when even the launcher cannot be started, or what was started cannot be watched; then
    it is ended again.
    """
    order = _Order(argv, environment, directory, user, cgroup)
    try:
        process = _launch(order, environment, umask)
    except BaseException:
        order.close()
        raise
    try:
        return Child(process, on_line, flood_lines, order, on_state)
    except BaseException:
        # Nobody would see it end, or end it.
        os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()
        order.close()
        asyncio.get_running_loop().call_later(REAP_S, process.poll)
        raise


def _launch(order: _Order, environment: Mapping[str, str], umask: int) -> subprocess.Popen[bytes]:
    own = {key: environment[key] for key in _OF_LAUNCHER if key in environment}
    if _LINKER in os.environ:
        own[_LINKER] = os.environ[_LINKER]
    # Until the launcher has made it the default one, a SIGINT would be answered by its Python with a traceback.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(
            [*_LAUNCHER, str(order.fd)],
            env=own,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(order.fd,),
            umask=umask,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _Order:
    """What the launcher is to do, and its answer. In memory, because an environment holds secrets."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        directory: str,
        user: User | None,
        cgroup: Path | None,
    ) -> None:
        self._program, self._directory, self._user = argv[0], directory, user
        words = [os.fsencode(word) for word in argv]
        variables = {os.fsencode(key): os.fsencode(value) for key, value in environment.items()}
        place = None if cgroup is None else os.fsencode(cgroup)
        who = None if user is None else (user.uid, user.gid, user.groups)
        data = marshal.dumps((words, variables, os.fsencode(directory), place, who, DESCRIPTORS))
        self.fd = os.memfd_create("mountd-order")
        try:
            while data:
                data = data[os.write(self.fd, data) :]
        except BaseException:
            self.close()
            raise

    def take_answer(self) -> NotStarted | None:
        """Once, when it has ended."""
        answer = os.pread(self.fd, MOST_ANSWER, 0)
        self.close()
        if not answer.startswith(launch.ANSWER):
            return None
        step, number = answer.removeprefix(launch.ANSWER).decode().split()
        cause = os.strerror(int(number)).lower()
        match step:
            case launch.USER:
                name = self._user.name if self._user else "?"
                return NotStarted(step, f"cannot become the user {name}: {cause}")
            case launch.DIRECTORY:
                return NotStarted(step, f"cannot enter {self._directory}: {cause}")
            case launch.INTERPRETER:
                return NotStarted(step, f"cannot execute {self._program}: the interpreter that it names does not exist")
            case launch.MISSING:
                return NotStarted(step, f"command not found: {self._program}")
        return NotStarted(step, f"cannot execute {self._program}: {cause}")

    def close(self) -> None:
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class User:
    """Who a child runs as: resolved before the fork, because name services can block."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
