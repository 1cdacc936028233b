"""TLS on the TCP port: new connections get the current certificate; connections without a handshake are limited."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from mountd.api.connections import lies_over

HANDSHAKE_S = 10.0
FAREWELL_S = 2.0
"""For a client that has to close its side, too."""
Accepts = Callable[[], asyncio.Protocol]


class Handshakes:
    """`context` may be replaced at any time. At most `most` connections are not so far; then the oldest is closed."""

    def __init__(self, context: ssl.SSLContext, accepts: Accepts, most: int) -> None:
        self.context = context
        self._accepts = accepts
        self._most = most
        self._pending: dict[asyncio.Transport, asyncio.Task[None]] = {}

    def __call__(self) -> asyncio.Protocol:
        """For a new connection."""
        return _Handshake(self)

    def begin(self, transport: asyncio.Transport, protocol: _Handshake) -> None:
        self._pending[transport] = asyncio.get_running_loop().create_task(self._speak(transport, protocol))
        for oldest in list(self._pending)[: -self._most]:
            oldest.abort()

    async def _speak(self, transport: asyncio.Transport, protocol: _Handshake) -> None:
        loop = asyncio.get_running_loop()
        try:
            secure = await loop.start_tls(
                transport,
                protocol,
                self.context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=FAREWELL_S,
            )
        except OSError:  # of ssl as well: who asks speaks no TLS, trusts nobody, or has gone away
            transport.abort()
            return
        finally:
            self._pending.pop(transport, None)
        if secure is not None and not protocol.is_lost:
            lies_over(secure, transport)
            protocol.hand_over(secure, self._accepts())

    async def close(self) -> None:
        pending = list(self._pending.items())
        for transport, task in pending:
            transport.abort()
            task.cancel()
        await asyncio.gather(*(task for _, task in pending), return_exceptions=True)


class _Handshake(asyncio.Protocol):
    """What a connection is until it speaks TLS."""

    def __init__(self, handshakes: Handshakes) -> None:
        self._handshakes = handshakes
        self._early = b""
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._handshakes.begin(transport, self)

    def data_received(self, data: bytes) -> None:
        self._early += data  # what came in one piece with the end of the handshake: one read of the socket at most

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True

    def hand_over(self, secure: asyncio.Transport, server: asyncio.Protocol) -> None:
        secure.set_protocol(server)
        server.connection_made(secure)
        if self._early:
            server.data_received(self._early)
