"""Warms files of a version: a worker reads their pieces, and this says which, starts it again, and checks digests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from mountd.errors import MountdError, Refused, RemoteError, Unavailable
from mountd.files.client import shown
from mountd.files.worker_process import MINIMAL_ENVIRONMENT, WorkerProcess
from mountd.process.resources import lack
from mountd.rclone.command import RcAddress
from mountd.warm.pace import LOOK_S, Pace, Speed
from mountd.warm.places import MountedDirectory, ServedDirectory, WarmPlace, WhyUnreadable
from mountd.warm.plan import Opening, Piece, Plan, Splitting, WantedFile
from mountd.warm.results import FetchResult, FileFault, WarmProgress, code_of

log = structlog.get_logger()

WORKER = Path(__file__).with_name("worker.py")
LONGEST_LINE = 4 * 1024 * 1024
"""Bytes: of a partial file in 100,000 parts."""
CLOSE_LIMIT_S = 1.0
MOST_DEATHS = 20
"""Of workers, one after the other, that never answered. One that did may be started as long as there is patience."""
ASK_WHY_AFTER = 2
"""Failures of a file in a row: one that passes by itself needs no reason."""
SILENT_S = 3.0
"""When nothing has come for so long, the reason is looked for: rclone repeats for 8 s what is refused at once."""
KEEP_LIMIT_S = 300.0
"""A slow disk may take so long to write what was fetched."""
OF_THE_OBJECT = frozenset({"object-missing", "object-archived"})
"""Trying again changes nothing about these."""


def read_through(
    root: str,
    files: Sequence[WantedFile],
    *,
    environment: Mapping[str, str],
    patience_s: float,
    report: Callable[[WarmProgress], None],
    limit: int | None = None,
    why: WhyUnreadable | None = None,
) -> Warming:
    """Reads files below the mounted directory `root`, so that rclone's cache has them; see Warming.

    rclone reads ahead of it, up to `--vfs-read-ahead` of each file, and no `limit` slows that.
    """
    place = MountedDirectory(root, why)
    return Warming(place, files, environment=environment, limit=limit, patience_s=patience_s, report=report)


def fetch_into(
    address: Callable[[], RcAddress],
    fs: str,
    directory: str,
    files: Sequence[WantedFile],
    into: Path,
    *,
    environment: Mapping[str, str],
    patience_s: float,
    report: Callable[[WarmProgress], None],
    limit: int | None = None,
) -> Warming:
    """Fetches objects of `directory` in `fs` (`remote:bucket`) past the mount; see Warming.

    Each of them, fsynced and with the digest that is wanted, becomes `into/SHA256`, readable by mountd's user alone.
    What is incomplete stays as `into/SHA256.partial`, and is continued by the next call. `address` is that of the
    rclone of now; it raises Unavailable while there is none. One call at a time for each `into`, which must be there.
    Raises Refused for a file without a digest.
    """
    if missing := [file.path for file in files if file.sha256 is None]:
        raise Refused(f"cannot fetch {shown(missing[0])}: its sha256 is not known")
    place = ServedDirectory(address, fs, directory, into)
    return Warming(place, files, environment=environment, limit=limit, patience_s=patience_s, report=report)


class Warming:
    """One warm, to be run once. `report` is called each 0.25 s, `on_open` before each open; neither may block."""

    def __init__(
        self,
        place: WarmPlace,
        files: Sequence[WantedFile],
        *,
        environment: Mapping[str, str],
        limit: int | None,
        patience_s: float,
        report: Callable[[WarmProgress], None],
    ) -> None:
        """The worker gets `environment` besides PATH and LANG, and nothing else: put the marks for orphans in it.

        `limit`: bytes a second. `patience_s`: how long it goes on when nothing comes at all.
        """
        self._place = place
        self._environment = {**MINIMAL_ENVIRONMENT, **environment}
        self._limit, self._patience_s, self._report = limit, patience_s, report
        twins: dict[str, list[WantedFile]] = {}
        for file in files:
            twins.setdefault(str(file.sha256) if place.keeps else file.path, []).append(file)
        self._twins = list(twins.values())
        """by index: the paths of one content, which is kept once"""
        self._files = [each[0] for each in self._twins]
        self._plan = Plan(self._files, place.sizes)
        self._pace, self._speed = Pace(), Speed()
        self._worker: WorkerProcess | None = None
        self._has_answered = False
        self._sent_source: Mapping[str, str] | None = None
        self._opening: set[int] = set()
        self._reading: set[int] = set()
        self._splitting: set[int] = set()
        self._leaving: dict[int, str] = {}
        """files that get their name, or are removed; their digests"""
        self._resumed: set[int] = set()
        """files of which something lay there from an earlier worker"""
        self._faults: list[tuple[int, FileFault]] = []
        self._hashed = 0
        self._moved_at = 0.0
        self._look: tuple[float, int] | None = None
        self._is_busy = True
        self._errors = 0
        """since the last look"""
        self._waits_for = ""
        self._cause: RemoteError | None = None
        self._asking: asyncio.Task[None] | None = None
        self.on_open: Callable[[str], None] = lambda _: None

    @property
    def pid(self) -> int | None:
        """Of the worker that runs."""
        return self._worker.process.pid if self._worker is not None else None

    def prefer(self, paths: Iterable[str]) -> None:
        """What is left of these files is read first from now on, instead of those named before."""
        first = {twin.path: twins[0].path for twins in self._twins for twin in twins}
        self._plan.prefer(first[path] for path in paths if path in first)

    async def run(self) -> FetchResult:
        """Until each file is there or has a fault.

        Raises Unavailable, a RemoteError when the cause is known, after `patience_s` seconds in which nothing came;
        MountdError when the local disk does not take what was fetched. A worker that is killed is replaced, and one
        that stays in the kernel is not waited for.
        """
        deaths, self._moved_at = 0, time.monotonic()
        try:
            while not self._plan.is_finished:
                self._has_answered = False
                code = await self._run_worker()
                if code is None:
                    break
                deaths = 0 if self._has_answered else deaths + 1
                if deaths == MOST_DEATHS:
                    raise Unavailable(f"cannot go on: the worker ended {deaths} times, at last with {code}")
                log.warning("the worker that reads ahead ended, and is started again", exit=code)
                self._plan.restart()
        finally:
            if self._asking is not None:
                self._asking.cancel()
        self._report(self._progress())
        faults = [replace(it, path=twin.path) for index, it in self._faults for twin in self._twins[index]]
        return FetchResult(self._plan.bytes_read, tuple(faults))

    async def _run_worker(self) -> int | None:
        """Until the worker has ended, with that code; None: everything is done."""
        self._sent_source, self._hashed = None, 0
        for pieces_or_files in (self._opening, self._reading, self._splitting):
            pieces_or_files.clear()
        self._leaving.clear()
        try:
            worker = self._worker = await WorkerProcess.start(WORKER, self._environment, longest_line=LONGEST_LINE)
        except OSError as error:
            raise lack(error) or Unavailable(f"cannot start a worker: {error.strerror}") from None
        try:
            while not self._plan.is_finished:
                self._fill(worker)
                line = await self._next_line(worker)
                if not line.endswith(b"\n"):
                    break
                self._has_answered = True
                self._hear(json.loads(line), time.monotonic())
        finally:
            self._worker = None
            worker.kill()
            if not await worker.is_gone(CLOSE_LIMIT_S):
                log.warning("a worker is left behind in the kernel", pid=worker.process.pid)
        return None if self._plan.is_finished else worker.process.returncode or 0

    async def _next_line(self, worker: WorkerProcess) -> bytes:
        silent_s = time.monotonic() - self._moved_at
        patience_s = max(self._patience_s, KEEP_LIMIT_S) if self._leaving else self._patience_s
        if silent_s >= patience_s:
            raise self._nothing_comes()
        try:
            async with asyncio.timeout(patience_s - silent_s):
                await worker.writer.drain()
                return await worker.reader.readline()
        except TimeoutError:
            raise self._nothing_comes() from None
        except (ConnectionError, ValueError):  # ValueError: longer than LONGEST_LINE
            return b""

    def _nothing_comes(self) -> Unavailable:
        cause = self._cause
        why = cause.text if cause is not None else self._waits_for or "no answer"
        text = f"cannot read ahead: nothing came for {self._patience_s:g} s: {why}"
        return RemoteError(text, hint=cause.hint, code=cause.code) if cause is not None else Unavailable(text)

    # -- to the worker --------------------------------------------------------------------------------------------

    def _fill(self, worker: WorkerProcess) -> None:
        """Something to do for each reader that is free."""
        try:
            source = self._place.source()
        except Unavailable as error:
            self._waits_for, self._is_busy = error.text, False
            return
        if source != self._sent_source:
            self._sent_source = source
            worker.send({"source": source, "limit": self._limit})
        now = time.monotonic()
        while self._under_way < self._pace.readers:
            match self._plan.take(self._pace.readers, now):
                case Opening(index):
                    self._opening.add(index)
                    file = self._files[index]
                    self.on_open(file.path)
                    asked = {"path": file.path, "url": self._place.url(file.path), "size": file.size}
                    worker.send({"open": index, **asked, "sha256": file.sha256, "there": self._plan.done(index)})
                case Piece() as it:
                    self._reading.add(it.id)
                    worker.send({"read": it.id, "file": it.index, "begin": it.begin, "end": it.end})
                case Splitting(piece_id, end):
                    self._splitting.add(piece_id)
                    worker.send({"trim": piece_id, "end": end})
                case None:
                    self._is_busy = False
                    return

    @property
    def _under_way(self) -> int:
        """Readers; the disk has threads of its own."""
        return len(self._opening) + len(self._reading) + len(self._splitting)

    # -- from the worker ------------------------------------------------------------------------------------------

    def _hear(self, message: Mapping[str, Any], now: float) -> None:
        before = self._plan.bytes_read
        match message:
            case {"progress": pieces, "hashed": hashed}:
                for piece_id, at in pieces.items():
                    self._plan.progress(int(piece_id), at)
                if hashed > self._hashed:
                    self._hashed, self._moved_at = hashed, now
                self._tick(now)
            case {"opened": index}:
                self._opening.discard(index)
                self._opened(index, message, now)
            case {"read": piece_id, "at": at}:
                self._reading.discard(piece_id)
                self._splitting.discard(piece_id)
                self._ended(piece_id, at, message.get("cause"), now)
            case {"trimmed": piece_id, "end": end}:
                self._splitting.discard(piece_id)
                self._plan.trimmed(piece_id, end)
            case {"hashed": index}:
                self._moved_at = now
                self._check(index, message, now)
            case {"kept": index} | {"dropped": index}:
                self._moved_at = now
                self._left(index, message, now)
        if self._plan.bytes_read > before:
            self._moved_at, self._cause = now, None

    def _opened(self, index: int, message: Mapping[str, Any], now: float) -> None:
        if cause := message.get("cause"):
            self._fault(index, cause, now)
        elif message["whole"]:
            self._plan.opened(index, [(0, self._files[index].size)])
            self._close(index)
        elif self._plan.is_wanted(index):
            if message["there"]:
                self._resumed.add(index)
            self._plan.opened(index, [(begin, end) for begin, end in message["there"]])

    def _tick(self, now: float) -> None:
        read = self._plan.bytes_read
        self._speed.add(now, read)
        if self._look is None:
            self._look = (now, read) if read or self._errors else None
        elif now - self._look[0] >= LOOK_S * 0.9:  # the worker's clock is another one
            since, before = self._look
            self._pace.look((read - before) / (now - since), errors=self._errors, is_busy=self._is_busy)
            self._look, self._errors, self._is_busy = (now, read), 0, True
        if now - self._moved_at > SILENT_S and self._cause is None and self._reading:
            self._ask_about(self._plan.file_of(min(self._reading)))
        self._report(self._progress())

    def _ended(self, piece_id: int, at: int, cause: Mapping[str, Any] | None, now: float) -> None:
        index = self._plan.file_of(piece_id)
        if cause is None:
            self._plan.read(piece_id, at)
        else:
            self._fault(index, cause, now, piece_id, at)

    def _check(self, index: int, message: Mapping[str, Any], now: float) -> None:
        if not self._plan.is_wanted(index):
            return
        wanted, found = self._files[index].sha256, message.get("sha256")
        is_right = wanted is None or wanted == found
        if cause := message.get("cause"):
            self._fault(index, cause, now)
        elif self._place.keeps:
            self._leaving[index] = str(found)
            assert self._worker is not None
            self._worker.send({"keep" if is_right else "drop": index})
        elif is_right:
            self._close(index)
        else:
            self._differs(index, str(found))

    def _left(self, index: int, message: Mapping[str, Any], now: float) -> None:
        found = self._leaving.pop(index)
        if cause := message.get("cause"):
            self._fault(index, cause, now)
        elif "kept" in message:
            self._plan.finish(index)
        elif index in self._resumed:  # what an earlier worker left may have been wrong: once more, from nothing
            self._resumed.discard(index)
            self._plan.discard(index)
        else:
            self._differs(index, found)

    def _differs(self, index: int, found: str) -> None:
        self._give_up(index, "digest-differs", f"its sha256 is {found} instead of {self._files[index].sha256}")

    def _fault(
        self, index: int, cause: Mapping[str, Any], now: float, piece_id: int | None = None, at: int = 0
    ) -> None:
        number, text = cause["errno"], cause["text"]
        if cause["kind"] == "local":
            error = OSError(number, text)
            raise lack(error) or MountdError(f"cannot keep {shown(self._files[index].path)}: {text}")
        if cause["kind"] == "file":
            self._give_up(index, code_of(number), text, number)
        self._plan.failed(index, now, piece_id, at)
        if not self._plan.is_wanted(index):
            return
        self._errors += 1
        self._waits_for = f"{shown(self._files[index].path)}: {text}"
        if self._plan.is_hopeless(index):
            self._give_up(index, "file-unreadable", text, number)
        elif self._plan.failures(index) >= ASK_WHY_AFTER:
            self._ask_about(index)

    def _ask_about(self, index: int) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_why(index), name="why a file cannot be read")

    async def _ask_why(self, index: int) -> None:
        try:
            self._cause = await self._place.why_unreadable(self._files[index].path)
        except MountdError:
            return
        if self._cause is not None and self._cause.code in OF_THE_OBJECT:
            self._give_up(index, self._cause.code, self._cause.text)
            self._cause = None
        elif self._cause is not None:
            self._waits_for = self._cause.text

    def _give_up(self, index: int, code: str, text: str, number: int = 0) -> None:
        if self._plan.is_wanted(index):
            self._faults.append((index, FileFault(self._files[index].path, code, text, number)))
            self._close(index)

    def _close(self, index: int) -> None:
        self._plan.finish(index)
        if self._worker is not None:
            self._worker.send({"close": index})

    def _progress(self) -> WarmProgress:
        plan, speed = self._plan, self._speed
        return WarmProgress(
            bytes_done=plan.bytes_done,
            bytes_total=plan.bytes_total,
            bytes_per_s=speed.bytes_per_s,
            eta_s=speed.eta_s(plan.bytes_left),
            files_done=plan.files_done,
            files_total=len(self._files),
            readers=self._pace.readers,
            waits_for=self._waits_for if plan.is_failing or self._cause or not self._sent_source else "",
        )
