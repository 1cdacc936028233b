"""Limits the connections of a socket: mounts need descriptors first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

MAX_CONNECTIONS = 200


class Connections:
    """Of one socket, oldest first; beyond the limit the oldest is closed: it is forgotten, or held on purpose."""

    def __init__(self, make: Callable[[], asyncio.BaseProtocol]) -> None:
        self._make = make
        self._known: deque[asyncio.BaseProtocol] = deque()
        self._fresh: set[asyncio.BaseProtocol] = set()
        """accepted, but connection_made was not called yet: without a transport, like those that are closed"""

    def accept(self) -> asyncio.BaseProtocol:
        """One more; the factory of a server."""
        connection = self._make()
        self._known.append(connection)
        self._fresh.add(connection)
        _once_connected(self._fresh.discard, connection)
        if len(self._known) > MAX_CONNECTIONS:
            self._known = deque(each for each in self._known if each in self._fresh or _transport(each) is not None)
        if len(self._known) > MAX_CONNECTIONS:
            _once_connected(_abort, self._known.popleft())
        return connection


def _once_connected(call: Callable[[asyncio.BaseProtocol], None], connection: asyncio.BaseProtocol) -> None:
    """The loop calls connection_made in the turn after it was accepted; `call` runs one turn later."""
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, call, connection)


def _abort(connection: asyncio.BaseProtocol) -> None:
    transport = _transport(connection)
    if transport is not None:
        transport.abort()


def _transport(connection: asyncio.BaseProtocol) -> asyncio.Transport | None:
    found: asyncio.Transport | None = getattr(connection, "transport", None)
    return found
