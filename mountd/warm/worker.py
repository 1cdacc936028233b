"""Reads pieces of files with many threads for the daemon, in a process that may be killed: JSON lines in and out.

Run as `python -I -S -X utf8 worker.py` with one stream as stdin and stdout; ends with that stream. What is read, in
which order and by how many threads, the daemon decides: each line with `open`, `read`, `keep` or `drop` is work for one
thread, answered when it is done. Files and pieces are numbers that the daemon gives.

    {"source": {"mount": "/mnt/x/v1"}, "limit": null}     or {"rc": SOCKET, "authorization": …, "into": DIRECTORY};
                                                          limit: bytes a second
    {"open": 3, "path": "a.pth", "url": "/…", "size": 9, "sha256": "…" or null, "there": [[0, 4]]}
        → {"opened": 3, "there": [[0, 4]], "whole": false}  whole: a checked file of that digest lies in `into`
    {"read": 7, "file": 3, "begin": 4, "end": 9}          → {"read": 7, "at": 9}
    {"trim": 7, "end": 6}                                 → {"trimmed": 7, "end": 6}, when it is being read
    {"keep": 3}    what was fetched gets its name         → {"kept": 3}
    {"drop": 3}    what was fetched is removed            → {"dropped": 3}
    {"close": 3}   the file is done with, at any time

Without being asked it sends `{"hashed": 3, "sha256": …}` as soon as a file is there and hashed, and each 0.25 s
`{"progress": {"7": 6}, "hashed": 12}`: where each piece is, and how many bytes were hashed. The answer to what fails
has a `cause` as well, see ReadFault: `{"kind": "again", "errno": 5, "status": 0, "text": …}`.

It knows only the standard library, `sources.py` and `from_rc.py`, because its imports are its whole start time.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path.insert(0, __file__.removesuffix("/mountd/warm/worker.py"))

from mountd.warm.from_rc import FromRc
from mountd.warm.sources import STEP_BYTES, ByteSource, RateLimit, ReadFault, Span, Target, ThroughMount

HASH_AGAIN_S = 1.0
PROGRESS_S = 0.25
MOST_THREADS = 40
"""32 readers, and 8 for the disk: each file that was fetched is synced."""
STACK_BYTES = 512 * 1024

Message = dict[str, Any]
_output = threading.Lock()


def emit(message: Message) -> None:
    line = json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
    try:
        with _output:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    except OSError:
        os._exit(0)  # nobody is left to hear it


def attempt(work: Callable[[], None]) -> Message:
    """With a `cause` when it fails: whoever asked gets an answer, and the thread stays."""
    try:
        work()
    except ReadFault as fault:
        return {"cause": fault.cause}
    except Exception as error:
        return {"cause": ReadFault("again", f"{type(error).__name__}: {error}").cause}
    return {}


class Hasher:
    """One thread that hashes what is there of each file while the others read on."""

    def __init__(self, source: Callable[[], ByteSource]) -> None:
        self.bytes = 0
        self._source = source
        self._news: queue.SimpleQueue[Target] = queue.SimpleQueue()
        self._buffer = memoryview(bytearray(STEP_BYTES))
        threading.Thread(target=self._run, daemon=True).start()

    def moved(self, target: Target) -> None:
        """There is more of it, or it is open now."""
        self._news.put(target)

    def _run(self) -> NoReturn:
        while True:
            target = self._news.get()
            if not target.is_open or target.is_hashed:
                continue
            try:
                self._follow(target)
            except ReadFault as fault:
                if fault.cause["kind"] != "again":
                    self._report(target, {"cause": fault.cause})
                else:
                    threading.Timer(HASH_AGAIN_S, self.moved, [target]).start()

    def _follow(self, target: Target) -> None:
        while target.hashed < (front := target.front()):
            if target.hash is None:
                target.hashed = front
            else:
                self._hash(target, min(STEP_BYTES, front - target.hashed))
        if target.hashed == target.size and target.is_idle:  # so it is reported after its last piece
            self._report(target, {"sha256": target.hash.hexdigest() if target.hash else None})

    def _hash(self, target: Target, count: int) -> None:
        if target.descriptor is None:
            self._source().reopen(target)
        it = target.descriptor
        assert it is not None
        assert target.hash is not None
        try:
            got = os.preadv(it.fd, [self._buffer[:count]], target.hashed)
        except OSError as error:
            raise self._source().unreadable(target, error) from None
        if not got:
            raise ReadFault("file", f"it ends at {target.hashed} of {target.size} bytes")
        target.hash.update(self._buffer[:got])
        target.hashed += got
        self.bytes += got

    def _report(self, target: Target, found: Message) -> None:
        target.is_hashed = True
        emit({"hashed": target.number, **found})


class ReaderThreads:
    """As many as there is work for at once."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._count = self._busy = 0

    def submit(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._busy += 1
            if self._busy > self._count and self._count < MOST_THREADS:
                try:
                    threading.Thread(target=self._serve, daemon=True).start()
                    self._count += 1
                except RuntimeError:  # this machine gives no more: those that there are do it
                    if not self._count:
                        raise
        self._work.put(work)

    def _serve(self) -> NoReturn:
        while True:
            self._work.get()()
            with self._lock:
                self._busy -= 1


class RangeReader:
    """What each line asks for."""

    def __init__(self) -> None:
        self._source: ByteSource = ThroughMount("")  # until the first line names one
        self._limit = RateLimit(0)
        self._targets: dict[int, Target] = {}
        self._spans: dict[int, Span] = {}
        self._threads = ReaderThreads()
        self._hasher = Hasher(lambda: self._source)
        threading.Thread(target=self._report, daemon=True).start()

    def hear(self, message: Message) -> None:
        match message:
            case {"source": {"mount": root}}:
                self._source, self._limit = ThroughMount(root), RateLimit(message.get("limit") or 0)
            case {"source": {"rc": address, "authorization": authorization, "into": into}}:
                self._source, self._limit = FromRc(address, authorization, into), RateLimit(message.get("limit") or 0)
            case {"open": number, "path": path, "size": size, "there": there}:
                known = [(begin, end) for begin, end in there]
                url, sha256 = message["url"], message["sha256"]
                target = Target(number, path=path, url=url, size=size, sha256=sha256, there=known)
                self._targets[number] = target
                self._threads.submit(lambda: self._open(target))
            case {"read": number, "file": file, "begin": begin, "end": end}:
                span = self._spans[number] = Span(number, begin, end)
                target = self._targets[file]
                self._threads.submit(lambda: self._read(target, span))
            case {"trim": number, "end": end}:
                if wanted := self._spans.get(number):
                    emit({"trimmed": number, "end": wanted.trim(end)})
            case {"keep": number}:
                self._threads.submit(lambda: self._leave("kept", number, self._source.keep))
            case {"drop": number}:
                self._threads.submit(lambda: self._leave("dropped", number, self._source.drop))
            case {"close": number}:
                self._targets.pop(number, None)

    def _open(self, target: Target) -> None:
        answer: Message = {"opened": target.number}

        def work() -> None:
            answer["whole"] = self._source.open(target)
            answer["there"] = list(target.there)

        answer |= attempt(work)
        emit(answer)
        if "cause" not in answer and not answer["whole"]:
            target.is_open = True
            self._hasher.moved(target)

    def _read(self, target: Target, span: Span) -> None:
        target.begin(span)
        found = attempt(lambda: self._source.read(target, span, self._limit, lambda: self._hasher.moved(target)))
        del self._spans[span.number]
        emit({"read": span.number, "at": span.at, **found})
        target.end(span)
        self._hasher.moved(target)

    def _leave(self, word: str, number: int, do: Callable[[Target], None]) -> None:
        emit({word: number, **attempt(lambda: do(self._targets.pop(number)))})

    def _report(self) -> NoReturn:
        while True:
            time.sleep(PROGRESS_S)
            emit(
                {
                    "progress": {str(span.number): span.at for span in list(self._spans.values())},
                    "hashed": self._hasher.bytes,
                }
            )


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the daemon's to handle
    threading.stack_size(STACK_BYTES)
    reader = RangeReader()
    try:
        while line := sys.stdin.buffer.readline():
            reader.hear(json.loads(line))
    except ConnectionError:
        pass
    os._exit(0)  # threads may be stuck in the kernel


if __name__ == "__main__":
    main()
