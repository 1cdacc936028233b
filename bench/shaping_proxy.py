"""The shaping proxy, a process of its own: `python -m bench.shaping_proxy`, see `Shaped`.

It moves the bodies of objects from socket to socket inside the kernel (splice), so that it is not what is measured; it
says how much CPU it has used. The Host header passes unchanged, because the client's signature covers it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import unquote

from bench.shaping import Counts, Shape

PIECE_BYTES = 256 * 1024
PIPE_BYTES = 1024 * 1024
HEAD_BYTES = 64 * 1024
SEND_BUFFER_BYTES = 256 * 1024
"""Towards a client: what it has not asked for any more was counted all the same, and must not be much."""
SLICE_S = 0.05
"""What an idle line may send at once: it makes up for sleeps that end late."""
SILENCE_S = 120.0
"""A connection on which nothing moves for so long ends."""
CONNECT_S = 10.0


class Line:
    """Lets bytes through at a rate: each piece waits until it would have passed a line of that speed."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0
        self._lock = threading.Lock()

    def take(self, size: int, now: float) -> float:
        """When a piece that is given to the line now has passed it."""
        with self._lock:
            self._free_at = max(self._free_at, now - SLICE_S) + size / self._bytes_per_s
            return self._free_at


class Buffered:
    """A socket, and what was received of it beyond the last head or line."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.rest = b""

    def until(self, mark: bytes) -> bytes:
        """Up to and with `mark`; empty at the end of the connection. Raises OSError, ValueError."""
        while (at := self.rest.find(mark)) < 0:
            data = self.socket.recv(HEAD_BYTES)
            if not data:
                return b""
            self.rest += data
            if len(self.rest) > 2 * HEAD_BYTES:
                raise ValueError("a head without an end")
        end = at + len(mark)
        found, self.rest = self.rest[:end], self.rest[end:]
        return found

    def some(self, most: int) -> bytes:
        """At least a byte. Raises ConnectionError at the end of the connection."""
        if self.rest:
            found, self.rest = self.rest[:most], self.rest[most:]
            return found
        if not (data := self.socket.recv(min(most, HEAD_BYTES))):
            raise ConnectionError("ended in the middle of a body")
        return data


@dataclass(frozen=True, slots=True)
class Head:
    raw: bytes
    start: list[str]
    headers: dict[str, str]

    @classmethod
    def parse(cls, raw: bytes) -> Head:
        first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return cls(raw, first.split(" ", 2), {name.strip().lower(): value.strip() for name, _, value in pairs})

    @property
    def length(self) -> int | None:
        return int(self.headers["content-length"]) if "content-length" in self.headers else None

    @property
    def is_chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def is_last(self) -> bool:
        """Whether its sender ends the connection afterwards."""
        return "close" in self.headers.get("connection", "").lower()


def kind_of(method: str, target: str) -> tuple[str, str]:
    """HEAD, GET and so on of an object with its path, or LIST for each GET of a bucket or of the buckets."""
    bucket, _, key = unquote(target.partition("?")[0]).removeprefix("/").partition("/")
    return (method, f"{bucket}/{key}") if key or method != "GET" else ("LIST", "")


class Server:
    """The proxy itself: a thread a connection, which waits most of the time."""

    def __init__(self, listen: tuple[str, int], upstream: tuple[str, int], shape: Shape) -> None:
        self._listen, self._upstream, self._shape = listen, upstream, shape
        self._total = Line(shape.total_bytes_per_s)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._counts, self._since = Counts(), (time.process_time(), time.monotonic())

    def counts(self, *, reset: bool = False) -> Counts:
        """Since it began or was last `reset`."""
        with self._lock:
            counts, (cpu, wall) = self._counts, self._since
            now = time.process_time(), time.monotonic()
            found = Counts(Counter(counts.kinds), Counter(counts.bytes_by_object), now[0] - cpu, now[1] - wall)
            if reset:
                self._counts, self._since = Counts(), now
        return found

    def up(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(self._listen, backlog=512)  # with SO_REUSEADDR
            threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def down(self) -> None:
        """Cuts each connection and refuses new ones."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes its thread
            listener.close()
        with self._lock:
            open_now = [*self._open]
        for each in open_now:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Request after request, until either side is done with the connection."""
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        with contextlib.suppress(OSError, ValueError, IndexError), contextlib.ExitStack() as stack:
            stack.enter_context(self._kept(client))
            server = stack.enter_context(self._kept(socket.create_connection(self._upstream, CONNECT_S)))
            server.settimeout(None)
            line = Line(self._shape.connection_bytes_per_s)
            exchanges = Exchanges(self, Buffered(client), Buffered(server), line, stack.enter_context(_pipe()))
            while exchanges.next():
                pass

    @contextmanager
    def _kept(self, connection: socket.socket) -> Iterator[socket.socket]:
        """In the list of what `down` cuts, closed afterwards."""
        silence = struct.pack("ll", int(SILENCE_S), 0)
        for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, direction, silence)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(connection)
        try:
            if self._listener is None:  # accepted in the moment of going down
                raise ConnectionError("down")
            yield connection
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def answers_later(self, kind: str) -> None:
        """A request has come."""
        with self._lock:
            self._counts.kinds[kind] += 1
        time.sleep(self._shape.latency_s)

    def passes(self, size: int, line: Line, key: str) -> None:
        """Bytes of a body that may go to the client once this returns."""
        now = time.monotonic()
        passed_at = max(line.take(size, now), self._total.take(size, now))
        if key:  # counted first, so that who has received something finds it counted
            with self._lock:
                self._counts.bytes_by_object[key] += size
        if passed_at > now:
            time.sleep(passed_at - now)


@dataclass(frozen=True, slots=True)
class Exchanges:
    """One client's connection, and the one to the store that its requests share."""

    proxy: Server
    client: Buffered
    store: Buffered
    line: Line
    pipe: tuple[int, int]

    def next(self) -> bool:
        """One request and its answer; whether the connection lives on. Raises OSError, ValueError."""
        if not (raw := self.client.until(b"\r\n\r\n")):
            return False
        request = Head.parse(raw)
        method, target = request.start[:2]
        kind, key = kind_of(method, target)
        self.proxy.answers_later(kind)
        self.store.socket.sendall(request.raw)
        _copy(self.client, self.store.socket, request.length or 0)
        answer = self._head_of_answer()
        status = int(answer.start[1])
        if method == "HEAD" or status in {204, 304}:
            pass
        elif answer.is_chunked:
            _copy_chunks(self.store, self.client.socket)
        else:
            self._send(answer.length or 0, key if kind == "GET" and status in {200, 206} else "")
        return not (answer.is_last or request.is_last)

    def _head_of_answer(self) -> Head:
        while True:
            if not (raw := self.store.until(b"\r\n\r\n")):
                raise ConnectionError("ended before its answer")
            answer = Head.parse(raw)
            self.client.socket.sendall(answer.raw)
            if not answer.start[1].startswith("1"):  # an interim answer
                return answer

    def _send(self, size: int, key: str) -> None:
        """The body of an object, in the shape's time."""
        left, client, (end, start) = size, self.client.socket, self.pipe
        while left:
            data = self.store.some(left) if self.store.rest else b""
            moved = len(data) or os.splice(self.store.socket.fileno(), start, min(left, PIECE_BYTES))
            if not moved:
                raise ConnectionError("ended in the middle of a body")
            self.proxy.passes(moved, self.line, key)
            if data:
                client.sendall(data)
            waiting = moved - len(data)
            while waiting:
                waiting -= os.splice(end, client.fileno(), waiting)
            left -= moved


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        with contextlib.suppress(OSError):  # as large as this user may
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _copy(source: Buffered, target: socket.socket, size: int) -> None:
    while size:
        data = source.some(size)
        target.sendall(data)
        size -= len(data)


def _copy_chunks(source: Buffered, target: socket.socket) -> None:
    while True:
        line = source.until(b"\r\n")
        target.sendall(line)
        size = int(line.partition(b";")[0], 16)
        if not size:
            break
        _copy(source, target, size + 2)
    while True:  # trailers, and the empty line after them
        line = source.until(b"\r\n")
        target.sendall(line)
        if line in {b"", b"\r\n"}:
            return


def serve(server: Server, asked: IO[str], answers: IO[str]) -> None:
    """A word a line, an answer a line, until the end of `asked`."""
    for line in asked:
        found: dict[str, Any] = {}
        match line.strip():
            case "up":
                server.up()
            case "down":
                server.down()
            case "counts" | "reset" as word:
                found = server.counts(reset=word == "reset").as_json()
        print(json.dumps(found), file=answers, flush=True)


def main() -> None:
    """HOST PORT UPSTREAM-HOST UPSTREAM-PORT SHAPE, the last as JSON."""
    host, port, upstream_host, upstream_port, shape = sys.argv[1:]
    server = Server((host, int(port)), (upstream_host, int(upstream_port)), Shape(**json.loads(shape)))
    serve(server, sys.stdin, sys.stdout)


if __name__ == "__main__":
    main()
