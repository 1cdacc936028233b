"""Serves the routes: everything on the control socket, probes and local reads on TCP."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from mountd.api.documents import failures
from mountd.api.routes import MAX_BODY_BYTES, Routes, errors_as_documents
from mountd.api.shielded import Handler, Shielded
from mountd.errors import Busy, MountdError, UsageError, cause_of
from mountd.process import directories, ports, tool
from mountd.settings.schema import ControlSettings, HttpSettings

MAX_CONNECTIONS = 200
"""Of one socket: mounts need descriptors first."""
SHUTDOWN_S = 2.0
CUT_OFF_S = 0.5
"""For requests that continue without their client."""
PROBE_S = 1.0
GROUP_LIMIT_S = 30.0
"""For a directory service, which may be slow."""
Identity = tuple[int, int]
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


@dataclass(frozen=True, slots=True)
class Listening:
    """One socket and what serves it; `http`: the address of a TCP one."""

    listener: asyncio.Server
    runner: web.AppRunner
    http: HttpSettings

    async def close(self) -> None:
        self.listener.close()
        await self.runner.cleanup()


class Server:
    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._unix: Listening | None = None
        self._tcp: Listening | None = None
        self._socket: tuple[Path, Identity] | None = None
        self._shielded = Shielded()

    async def listen_unix(self, control: ControlSettings) -> None:
        """Everything, for users whom the socket's mode lets in. Raises Busy, MountdError."""
        gid = await _find_group(control)
        sock = _bind_unix(control.socket, gid)
        self._socket = control.socket, _identity(control.socket)
        layers = [self._shielded.middleware, errors_as_documents]
        app = web.Application(middlewares=layers, client_max_size=MAX_BODY_BYTES)
        app.add_routes([*self._routes.probes(), *self._routes.reads(), *self._routes.writes()])
        self._unix = await self._serve(app, sock)

    async def listen_tcp(self, http: HttpSettings) -> None:
        """Probes for everybody; the other reads only on loopback; no writes. Raises MountdError.

        Called again it moves there: the new address answers before the old one closes, or the old one stays.
        """
        host, port = http.address
        try:
            sock = _bind_tcp(host, port)
        except OSError as error:
            if self._tcp is None or self._tcp.http.address[1] != port:
                raise await _cannot_listen(http, error) from None
            # The port may be ours, on another address of this machine.
            sock = await self._take_over(self._tcp, http)
        before, self._tcp = self._tcp, await self._serve_tcp(http, sock)
        if before is not None:
            await before.close()

    async def _take_over(self, before: Listening, http: HttpSettings) -> socket.socket:
        before.listener.close()
        try:
            return _bind_tcp(*http.address)
        except OSError as error:
            try:
                sock = _bind_tcp(*before.http.address)
            except OSError as lost:
                raise await _cannot_listen(before.http, lost) from None
            self._tcp = await self._serve_tcp(before.http, sock)
            await before.close()
            raise await _cannot_listen(http, error) from None

    async def _serve_tcp(self, http: HttpSettings, sock: socket.socket) -> Listening:
        loopback = ports.is_loopback(http.address[0])
        app = web.Application(middlewares=[errors_as_documents, _guard(loopback)], client_max_size=MAX_BODY_BYTES)
        app.add_routes([*self._routes.probes(), *(self._routes.reads() if loopback else [])])
        return await self._serve(app, sock, http)

    async def _serve(self, app: web.Application, sock: socket.socket, http: HttpSettings | None = None) -> Listening:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S, handler_cancellation=True)
        await runner.setup()
        served = runner.server
        assert served is not None
        listener = await asyncio.get_running_loop().create_server(_limited(served), sock=sock)
        return Listening(listener, runner, http or HttpSettings())

    async def close(self) -> None:
        if self._socket is not None:
            path, ours = self._socket
            with contextlib.suppress(OSError):
                if _identity(path) == ours:  # something else may be there by now
                    os.unlink(path)
        listening = [each for each in (self._unix, self._tcp) if each is not None]
        for each in listening:
            each.listener.close()
        await asyncio.gather(*(each.close() for each in listening))
        await self._shielded.close(CUT_OFF_S)


