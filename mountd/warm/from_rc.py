"""The other source: objects from rclone's remote control, past the mount, written into local files piece by piece.

Standard library only, as the worker, which is the only one to import it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Callable, Mapping

from mountd.warm.sources import STEP_BYTES, ByteSource, Descriptor, RateLimit, ReadFault, Span, Target

RC_STEP_BYTES = 128 * 1024
"""What is fetched is written at once, so that a SIGKILL loses little: 32 KiB at a time is what rclone sends."""
BLOCK = 4096
"""Only whole blocks are written: what a file system calls data is then what was fetched."""
SILENCE_S = 30.0
"""A connection on which nothing comes for so long is given up; rclone gives up its own after 60 s."""
HEAD_BYTES = 64 * 1024
PARTIAL = ".partial"


class FromRc(ByteSource):
    """Objects from rclone's remote control (`--rc-serve`), past the mount, into `into`: DIGEST.partial, then DIGEST."""

    def __init__(self, address: str, authorization: str, into: str) -> None:
        self._address, self._authorization, self._into = address, authorization, into
        self._shows_holes: bool | None = None

    def open(self, target: Target) -> bool:
        """What lies in the partial file need not be fetched again; its digest says in the end whether it was right."""
        whole = self._place(target)
        target.there = []
        try:
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(whole, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_size == target.size:
                    return True
            if self._shows_holes is None:
                self._shows_holes = shows_holes(self._into)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            target.descriptor = it = Descriptor(os.open(whole + PARTIAL, flags, 0o600))
            if self._shows_holes:
                os.ftruncate(it.fd, target.size)
                target.there = extents(it.fd, target.size)
            else:
                os.ftruncate(it.fd, 0)
        except OSError as error:
            raise ReadFault.of("local", error) from None
        return False

    def _place(self, target: Target) -> str:
        return f"{self._into}/{target.sha256}"

    def read(self, target: Target, span: Span, limit: RateLimit, moved: Callable[[], None]) -> None:
        it = target.descriptor
        assert it is not None
        buffer = memoryview(bytearray(RC_STEP_BYTES))
        told = span.at
        with socket.socket(socket.AF_UNIX) as connection:
            # A time limit in the kernel: with that of Python each read would be two system calls.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(SILENCE_S), 0))
            filled = self._ask(connection, target, span, buffer)
            while count := span.take(RC_STEP_BYTES):
                if filled < count:
                    got = _receive(connection, buffer[filled:count])
                    filled += got
                    limit.wait(got)  # meanwhile rclone has to wait as well
                ready = filled if filled >= count else filled - filled % BLOCK
                if ready:
                    _write(it.fd, buffer[:ready], span.at)
                    buffer[: filled - ready] = buffer[ready:filled]
                    filled -= ready
                    span.at += ready
                    if span.at - told >= STEP_BYTES:
                        told = span.at
                        moved()

    def _ask(self, connection: socket.socket, target: Target, span: Span, buffer: memoryview) -> int:
        """How many bytes of the body came with the head of the answer: they are in `buffer`."""
        most = span.take(RC_STEP_BYTES)
        end = span.end
        request = (
            f"GET {target.url} HTTP/1.1\r\nHost: rclone\r\nAuthorization: {self._authorization}\r\n"
            f"Range: bytes={span.at}-{end - 1}\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n"
        )
        try:
            connection.connect(self._address)
            connection.sendall(request.encode("ascii"))
            answer = b""
            while b"\r\n\r\n" not in answer:
                part = connection.recv(HEAD_BYTES)
                if not part or len(answer) > HEAD_BYTES:
                    raise ReadFault("again", "rclone's answer ends too soon")
                answer += part
        except OSError as error:
            raise _unanswered(error) from None
        head, _, body = answer.partition(b"\r\n\r\n")
        check_answer(head, span.at, end, target.size)
        if len(body) > most:
            raise ReadFault("again", "rclone's answer is longer than it says")
        buffer[: len(body)] = body
        return len(body)

    def keep(self, target: Target) -> None:
        it, whole = target.descriptor, self._place(target)
        assert it is not None
        try:
            os.ftruncate(it.fd, target.size)  # of an empty one nothing was written
            os.fsync(it.fd)
            os.rename(whole + PARTIAL, whole)
            directory = Descriptor(os.open(self._into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            os.fsync(directory.fd)
        except OSError as error:
            raise ReadFault.of("local", error) from None

    def drop(self, target: Target) -> None:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._place(target) + PARTIAL)
        except OSError as error:
            raise ReadFault.of("local", error) from None


def _unanswered(error: OSError) -> ReadFault:
    if isinstance(error, BlockingIOError):
        return ReadFault("again", f"nothing came from rclone for {SILENCE_S:g} s", errno.ETIMEDOUT)
    return ReadFault.of("again", error)


def _receive(connection: socket.socket, buffer: memoryview) -> int:
    try:
        got = connection.recv_into(buffer)
    except OSError as error:
        raise _unanswered(error) from None
    if not got:
        raise ReadFault("again", "rclone's answer ends too soon")
    return got


def _write(fd: int, data: memoryview, at: int) -> None:
    try:
        while data:
            written = os.pwrite(fd, data, at)
            data, at = data[written:], at + written
    except OSError as error:
        raise ReadFault.of("local", error) from None


def check_answer(head: bytes, begin: int, end: int, size: int) -> None:
    """That this is the head of an answer with those bytes of an object of that size. Raises ReadFault.

    rclone's remote control answers a range with 206; `rclone serve s3` with 200 and a Content-Range.
    """
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0][9:12]) if lines[0][9:12].isdecimal() else 0
    if status not in (200, 206):
        raise ReadFault("again", f"rclone answers with status {status}", status=status)
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    got_begin, got_end, total = _content_range(fields)
    if total != size:
        raise ReadFault("file", f"it has {total} bytes instead of {size}")
    if (got_begin, got_end) != (begin, end) or fields.get("content-length") != str(end - begin):
        raise ReadFault("again", "rclone's answer is another range than was asked for", status=status)


def _content_range(fields: Mapping[str, str]) -> tuple[int, int, int]:
    """`bytes 0-9/50` → 0, 10, 50; without one all of the object is meant."""
    try:
        if "content-range" not in fields:
            length = int(fields["content-length"])
            return 0, length, length
        part, _, total = fields["content-range"].removeprefix("bytes ").partition("/")
        first, _, last = part.partition("-")
        return int(first), int(last) + 1, int(total)
    except (KeyError, ValueError):
        raise ReadFault("again", "rclone's answer has no length") from None


def shows_holes(directory: str) -> bool:
    """Whether a file there shows, block by block, what of it was written: then it is known what need not be fetched
    again. Raises OSError."""
    with tempfile.TemporaryFile(dir=directory) as file:
        fd = file.fileno()
        os.ftruncate(fd, 2 * STEP_BYTES)
        os.pwrite(fd, b"\1" * BLOCK, STEP_BYTES)
        return extents(fd, 2 * STEP_BYTES) == [(STEP_BYTES, STEP_BYTES + BLOCK)]


def extents(fd: int, size: int) -> list[tuple[int, int]]:
    """Which parts of the file hold data, as its file system reports, which may report nothing. Raises OSError."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.EINVAL, errno.EOPNOTSUPP):  # a hole to the end; does not know holes
                break
            raise
        if begin < min(at, size):
            found.append((begin, min(at, size)))
    return found
