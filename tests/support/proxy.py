"""An HTTP/1.1 proxy in front of an S3 server that counts what passes and, at run time, lets it go wrong.

The Host header passes unchanged, because the client's signature covers it. What goes wrong is decided by `Faults`:
everything here only forwards, goes away and comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from tests.support import hold_port
from tests.support.faults import Closed, Exchange, Faults, Line, Reply, Reset
from tests.support.http1 import HEAD_BYTES, Head, read_body, read_head

__all__ = ["Closed", "Counts", "Exchange", "Faults", "Proxy", "Reply", "Reset"]

T = TypeVar("T")
REMEMBERED = 100_000
CALL_TIMEOUT_S = 60.0
LINGER_S = 1.0  # closing a socket with unread bytes can destroy the answer, so a refused body is read on for this long


@dataclass(slots=True)
class Counts:
    """What passed, as long as it is not reset; may be read from any thread."""

    requests: Counter[str] = field(default_factory=Counter)  # by method
    kinds: Counter[str] = field(default_factory=Counter)  # by kind: distinguishes LIST from GET
    body_bytes: int = 0  # of bodies sent to clients, without framing
    object_bytes: int = 0  # of them, what was content of objects: no listings, no errors
    exchanges: deque[Exchange] = field(default_factory=lambda: deque(maxlen=REMEMBERED))  # the newest last


class Connection:
    """One client's connection, and the one to the server that its requests share."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._line = Line()

    async def serve(self) -> None:
        """Request after request, until either side is done with the connection."""
        try:
            while await self._exchange():
                pass
            self._writer.close()
        except Closed:
            self._writer.close()
        except Reset:
            # Only with this option does closing send a reset, not an end in good order.
            connection = self._writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass  # an unreachable server too: to the client it is a connection that breaks
        finally:
            if not self._writer.is_closing():  # closing means that what is buffered still goes out
                self._writer.transport.abort()
            if self._server is not None:
                self._server[1].transport.abort()

    async def _exchange(self) -> bool:
        """One request and its answer; whether the connection lives on."""
        try:
            head = await read_head(self._reader)
        except asyncio.IncompleteReadError as end:
            if end.partial:
                raise
            return False
        method, target, version = head.start
        exchange = Exchange(method, target, head.headers, line=self._line)
        counts = self._proxy.counts
        counts.requests[method] += 1
        counts.kinds[exchange.kind] += 1
        counts.exchanges.append(exchange)

        reply = await self._proxy.faults.request(exchange)
        if reply is not None:
            return await self._answer(head, exchange, reply)

        reader, writer = await self._connect()
        writer.write(head.raw)
        # At the same time, because a server may answer before the body, with "100 Continue" or with a refusal.
        sending = asyncio.create_task(self._send_body(head, writer, exchange))
        answering = asyncio.create_task(self._forward_answer(reader, exchange))
        try:
            await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()  # raises when the client went away in the middle of its body
            alive = await answering
            await asyncio.wait({sending}, timeout=LINGER_S)
            return alive and sending.done() and sending.exception() is None and head.keeps_alive(version)
        finally:
            await _end(sending, answering)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._server is None or self._server[0].at_eof():
            if self._server is not None:
                self._server[1].transport.abort()
            self._server = await asyncio.open_connection(*self._proxy.upstream, limit=HEAD_BYTES)
        return self._server

    async def _send_body(self, head: Head, writer: asyncio.StreamWriter, exchange: Exchange) -> None:
        faults = self._proxy.faults
        async for data, payload in read_body(self._reader, head.length or 0, head.chunked):
            left = memoryview(data)
            while left:
                size = faults.slice(len(left)) if payload else len(left)
                await faults.upload(exchange, size if payload else 0)
                exchange.sent_bytes += size if payload else 0
                # A server that reads no further may have answered already, so this failure is not yet the request's.
                with contextlib.suppress(OSError):
                    if not writer.is_closing():
                        writer.write(left[:size])
                        await writer.drain()
                left = left[size:]

    async def _forward_answer(self, reader: asyncio.StreamReader, exchange: Exchange) -> bool:
        head = await read_head(reader)
        while head.start[1].startswith("1"):  # interim answers
            self._writer.write(head.raw)
            await self._writer.drain()
            head = await read_head(reader)
        bodyless = exchange.method == "HEAD" or int(head.start[1]) in {204, 304}
        length = 0 if bodyless else head.length
        chunked = head.chunked and not bodyless
        exchange.promised = length
        await self._proxy.faults.answer(exchange)
        exchange.status = int(head.start[1])
        self._writer.write(head.raw)
        async for data, payload in read_body(reader, length, chunked):
            if payload:
                await self._send_payload(data, exchange)
            else:
                self._writer.write(data)
                await self._writer.drain()
        await self._writer.drain()
        return (chunked or length is not None) and head.keeps_alive(head.start[0])

    async def _send_payload(self, data: bytes, exchange: Exchange) -> None:
        faults = self._proxy.faults
        left = memoryview(data)
        while left:
            size = faults.piece(exchange, len(left))
            await faults.chunk(exchange, size)
            # Counted first, so that who has received something finds it counted.
            counts = self._proxy.counts
            exchange.body_bytes += size
            counts.body_bytes += size
            if exchange.kind == "GET" and exchange.status in {200, 206}:
                counts.object_bytes += size
            self._writer.write(left[:size])
            left = left[size:]
            await self._writer.drain()

    async def _answer(self, request: Head, exchange: Exchange, reply: Reply) -> bool:
        exchange.status = reply.status
        headers = {"Content-Length": str(len(reply.body)), "Connection": "close", **reply.headers}
        lines = [f"HTTP/1.1 {reply.status} {reply.reason}", *(f"{name}: {value}" for name, value in headers.items())]
        self._writer.write(
            ("\r\n".join(lines) + "\r\n\r\n").encode() + (b"" if exchange.method == "HEAD" else reply.body)
        )
        await self._writer.drain()
        await asyncio.wait({body := asyncio.create_task(self._skip_body(request))}, timeout=LINGER_S)
        await _end(body)
        return False

    async def _skip_body(self, request: Head) -> None:
        async for _ in read_body(self._reader, request.length or 0, request.chunked):
            pass


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # marks it as seen; a caller that needs it has awaited it


