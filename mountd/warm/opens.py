"""Which files below a directory are opened, in order, as a process of its own sees them; and which opens are our own.

The process can be killed: to watch a directory touches its mount. One that does not go at once is left behind, and
reaped when its end comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mountd.errors import DiskError, DiskTimeout, ProbeNotSent, cause_of
from mountd.files.client import shown
from mountd.files.worker_process import MINIMAL_ENVIRONMENT
from mountd.warm.access import FileOpens

WORKER = Path(__file__).with_name("opens_worker.py")
LINE_LIMIT = 256 * 1024
"""Bytes; the longest path is 4,096, each of them six at most."""
CLOSE_LIMIT_S = 1.0
MOST_NOTES = 20_000
NOTES_OF_A_FILE = 8


class OwnOpens:
    """What mountd's own readers open on mounts and in pinned versions, so that it does not count as the app's."""

    def __init__(self) -> None:
        self._noted: dict[str, deque[float]] = {}

    def note(self, path: str, at: float | None = None) -> None:
        """Just before each open of the file at this absolute path; `at` (monotonic) when that was not now."""
        times = self._noted.pop(path, None) or deque(maxlen=NOTES_OF_A_FILE)
        times.append(time.monotonic() if at is None else at)
        self._noted[path] = times
        if len(self._noted) > MOST_NOTES:
            del self._noted[next(iter(self._noted))]

    def of(self, path: str, since: float) -> list[float]:
        """When it was noted (monotonic), from `since` on."""
        return [at for at in self._noted.get(path, ()) if at >= since]


class Opens:
    """What is opened from `start` to `close` in `directories`, which are relative to `root`."""

    def __init__(
        self,
        root: str,
        directories: Sequence[str],
        environment: Mapping[str, str],
        *,
        on_open: Callable[[str], None] = lambda _: None,
    ) -> None:
        """The process gets `environment` besides PATH and LANG: put the marker for orphans in it.

        `on_open` is called with the path below `root` at each open that is reported.
        """
        self.seen: dict[str, FileOpens] = {}
        """by path below `root`, in the order of the first opens"""
        self.partial = False
        """some directories could not be watched, or some opens were lost"""
        self.broken = False
        """the process has ended by itself, or what it watched was unmounted"""
        self._root = root
        self._directories = directories
        self._environment = {**MINIMAL_ENVIRONMENT, **environment}
        self._on_open = on_open
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of its process, also of one that was killed and is still there; None: there is none."""
        return self._process.pid if self._process is not None and not self._gone.is_set() else None

    async def start(self, limit_s: float) -> None:
        """Returns once it watches. Raises DiskTimeout, DiskError, and ProbeNotSent when there is no process to ask."""
        touch = f"watch {shown(self._root)}"
        try:
            reader, writer = await self._spawn()
        except OSError as error:
            raise ProbeNotSent(f"cannot {touch}: cannot start a process for it: {cause_of(error)}") from None
        request = {"root": self._root, "directories": [*self._directories]}
        try:
            async with asyncio.timeout(limit_s):
                writer.write(json.dumps(request).encode("ascii") + b"\n")
                await writer.drain()
                answer = json.loads(await reader.readline() or b"null")
        except TimeoutError:
            raise DiskTimeout(f"cannot {touch}: no answer in {limit_s:g} s") from None
        except (ConnectionError, ValueError):
            answer = None
        if answer is None:
            raise ProbeNotSent(f"cannot {touch}: the process for it has ended")
        if not answer["watched"]:
            number = answer["errno"]
            raise DiskError(f"cannot {touch}: {os.strerror(number).lower()}", hint=_HINT, errno=number)
        self.partial = answer["unwatched"] > 0
        self._reading = asyncio.create_task(self._read(reader), name=f"opens below {shown(self._root)}")

    async def close(self) -> None:
        """Ends the process, and waits for that about 1 s at most; afterwards `pid` is that of one left behind."""
        if self._reading is not None:
            self._reading.cancel()
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self._gone.wait()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError, ValueError):
            while (line := await reader.readline()).endswith(b"\n"):
                self._take(json.loads(line))
        self.broken = True

    def _take(self, report: Mapping[str, object]) -> None:
        match report:
            case {"path": str(path), "at": float(at), "count": int(count)}:
                opens = self.seen.setdefault(path, FileOpens())
                opens.times.append(at)
                opens.count = count
                self._on_open(path)
            case {"gone": True}:
                self.broken = True
            case _:
                self.partial = True

    async def _spawn(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises OSError."""
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            with theirs:
                reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_LIMIT)
                undo.callback(writer.close)
                process = _worker(theirs.fileno(), self._environment)
            undo.callback(_drop, process)
            self._pidfd = os.pidfd_open(process.pid)
            self._process, self._writer = process, writer
            asyncio.get_running_loop().add_reader(self._pidfd, self._reap)
            undo.pop_all()
        return reader, writer

    def _reap(self) -> None:
        assert self._process is not None
        assert self._writer is not None
        if self._process.poll() is not None:
            self._gone.set()
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._writer.close()


_HINT = "`sysctl fs.inotify` shows how many directories a user may watch"


def _worker(stream: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-X", "utf8", str(WORKER)],
        stdin=stream,
        stdout=stream,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=environment,
        start_new_session=True,
    )


def _drop(process: subprocess.Popen[bytes]) -> None:
    """Ends one that nobody watches."""
    process.kill()
    asyncio.get_running_loop().call_later(CLOSE_LIMIT_S, process.poll)  # no zombie stays
