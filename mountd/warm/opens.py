"""Which files below a directory are opened, in order, as a process of its own sees them; and which opens are our own.

The process can be killed: to watch a directory touches its mount. One that does not go at once is left behind, and
reaped when its end comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mountd.errors import DiskError, DiskTimeout, ProbeNotSent, cause_of
from mountd.files.client import shown
from mountd.files.worker_process import MINIMAL_ENVIRONMENT, WorkerProcess
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
        self._worker: WorkerProcess | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of its process, also of one that was killed and is still there; None: there is none."""
        worker = self._worker
        return worker.process.pid if worker is not None and not worker.gone.is_set() else None

    async def start(self, limit_s: float) -> None:
        """Returns once it watches. Raises DiskTimeout, DiskError, and ProbeNotSent when there is no process to ask."""
        touch = f"watch {shown(self._root)}"
        try:
            worker = self._worker = await WorkerProcess.start(WORKER, self._environment, longest_line=LINE_LIMIT)
        except OSError as error:
            raise ProbeNotSent(f"cannot {touch}: cannot start a process for it: {cause_of(error)}") from None
        request = {"root": self._root, "directories": [*self._directories]}
        try:
            async with asyncio.timeout(limit_s):
                worker.send(request)
                await worker.writer.drain()
                answer = json.loads(await worker.reader.readline() or b"null")
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
        self._reading = asyncio.create_task(self._read(worker.reader), name=f"opens below {shown(self._root)}")

    async def close(self) -> None:
        """Ends the process, and waits for that about 1 s at most; afterwards `pid` is that of one left behind."""
        if self._reading is not None:
            self._reading.cancel()
        if self._worker is not None:
            self._worker.kill()
            await self._worker.is_gone(CLOSE_LIMIT_S)

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


_HINT = "`sysctl fs.inotify` shows how many directories a user may watch"
