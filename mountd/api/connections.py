"""The connections of one socket: how many there may be, which yields, what is kept of one that sends garbage,
and of answers that nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast
from weakref import WeakKeyDictionary, WeakSet

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from mountd.api.roles import Handler

MAX_CONNECTIONS = 200
"""For each socket, so that descriptors are left for mounts."""
ACCEPTED_AT_ONCE = 10
"""For each turn of the event loop: a burst must not close connections whose request was not read yet."""
LOOK_S = 10.0
"""How often answers that are not read are looked for."""
STALLED_S = 30.0
"""A connection that reads nothing of its answer for so long is closed."""
MOST_UNREAD = 64 * 1024 * 1024
"""Bytes of answers that may wait for all clients of a socket; beyond it the connection with the most is closed."""
_STREAMS: WeakSet[asyncio.BaseTransport] = WeakSet()


@contextmanager
def streaming(request: web.Request) -> Iterator[None]:
    """While it answers `request` with a stream, its connection is among the first that yield to new ones."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone already")
    _STREAMS.add(transport)
    try:
        yield
    finally:
        _STREAMS.discard(transport)


class Unread:
    """The answers of one socket that clients have not read: all of it waits in memory, also once aiohttp has closed
    the connection and forgotten its transport."""

    def __init__(self) -> None:
        self._open: dict[RequestHandler, tuple[asyncio.Transport, int, float]] = {}
        """how many bytes waited at the last look, and since when they have not become fewer"""
        self._next: asyncio.TimerHandle | None = None

    def add(self, connection: RequestHandler, transport: asyncio.Transport) -> None:
        self._open[connection] = transport, 0, 0.0
        if self._next is None:
            self._next = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def remove(self, connection: RequestHandler) -> None:
        self._open.pop(connection, None)
        if not self._open and self._next is not None:
            self._next.cancel()
            self._next = None

    def bound(self) -> None:
        """Closes the connections with the most, until MOST_UNREAD or less waits for the others."""
        waiting = [(_unread(transport), transport) for transport, _, _ in self._open.values()]
        total = sum(size for size, _ in waiting)
        while total > MOST_UNREAD:
            most = max(waiting, key=lambda each: each[0])
            waiting.remove(most)
            total -= most[0]
            most[1].abort()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection, (transport, before, since) in list(self._open.items()):
            size = _unread(transport)
            # What is read of a stream is soon replaced; each of its pieces has a deadline of its own.
            is_read = not before or size < before or transport in _STREAMS
            if not is_read and now - since >= STALLED_S:
                transport.abort()
            self._open[connection] = transport, size, now if is_read else since
        self.bound()
        self._next = loop.call_later(LOOK_S, self._look)


_UNREAD: WeakKeyDictionary[web.Server, Unread] = WeakKeyDictionary()
_BELOW: WeakKeyDictionary[asyncio.BaseTransport, asyncio.Transport] = WeakKeyDictionary()


def lies_over(secure: asyncio.Transport, transport: asyncio.Transport) -> None:
    """What is sent through `secure`, which encrypts it, may wait in `transport`."""
    _BELOW[secure] = transport


def _unread(transport: asyncio.Transport) -> int:
    below = _BELOW.get(transport)
    return transport.get_write_buffer_size() + (below.get_write_buffer_size() if below is not None else 0)


@web.middleware
async def bounded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Each answer is made once the others leave room. Of one connection the next waits for the one before by itself."""
    served = request.protocol._manager
    if served is not None:
        _UNREAD[served].bound()
    return await handler(request)


def limited(served: web.Server) -> Callable[[], asyncio.Protocol]:
    """Makes the server's connections. Beyond the limit it closes the oldest stream, whose client connects again, and
    without streams the oldest connection: nobody uses it any more, or somebody holds it on purpose."""
    loop = asyncio.get_running_loop()
    _UNREAD[served] = Unread()

    def close_oldest() -> None:
        open_ones = [each.transport for each in served.connections if each.transport is not None]
        excess = len(open_ones) - MAX_CONNECTIONS
        if excess > 0:
            open_ones.sort(key=lambda each: each not in _STREAMS)
            for transport in open_ones[:excess]:
                transport.abort()

    def accept() -> asyncio.Protocol:
        # The server knows it from the loop's next turn on.
        loop.call_soon(loop.call_soon, close_oldest)
        made = served()
        made.__class__ = _Forgetful
        return made

    return accept


class _Forgetful(RequestHandler):
    """Keeps nothing of what cannot be parsed.

    aiohttp keeps the error, whose traceback holds data and error: a client that sends without end would fill the
    memory before the garbage is collected.
    """

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._manager is not None:
            _UNREAD[self._manager].add(self, cast("asyncio.Transport", transport))

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._manager is not None:
            _UNREAD[self._manager].remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        for message, _ in self._messages:
            error: BaseException | None = getattr(message, "exc", None)
            while error is not None:
                error.__traceback__ = None
                error = error.__context__
