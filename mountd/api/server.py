"""Serves the routes: everything on the control socket, on TCP what the guard lets through."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from mountd.api import connections
from mountd.api.connections import bounded, limited
from mountd.api.encryption import Handshakes
from mountd.api.guard import Guard
from mountd.api.peer import CALLER, Peer
from mountd.api.roles import Handler, needed
from mountd.api.routes import MAX_BODY_BYTES, Routes, errors_as_documents
from mountd.api.shielded import Shielded
from mountd.api.sockets import QUEUE, Identity, bind_tcp, bind_unix, cannot_listen, find_group, identity
from mountd.settings.http import HttpSettings
from mountd.settings.schema import ControlSettings
from mountd.settings.tokens import NO_TOKENS, Tokens

SHUTDOWN_S = 2.0
KEEP_OPEN_S = 75.0
"""A connection on which no request comes, as browsers and proxies expect."""
CUT_OFF_S = 0.5
"""For requests that continue without their client."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What the TCP port is opened with, as it was read: whose tokens are valid, and what it speaks TLS with.

    `expires`: when its certificate does, in seconds since 1970; None: it has none, or that is not known.
    """

    tokens: Tokens = NO_TOKENS
    context: ssl.SSLContext | None = None
    expires: float | None = None


NOBODY = Admission()
"""No token is valid, and it speaks plain text."""


@dataclass(slots=True)
class Listening:
    """One socket and what serves it; of a TCP one also its settings, its guard and its handshakes."""

    listener: asyncio.Server
    runner: web.AppRunner
    http: HttpSettings
    guard: Guard | None = None
    handshakes: Handshakes | None = None
    admission: Admission = NOBODY

    def admit(self, http: HttpSettings, admission: Admission) -> None:
        self.http, self.admission = http, admission
        if self.guard is not None:
            self.guard.admit(http, admission.tokens)
        if self.handshakes is not None and admission.context is not None:
            self.handshakes.context = admission.context

    async def close(self) -> None:
        self.listener.close()
        if self.handshakes is not None:
            await self.handshakes.close()
        await self.runner.cleanup()


class Server:
    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._unix: Listening | None = None
        self._tcp: Listening | None = None
        self._socket: tuple[Path, Identity] | None = None
        self._shielded = Shielded()
        self._shielded_tcp = Shielded()
        """apart: what comes over the network leaves room for the control socket"""

    async def listen_unix(self, control: ControlSettings) -> None:
        """Everything, for users whom the socket's mode lets in. Raises Busy, MountdError."""
        gid = await find_group(control)
        sock = bind_unix(control.socket, gid)
        self._socket = control.socket, identity(control.socket)
        app = self._app([_by_peer, self._shielded.middleware, errors_as_documents])
        self._unix = await self._serve(app, sock, HttpSettings())

    async def listen_tcp(self, http: HttpSettings, admission: Admission = NOBODY) -> None:
        """What the guard lets through. Raises MountdError.

        Called again it moves there: the new address answers before the old one closes, or the old one stays.
        """
        host, port = http.address
        try:
            sock = bind_tcp(host, port)
        except OSError as error:
            if self._tcp is None or self._tcp.http.address[1] != port:
                raise await cannot_listen(http, error) from None
            # The port may be ours, on another address of this machine.
            sock = await self._take_over(self._tcp, http)
        before, self._tcp = self._tcp, await self._serve_tcp(http, admission, sock)
        if before is not None:
            await before.close()

    def admit(self, http: HttpSettings, admission: Admission) -> None:
        """Others may ask at the address that is there, or it has another certificate: from the next request on."""
        if self._tcp is not None:
            self._tcp.admit(http, admission)

    async def _take_over(self, before: Listening, http: HttpSettings) -> socket.socket:
        before.listener.close()
        try:
            return bind_tcp(*http.address)
        except OSError as error:
            try:
                sock = bind_tcp(*before.http.address)
            except OSError as lost:
                raise await cannot_listen(before.http, lost) from None
            self._tcp = await self._serve_tcp(before.http, before.admission, sock)
            await before.close()
            raise await cannot_listen(http, error) from None

    async def _serve_tcp(self, http: HttpSettings, admission: Admission, sock: socket.socket) -> Listening:
        guard = Guard(needed(self._routes.table()), http, admission.tokens, self._routes.sessions)
        app = self._app([guard.middleware, self._shielded_tcp.middleware, errors_as_documents])
        made = await self._serve(app, sock, http, admission.context)
        made.guard, made.admission = guard, admission
        return made

    def _app(self, layers: Sequence[Middleware]) -> web.Application:
        app = web.Application(middlewares=[bounded, *layers], client_max_size=MAX_BODY_BYTES)
        app.add_routes([each.definition for each in self._routes.table()])
        app.on_response_prepare.append(_as_it_says)
        return app

    async def _serve(
        self, app: web.Application, sock: socket.socket, http: HttpSettings, context: ssl.SSLContext | None = None
    ) -> Listening:
        runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=SHUTDOWN_S,
            handler_cancellation=True,
            keepalive_timeout=KEEP_OPEN_S,
        )
        await runner.setup()
        served = runner.server
        assert served is not None
        accepts = limited(served)
        handshakes = Handshakes(context, accepts, connections.MAX_CONNECTIONS) if context is not None else None
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(handshakes or accepts, sock=sock, backlog=connections.ACCEPTED_AT_ONCE)
        sock.listen(QUEUE)  # the others wait in the kernel meanwhile
        return Listening(listener, runner, http, handshakes=handshakes)

    async def close(self) -> None:
        if self._socket is not None:
            path, ours = self._socket
            with contextlib.suppress(OSError):
                if identity(path) == ours:  # something else may be there by now
                    os.unlink(path)
        listening = [each for each in (self._unix, self._tcp) if each is not None]
        for each in listening:
            each.listener.close()
        await asyncio.gather(*(each.close() for each in listening))
        await asyncio.gather(self._shielded.close(CUT_OFF_S), self._shielded_tcp.close(CUT_OFF_S))


async def _as_it_says(_: web.Request, response: web.StreamResponse) -> None:
    """A browser takes an answer for what its header says and nothing else, shows it to no page of another site, and
    keeps it only where the route says so."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")


@web.middleware
async def _by_peer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """On the control socket: CALLER is the user who is connected, for what changes something."""
    if request.method not in ("GET", "HEAD"):
        if request.transport is None:
            raise ConnectionResetError("the client is gone already")
        CALLER.set(Peer.of(request.transport.get_extra_info("socket")))  # while there is one
    return await handler(request)