class Proxy:
    """The proxy on a port of its own, in a thread of its own, from now until `close` or the end of a `with`."""

    def __init__(self, upstream: str, faults: Faults | None = None) -> None:
        url = urlsplit(upstream)
        assert url.hostname is not None, f"not an endpoint: {upstream}"
        assert url.port is not None, f"an endpoint without a port: {upstream}"
        self.upstream = (url.hostname, url.port)
        self.faults = faults or Faults()
        self.counts = Counts()
        self._held = hold_port()
        self.host, self.port = self._held.getsockname()
        self.endpoint = f"http://{self.host}:{self.port}"
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {self.port}", daemon=True)
        self._thread.start()
        self.up()

    @property
    def latency_s(self) -> float:
        return self.faults.latency_s

    @latency_s.setter
    def latency_s(self, seconds: float) -> None:
        self.faults.latency_s = seconds

    def reset_counts(self) -> Counts:
        """Start counting from zero; returns what was counted so far. Exchanges under way still write to their own."""
        counts, self.counts = self.counts, Counts()
        return counts

    def up(self) -> None:
        """Accept connections, again on the same port."""
        self._call(self._up())

    def down(self) -> None:
        """Cut every connection and refuse new ones, as a machine does on which the server died."""
        self._call(self._down())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self.down()
        self._call(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()
        self._held.close()

    async def _up(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._accept, self.host, self.port, limit=HEAD_BYTES, backlog=512, reuse_address=True
            )

    async def _down(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # accepted in the moment of going down
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            # Only `down` cancels, and waits. Streams of Python 3.11 log a cancelled handler with a traceback.
            with contextlib.suppress(asyncio.CancelledError):
                await Connection(self, reader, writer).serve()
        finally:
            self._connections.discard(task)

    def _call(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()
