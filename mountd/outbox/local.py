"""The directory of an outbox, as the daemon asks for it: through a process of its own, which may be killed.

Its disk may hang: then the process is killed, and another one is started once it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mountd.errors import DiskError, DiskTimeout, ProbeNotSent, cause_of
from mountd.files.worker_process import MINIMAL_ENVIRONMENT, WorkerProcess
from mountd.outbox.settling import FileLook
from mountd.settings.outbox import OutboxSettings
from mountd.text import storable

WORKER = Path(__file__).with_name("worker.py")
LONGEST_LINE = 32 * 1024 * 1024
"""Bytes. The process sends 500 paths at once, each of tree.LONGEST_PATH bytes at most, which may be written as escapes
of six: 3 MB. Paths that are asked for, of an older journal, may be longer."""
SILENT_S = 60.0
"""Seconds without an answer after which the directory counts as hung."""
CLOSE_S = 1.0
MOST_OF_CAUSE = 100

Found = Sequence[tuple[str, FileLook]]


async def _nothing() -> None: ...


async def _all_of_them(found: Found, _: str) -> Sequence[int]:
    return range(len(found))


@dataclass(frozen=True, slots=True)
class DirectoryScan:
    """One look at everything. `root`: the directory's inode; `full`: there are more new files than are taken at once;
    `skipped`: paths that are too long."""

    root: str
    files: int
    free: int
    total: int
    full: bool
    unread: tuple[str, ...]
    skipped: int
    first_skipped: str


@dataclass(frozen=True, slots=True)
class HashedFile:
    """Digests in hex. Until `release` the process has the file open: `name` in `directory` leads to it."""

    id: int
    sha256: str
    md5: str
    directory: str
    name: str


class LocalDirectory:
    """Every call raises DiskError, DiskTimeout when the disk does not answer, ProbeNotSent without a process."""

    def __init__(
        self,
        settings: OutboxSettings,
        environment: Mapping[str, str],
        *,
        found: Callable[[Found, str], Awaitable[None]],
        gone: Callable[[Sequence[str]], Awaitable[None]],
        writing: Callable[[int], None],
        leaving: Callable[[], Awaitable[None]] = _nothing,
        new: Callable[[Found, str], Awaitable[Sequence[int]]] = _all_of_them,
        stirred: Callable[[], None] = lambda: None,
    ) -> None:
        """`found` also gets the directory's inode. It and `gone` are awaited before more is taken: they may not call
        this object. `leaving` is awaited when the process has ended and its number is not free yet: rclone, which reads
        the files that it had open by that number, has to stop, since the number may be another process's then. `new`
        gets files that a scan meets, with the inode, and says which of them are not known as they are. `stirred` is
        called when another scan is due.
        """
        self._settings = settings
        self._environment = {**MINIMAL_ENVIRONMENT, **environment}
        self._found, self._gone, self._writing, self._leaving = found, gone, writing, leaving
        self._new, self._stirred = new, stirred
        self._worker: WorkerProcess | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0
        self._heard_at = 0.0
        self._is_taking = False
        self._cause = ""
        self.ended = asyncio.Event()
        """set when the process has exited, or no longer answers"""

    @property
    def pid(self) -> int | None:
        return self._worker.process.pid if self._worker is not None else None

    async def start(self) -> None:
        """Raises ProbeNotSent, DiskTimeout while a process that was killed stays in the kernel."""
        await self.close()
        if self._worker is not None:
            raise DiskTimeout(f"cannot read {self._settings.directory}: its disk does not answer")
        self.ended.clear()
        try:
            worker = await WorkerProcess.start(
                WORKER, self._environment, longest_line=LONGEST_LINE, before_reaped=self._leave
            )
        except OSError as error:
            raise ProbeNotSent(
                f"cannot read {self._settings.directory}: cannot start a process for it: {cause_of(error)}"
            ) from None
        self._worker, self._heard_at, self._cause = worker, time.monotonic(), ""
        worker.send(
            {
                "directory": str(self._settings.directory),
                "settle_s": self._settings.settle,
                "include": self._settings.include,
                "exclude": self._settings.exclude,
            }
        )
        self._reading = asyncio.create_task(self._read(worker), name=f"outbox {self._settings.directory}")

    async def close(self) -> None:
        """Ends the process, and waits for that about 1 s at most."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        self._fail(self.gone_error())
        if self._worker is not None:
            self._worker.kill()
            if await self._worker.is_gone(CLOSE_S):
                self._worker = None

    async def scan(self) -> DirectoryScan:
        answer = await self._ask({"do": "scan"})
        while "seen" in answer:
            new = await self._new([(path, FileLook(*look)) for path, look in answer["seen"]], answer["root"])
            answer = await self._ask({"do": "scan on", "new": [*new]})
        unread = tuple(map(str, answer["unread"]))
        return DirectoryScan(
            str(answer["root"]),
            *(answer["files"], answer["free"], answer["total"], answer["full"]),
            *(unread, answer["skipped"], str(answer["first_skipped"])),
        )

    async def room(self) -> tuple[int, int]:
        """Bytes of its disk that are free for others than root, and all of them."""
        answer = await self._ask({"do": "room"})
        return answer["free"], answer["total"]

    async def hash(self, path: str, look: FileLook) -> HashedFile | None:
        """None: it is no longer as it was; see `missing` for whether it is there."""
        number, pid = self._next_id(), self.pid
        try:
            answer = await self._ask({"do": "hash", "path": path, "look": look}, number)
        except asyncio.CancelledError:
            self._send({"do": "release", "of": number})
            raise
        if "sha256" not in answer:
            return None
        return HashedFile(number, answer["sha256"], answer["md5"], f"/proc/{pid}/fd", str(answer["fd"]))

    async def still(self, hashed: HashedFile) -> FileLook | None:
        """How the file looked when it last held what was hashed, if it still does; None: somebody has written to it."""
        look = (await self._ask({"do": "check", "of": hashed.id}))["look"]
        return FileLook(*look) if look is not None else None

    def release(self, hashed: HashedFile) -> None:
        self._send({"do": "release", "of": hashed.id})

    async def remove(self, path: str, look: FileLook) -> str:
        """removed, gone or changed."""
        return str((await self._ask({"do": "remove", "path": path, "look": look}))["is"])

    async def missing(self, paths: Sequence[str]) -> set[str]:
        """Those of them that are not there."""
        return set((await self._ask({"do": "missing", "paths": paths}))["paths"])

    def gone_error(self) -> ProbeNotSent:
        """For what it was asked and never answered."""
        cause = self._cause or "the process for it has ended"
        return ProbeNotSent(f"cannot read {self._settings.directory}: {cause}")

    # -- the process ----------------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        self.ended.set()
        await self._leaving()

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _send(self, message: Mapping[str, object]) -> None:
        if self._worker is not None and not self._worker.gone.is_set():
            with contextlib.suppress(ConnectionError):
                self._worker.send(message)

    async def _ask(self, message: Mapping[str, object], number: int | None = None) -> dict[str, Any]:
        number = self._next_id() if number is None else number
        if self._worker is None or self.ended.is_set():
            raise ProbeNotSent(f"cannot read {self._settings.directory}: there is no process for it")
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        begun = time.monotonic()
        try:
            self._send({**message, "id": number})
            while not (await asyncio.wait([answer], timeout=SILENT_S / 4))[0]:
                # While the daemon itself does not take what it sends, it is not the disk that is slow.
                if not self._is_taking and time.monotonic() - max(begun, self._heard_at) > SILENT_S:
                    self.ended.set()
                    raise DiskTimeout(
                        f"cannot read {self._settings.directory}: no answer from its disk in {SILENT_S:g} s"
                    )
        finally:
            self._answers.pop(number, None)
        found: dict[str, Any] = answer.result()
        if (failure := found.get("error")) is not None:
            text = f"cannot read {self._settings.directory}: {failure['text']}"
            raise DiskError(text, errno=failure["errno"])
        return found

    async def _read(self, worker: WorkerProcess) -> None:
        try:
            while (line := await worker.reader.readline()).endswith(b"\n"):
                self._heard_at = time.monotonic()
                self._is_taking = True
                await self._take(json.loads(line))
                self._is_taking = False
                self._heard_at = time.monotonic()
        except ConnectionError:
            pass
        except ValueError as error:
            self._cause = f"the process for it has sent what is no message: {storable(str(error), MOST_OF_CAUSE)}"
        finally:
            self._is_taking = False
            self.ended.set()
            self._fail(self.gone_error())

    async def _take(self, message: Mapping[str, Any]) -> None:
        match message:
            case {"id": int(number)}:
                if (answer := self._answers.get(number)) is not None and not answer.done():
                    answer.set_result(dict(message))
                elif "fd" in message:  # nobody waits for it any more
                    self._send({"do": "release", "of": number})
            case {"found": found, "root": root}:
                await self._found([(path, FileLook(*look)) for path, look in found], root)
            case {"gone": gone}:
                await self._gone(gone)
            case {"unfinished": int(count)}:
                self._writing(count)
            case {"stirred": True}:
                self._stirred()

    def _fail(self, error: DiskError) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # nobody may ask any more


def name_of(path: str) -> bytes:
    """As the journal has it."""
    return os.fsencode(path)


def path_of(name: bytes) -> str:
    """As the process has it."""
    return os.fsdecode(name)
