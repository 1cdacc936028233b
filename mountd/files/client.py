"""Asks the files worker with a deadline; a worker that misses one is killed and, once it is gone, replaced.

This is the only way the daemon touches a mounted path. SIGKILL frees a worker only while the file system has not yet
read its request; otherwise it stays in the kernel until the file system answers or its connection is aborted. So a
killed worker counts as *stuck* until its exit is seen, no second one is started meanwhile, and nothing waits for it.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from mountd.errors import DiskError, DiskTimeout, ProbeNotSent, cause_of
from mountd.files.worker_process import EXIT_GRACE_S, MINIMAL_ENVIRONMENT, WorkerProcess

WORKER = Path(__file__).with_name("worker.py")
READ_LIMIT = 16 * 1024 * 1024  # bytes a call; the worker refuses more
HASH_PIECE = 2 * 1024 * 1024
ATTEMPTS = 3
"""A worker that was replaced in between hashes a file, or walks a directory, from its start again."""
WALK_PIECE = 2000
"""Files: through a mount that knows them some 80 ms."""
ANSWER_LIMIT = 32 * 1024 * 1024  # bytes a line; holds the largest read in base64
CLOSE_LIMIT_S = 1.0
IDLE_S = 60.0
"""Then a worker ends: it holds 5 MB, and another one is there in 10 ms."""

T = TypeVar("T")
FileType = Literal["file", "directory", "other"]


@dataclass(frozen=True, slots=True)
class Item:
    """One name in a directory, links not followed."""

    name: str
    type: FileType


@dataclass(frozen=True, slots=True)
class Listing:
    """Items by name; `truncated` when there were more than the limit (which ones are missing is the disk's choice)."""

    items: tuple[Item, ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Stat:
    size: int
    type: FileType


@dataclass(frozen=True, slots=True)
class NoStat:
    """Why one path of several has no Stat."""

    errno: int
    error: str


@dataclass(frozen=True, slots=True)
class Digest:
    sha256: str
    bytes: int


class Files:
    """One worker, which stays while it is asked; calls are made one after the other, each within its own deadline.

    Every call raises DiskError with the kernel's errno, DiskTimeout when there was no answer within `timeout_s`
    seconds (waiting for calls before it included) or when a former call still holds the worker in the kernel, and
    ProbeNotSent when there was no worker to ask: what is wrong then is not the disk.
    """

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        """The worker gets `environment` besides PATH and LANG, and nothing else: put the marker for orphans in it."""
        self.name = name
        self._environment = {**MINIMAL_ENVIRONMENT, **environment}
        self._lock = asyncio.Lock()
        self._worker: WorkerProcess | None = None
        self._touch = ""
        self._asked_at = 0.0
        self._closed = False
        self._last_id = 0
        self._last_key = 0

    @property
    def pid(self) -> int | None:
        """The worker's process, running or stuck; None before the first call, after its end and while nobody asks."""
        return self._worker.process.pid if self._worker else None

    @property
    def stuck(self) -> bool:
        """A worker was killed and its exit has not been seen yet."""
        return self._worker is not None and self._worker.killed_at is not None

    async def statfs(self, path: str, *, timeout_s: float) -> None:
        """Only whether the file system answers."""
        await self._call("statfs", f"statfs {shown(path)}", {"path": path}, timeout_s)

    async def list(self, path: str, *, limit: int, timeout_s: float) -> Listing:
        it = await self._call("list", f"list {shown(path)}", {"path": path, "limit": limit}, timeout_s)
        return Listing(tuple(Item(**one) for one in it["entries"]), it["truncated"])

    async def stat(self, paths: Sequence[str], *, timeout_s: float) -> tuple[Stat | NoStat, ...]:
        """One result for each path, in order, links followed; `timeout_s` is for all of them together."""
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        touch = f"stat {shown(paths[0]) if paths else 'nothing'}{more}"
        it = await self._call("stat", touch, {"paths": [*paths]}, timeout_s)
        return tuple(NoStat(**one) if "errno" in one else Stat(**one) for one in it)

    async def real_path(self, path: str, *, timeout_s: float) -> str:
        """`path` with every symbolic link on it followed; what does not exist stays as it is written."""
        return str(await self._call("real_path", f"follow {shown(path)}", {"path": path}, timeout_s))

    async def read(self, path: str, *, offset: int = 0, length: int, timeout_s: float) -> bytes:
        """At most `length` (≤ READ_LIMIT) bytes from `offset`, fewer only at the end of the file.

        Decoding costs the event loop about 3 ms for each MiB: ask for small pieces.
        """
        request = {"path": path, "offset": offset, "length": length}
        it = await self._call("read", f"read {shown(path)}", request, timeout_s)
        return base64.b64decode(it["data"])

    async def hash(self, path: str, *, timeout_s: float, progress: Callable[[int], None] | None = None) -> Digest:
        """The digest of a whole file; `timeout_s` is for each piece of HASH_PIECE bytes, so that a slow disk is none.

        `progress` hears after each of them how many bytes are done. Between two of them other calls have their turn.
        """

        async def hash_() -> Digest:
            key, done = self._new_key(), 0
            while True:
                request = {"path": path, "key": key, "from": done, "length": HASH_PIECE}
                it = await self._call_of_many("hash", f"hash {shown(path)}", request, timeout_s)
                done = it["bytes"]
                if progress is not None:
                    progress(done)
                if it["sha256"] is not None:
                    return Digest(it["sha256"], done)

        return await _again_when_stale(hash_)

    async def walk(self, path: str, to: Path, *, timeout_s: float) -> int:
        """Writes a JSON line `["path below it", bytes]` for each file below `path` into the local file `to`; how many.

        `timeout_s` is for each piece of WALK_PIECE files. Between two of them other calls have their turn.
        """

        async def walk_() -> int:
            key = self._new_key()
            done: int = 0
            while True:
                request = {"path": path, "to": str(to), "key": key, "from": done, "count": WALK_PIECE}
                it = await self._call_of_many("walk", f"walk {shown(path)}", request, timeout_s)
                done = it["files"]
                if it["done"]:
                    return done

        return await _again_when_stale(walk_)

    def _new_key(self) -> int:
        self._last_key += 1
        return self._last_key

    async def _call_of_many(self, op: str, touch: str, request: Mapping[str, object], timeout_s: float) -> Any:
        try:
            return await self._call(op, touch, request, timeout_s)
        except asyncio.CancelledError:
            if self._worker is not None:
                self._worker.kill()  # it holds something open
            raise

    async def close(self) -> int | None:
        """Kills the worker and waits for its end, but never more than about 1 s; the pid of one left behind, or None.

        A call that is under way fails. One left behind is still reaped when its end comes while the loop runs.
        """
        self._closed = True
        worker = self._worker
        if worker is None:
            return None
        worker.kill()
        return None if await worker.is_gone(CLOSE_LIMIT_S) else worker.process.pid

    async def _call(self, op: str, touch: str, request: Mapping[str, object], timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s), self._lock:
                reply = await self._ask(op, touch, request)
        except TimeoutError:
            raise DiskTimeout(f"cannot {touch}: no answer in {timeout_s:g} s") from None
        if "errno" in reply:
            raise DiskError(f"cannot {touch}: {reply['error']}", errno=reply["errno"])
        return reply["ok"]

    async def _ask(self, op: str, touch: str, request: Mapping[str, object]) -> dict[str, Any]:
        """Sends the request to a worker and returns its reply; every operation only reads, so it may be sent twice."""
        for _ in range(2):
            worker = await self._ready(touch)
            self._touch, self._asked_at = touch, time.monotonic()
            self._last_id += 1
            try:
                worker.send({"id": self._last_id, "op": op, **request})
                await worker.writer.drain()
                answer = await worker.reader.readline()
            except (ConnectionError, ValueError) as error:  # ValueError: longer than ANSWER_LIMIT
                worker.kill()
                if isinstance(error, ValueError):
                    raise DiskError(f"cannot {touch}: the answer is too long") from None
            except BaseException:  # the deadline, or a caller that gave up: a late answer must not meet the next call
                worker.kill()
                raise
            else:
                if answer.endswith(b"\n"):
                    reply: dict[str, Any] = json.loads(answer)
                    return reply
                worker.kill()  # its end is being seen; a new one starts only when it is reaped
            await worker.gone.wait()
        raise ProbeNotSent(f"cannot {touch}: the file worker ended twice, at last with {worker.process.returncode}")

    async def _ready(self, touch: str) -> WorkerProcess:
        if self._closed:
            raise self._is_closed(touch)
        worker = self._worker
        if worker is not None and worker.killed_at is not None:
            since_s = time.monotonic() - worker.killed_at
            if not await worker.is_gone(EXIT_GRACE_S - since_s):
                raise DiskTimeout(
                    f"cannot {touch}: a former touch ({self._touch}) is still stuck in process {worker.process.pid}",
                    hint="it goes when the file system answers or its connection is aborted",
                )
            worker = None
        return worker or await self._start(touch)

    async def _start(self, touch: str) -> WorkerProcess:
        try:
            worker = await WorkerProcess.start(
                WORKER, self._environment, longest_line=ANSWER_LIMIT, when_gone=self._forget
            )
        except OSError as error:  # the machine is short of something, or Python is not there
            cause = f"cannot start a file worker: {cause_of(error)}"
            raise ProbeNotSent(f"cannot {touch}: {cause}") from None
        if self._closed:  # meanwhile
            worker.kill()
            raise self._is_closed(touch)
        self._worker = worker
        asyncio.get_running_loop().call_later(IDLE_S, self._end_idle, worker)
        return worker

    def _end_idle(self, worker: WorkerProcess) -> None:
        if self._worker is not worker or self.stuck:
            return
        left_s = self._asked_at + IDLE_S - time.monotonic()
        if self._lock.locked() or left_s > 0:
            asyncio.get_running_loop().call_later(max(left_s, IDLE_S / 10), self._end_idle, worker)
        else:
            self._worker = None
            worker.writer.close()  # it ends with its stream

    def _is_closed(self, touch: str) -> ProbeNotSent:
        return ProbeNotSent(f"cannot {touch}: the file worker {self.name} is closed")

    def _forget(self, worker: WorkerProcess) -> None:
        if self._worker is worker:
            self._worker = None


async def _again_when_stale(work: Callable[[], Awaitable[T]]) -> T:
    for attempt in range(ATTEMPTS):
        try:
            return await work()
        except DiskError as error:
            if error.errno != errno.ESTALE or attempt + 1 == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def shown(path: str) -> str:
    """A path as it can be printed: bytes that are no UTF-8 become escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
