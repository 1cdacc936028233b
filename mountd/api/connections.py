"""The connections of one socket: how many there may be, which yields, and what is kept of one that sends garbage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

MAX_CONNECTIONS = 200
"""Of one socket: mounts need descriptors first."""
ACCEPTED_AT_ONCE = 10
"""In a turn of the loop: a burst must not have connections closed whose request nobody has seen yet."""
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


def limited(served: web.Server) -> Callable[[], asyncio.Protocol]:
    """Makes its connections; beyond the limit the oldest stream is closed, whose reader connects again; without streams
    the oldest connection: it is forgotten, or held on purpose."""
    loop = asyncio.get_running_loop()

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
    """What cannot be parsed is not kept.

    aiohttp keeps the error; its traceback holds the data, and itself: a client that sends without end would fill the
    memory before the garbage is collected.
    """

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        for message, _ in self._messages:
            error: BaseException | None = getattr(message, "exc", None)
            while error is not None:
                error.__traceback__ = None
                error = error.__context__