def _limited(served: web.Server) -> Callable[[], asyncio.BaseProtocol]:
    """Makes its connections; beyond the limit the oldest is closed: it is forgotten, or held on purpose."""
    loop = asyncio.get_running_loop()

    def close_oldest() -> None:
        open_ones = [each.transport for each in served.connections if each.transport is not None]
        for transport in open_ones[:-MAX_CONNECTIONS]:
            transport.abort()

    def accept() -> asyncio.BaseProtocol:
        # The server knows it from the loop's next turn on.
        loop.call_soon(loop.call_soon, close_oldest)
        return served()

    return accept


def _guard(loopback: bool) -> Middleware:
    """A page in a browser must not reach us under another name (DNS rebinding); writes are for the socket."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "localhost").lower()  # a browser sends it; probes with HTTP/1.0 may not
        host = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if loopback and host not in LOCAL_NAMES:
            raise UsageError(f"cannot answer for the host {host!r}", hint="use 127.0.0.1 or localhost")
        if request.method not in ("GET", "HEAD"):
            refusal = UsageError("cannot write over TCP", hint="use the mountd command, or the control socket")
            return web.json_response(failures.error(refusal), status=403)
        return await handler(request)

    return check


def _identity(path: Path) -> Identity:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


async def _find_group(control: ControlSettings) -> int | None:
    """The id of the group that may use the socket. Raises MountdError, also without an answer in GROUP_LIMIT_S."""
    if control.group is None:
        return None
    failure = f"cannot open {control.socket} to the group {control.group}"
    try:
        gid = await tool.find_group(control.group, timeout_s=GROUP_LIMIT_S)
    except MountdError as error:
        hint = f"see that `getent group {control.group}` answers: the directory service of the machine may be down"
        raise MountdError(f"{failure}: {error.text}", hint=hint) from None
    if gid is None:
        hint = f"create it (groupadd --system {control.group}) or remove control.group"
        raise MountdError(f"{failure}: no such group", hint=hint)
    return gid


def _bind_unix(place: Path, gid: int | None = None) -> socket.socket:
    """Listens at `place`, with mode 0660 and the group `gid`, if any. Raises Busy, MountdError."""
    path = str(place)
    hint = "set control.socket to a path you may write"
    try:
        directories.make(place.parent, 0o755)  # the group must get to the socket
    except OSError as error:
        cause = cause_of(error)
        raise MountdError(f"cannot create the directory {place.parent}: {cause}", hint=hint) from None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o117)  # 0660 from the first moment on
    try:
        _make_room(path)
        sock.bind(path)
        if gid is not None:
            os.chown(path, -1, gid, follow_symlinks=False)
    except OSError as error:
        sock.close()
        raise MountdError(f"cannot listen on {path}: {cause_of(error)}", hint=hint) from None
    except MountdError:
        sock.close()
        raise
    finally:
        os.umask(mask)
    sock.listen(128)
    return sock


def _make_room(path: str) -> None:
    """Removes a socket that no process serves; anything else stays. Raises MountdError, Busy, OSError."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    hint = "move it away, or set control.socket to another path"
    if not stat.S_ISSOCK(mode):
        raise MountdError(f"cannot listen on {path}: what is there is not a socket", hint=hint)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            # A socket of another kind, or of a program that is too busy to accept: in use all the same.
            if error.errno in (errno.EPROTOTYPE, errno.EACCES):
                cause = "it is the socket of another program" if error.errno == errno.EPROTOTYPE else "it is not ours"
                raise MountdError(f"cannot listen on {path}: {cause}", hint=hint) from None
    raise Busy(f"cannot listen on {path}: another mountd answers there", hint="give this one another control.socket")


def _bind_tcp(host: str, port: int) -> socket.socket:
    """Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))  # an empty host is every address
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock


async def _cannot_listen(http: HttpSettings, error: OSError) -> MountdError:
    cause = cause_of(error)
    if error.errno == errno.EADDRINUSE:  # all processes are looked at for that
        cause = f"the port is taken by {await asyncio.to_thread(ports.holder, http.address[1])}"
    host, port = http.address
    text = f"cannot listen on {host}:{port}: {cause}"
    return MountdError(text, hint="set http.listen to a free port, such as 127.0.0.1:8781")
