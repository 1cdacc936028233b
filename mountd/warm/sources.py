"""Where the worker reads pieces of files, and what it knows of each; this one: through the mount.

Standard library only, as the worker, which is the only one to import it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

STEP_BYTES = 1024 * 1024
"""Of a digest; and so often is reported how far a reader is."""
REQUEST_BYTES = 128 * 1024
"""Of a read through the mount: as much as the kernel asks for in one request. Of more it sends the parts at once, and
rclone, which may get the second one first, begins a download for each."""
OF_THE_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM)


class ReadFault(Exception):
    """`kind`: `again`, it may pass; `file`: the file is not the one that is wanted; `local`: the disk that is written.

    `number` is that of errno, 0 when it was not the kernel's; `status` that of HTTP.
    """

    def __init__(self, kind: str, text: str, number: int = 0, status: int = 0) -> None:
        super().__init__(text)
        self.cause: dict[str, Any] = {"kind": kind, "errno": number, "status": status, "text": text}

    @classmethod
    def of(cls, kind: str, error: OSError) -> ReadFault:
        return cls(kind, (error.strerror or str(error) or type(error).__name__).lower(), error.errno or 0)


class Descriptor:
    """Closed as soon as nobody reads from it any more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class Span:
    """A piece that is being read: what lies before `at` has been."""

    def __init__(self, number: int, begin: int, end: int) -> None:
        self.number, self.begin, self.at, self.end = number, begin, begin, end
        self._taken = begin
        self._lock = threading.Lock()

    def take(self, most: int) -> int:
        """How many bytes from `at` on are read next, `most` at most; 0: none are left."""
        with self._lock:
            self._taken = min(self.at + most, self.end)
            return self._taken - self.at

    def trim(self, end: int) -> int:
        """Where it ends now: not before what was taken."""
        with self._lock:
            self.end = max(min(end, self.end), self._taken)
            return self.end


class Target:
    """One file. Its digest follows its front: what has been read of it without a gap."""

    def __init__(
        self, number: int, *, path: str, url: str, size: int, sha256: str | None, there: list[tuple[int, int]]
    ) -> None:
        """`url`: on rclone's remote control; `sha256`: None when it is not to be hashed; `there`: read already."""
        self.number, self.path, self.url, self.size, self.sha256 = number, path, url, size, sha256 or ""
        self.there = there
        self.descriptor: Descriptor | None = None
        self.hash = hashlib.sha256() if sha256 else None
        self.hashed = 0
        self.is_open = self.is_hashed = False
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    def begin(self, span: Span) -> None:
        with self._lock:
            self._spans.append(span)

    def end(self, span: Span) -> None:
        with self._lock:
            self._spans.remove(span)
            self.there.append((span.begin, span.at))

    @property
    def is_idle(self) -> bool:
        """Whether nobody reads any of it."""
        return not self._spans

    def front(self) -> int:
        with self._lock:
            known = sorted([*self.there, *((span.begin, span.at) for span in self._spans)])
        front = 0
        for begin, end in known:
            if begin > front:
                break
            front = max(front, end)
        return front


class RateLimit:
    """Bytes a second of all threads together; 0 is no limit."""

    def __init__(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0
        self._lock = threading.Lock()

    def wait(self, count: int) -> None:
        if not self._bytes_per_s:
            return
        with self._lock:
            now = time.monotonic()
            free_at = max(self._free_at, now)
            self._free_at = free_at + count / self._bytes_per_s
        if free_at > now:
            time.sleep(free_at - now)


class ByteSource(ABC):
    """Every method raises ReadFault."""

    @abstractmethod
    def open(self, target: Target) -> bool:
        """Sets `descriptor` and `there`; whether all of it is there, and was checked."""

    @abstractmethod
    def read(self, target: Target, span: Span, limit: RateLimit, moved: Callable[[], None]) -> None:
        """Up to the end of `span`, whose `at` moves; `moved` is called after about STEP_BYTES each."""

    def reopen(self, target: Target) -> None:
        """When it has no descriptor any more."""
        self.open(target)

    def unreadable(self, target: Target, error: OSError) -> ReadFault:
        """What a failed read of `descriptor` means."""
        return ReadFault.of("local", error)

    def keep(self, target: Target) -> None:
        """What was fetched gets its name, on disk."""
        raise ReadFault("local", "nothing of it is kept")

    def drop(self, target: Target) -> None:
        """What was fetched is removed."""
        raise ReadFault("local", "nothing of it is kept")


class ThroughMount(ByteSource):
    """Files below a mounted directory: rclone's cache keeps what is read, here it is thrown away."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._nowhere = memoryview(bytearray(REQUEST_BYTES))  # all threads write into it, and nobody reads it

    def open(self, target: Target) -> bool:
        """One descriptor for all threads: each open through FUSE empties the file's page cache, from which its digest
        is read."""
        self.reopen(target)
        return False

    def reopen(self, target: Target) -> None:
        try:
            it = Descriptor(os.open(f"{self._root}/{target.path}", os.O_RDONLY | os.O_CLOEXEC))
            found = os.fstat(it.fd)
            os.posix_fadvise(it.fd, 0, 0, os.POSIX_FADV_RANDOM)  # else the kernel reads on beyond each piece
        except OSError as error:
            raise ReadFault.of(self._kind(error), error) from None
        if not stat.S_ISREG(found.st_mode):
            raise ReadFault("file", "it is no file")
        if found.st_size != target.size:
            raise ReadFault("file", f"it has {found.st_size} bytes instead of {target.size}")
        target.descriptor = it

    def _kind(self, error: OSError) -> str:
        """Below a root that is not there, nothing is: then it is the mount that is missing."""
        if error.errno not in OF_THE_FILE:
            return "again"
        try:
            os.stat(self._root)
        except OSError:
            return "again"
        return "file"

    def read(self, target: Target, span: Span, limit: RateLimit, moved: Callable[[], None]) -> None:
        if target.descriptor is None:
            self.reopen(target)
        it, told = target.descriptor, span.at
        assert it is not None
        while count := span.take(REQUEST_BYTES):
            limit.wait(count)
            try:
                got = os.preadv(it.fd, [self._nowhere[:count]], span.at)
            except OSError as error:
                raise self.unreadable(target, error) from None
            if not got:
                raise ReadFault("file", f"it ends at {span.at} of {target.size} bytes")
            span.at += got
            if span.at - told >= STEP_BYTES:
                told = span.at
                moved()

    def unreadable(self, target: Target, error: OSError) -> ReadFault:
        target.descriptor = None  # that of a mount that was replaced would never work again
        return ReadFault.of("again", error)
