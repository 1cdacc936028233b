"""Who asks: a user of this machine at the control socket, or the holder of a token on the TCP port."""

from __future__ import annotations

import asyncio
import contextlib
import pwd
import socket
import struct
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from mountd.settings.tokens import Role
from mountd.text import storable

NAME_LIMIT_S = 2.0
NAME_CHARACTERS = 64
LOOKUPS = 8
"""At most at the same time: a directory service that hangs holds a thread for each user."""

_UCRED = struct.Struct("3i")
_NO_LOGIN = 4294967295


@dataclass(frozen=True, slots=True)
class Peer:
    uid: int
    login: int | None = None
    """uid of the login, also through sudo; None: a service, or unknown"""

    @classmethod
    def of(cls, sock: socket.socket) -> Peer:
        """By SO_PEERCRED: from the kernel, not from the client."""
        pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return cls(uid, _login_uid(pid))


@dataclass(frozen=True, slots=True)
class TokenHolder:
    name: str
    role: Role | None = None


CALLER: ContextVar[Peer | TokenHolder | None] = ContextVar("caller", default=None)
"""Who asks for what is being carried out; None: somebody who needs no name for that."""
STILL_ADMITTED: ContextVar[Callable[[], bool]] = ContextVar("still_admitted", default=lambda: True)
"""Whether who asks may still do so: a stream ends when the token behind it is removed, or the session is over."""


class UserNames:
    """Names of users. A lookup may use the network: each runs in a thread, and is awaited for 2 s at most."""

    def __init__(self) -> None:
        self._asked: dict[int, asyncio.Future[str]] = {}

    async def operator(self, peer: Peer | TokenHolder) -> str:
        """The user's name, with the login behind it when it came through sudo: `alice (as root)`; `token NAME`.

        `uid 1000` when the name does not come in time, or no thread can be started to ask for it.
        """
        if isinstance(peer, TokenHolder):
            return f"token {peer.name}"
        if peer.login in (None, peer.uid):
            return await self._name(peer.uid)
        assert peer.login is not None
        login, user = await asyncio.gather(self._name(peer.login), self._name(peer.uid))
        return f"{login} (as {user})"

    async def _name(self, uid: int) -> str:
        asked = self._asked.get(uid)
        if asked is None:
            if len(self._asked) >= LOOKUPS:
                return _number(uid)
            asked = asyncio.get_running_loop().create_future()
            # No executor: the exit of mountd would wait for its threads.
            look = threading.Thread(target=self._look, args=(uid, asked), name=f"name of {uid}", daemon=True)
            try:
                look.start()
            except (RuntimeError, MemoryError):  # no thread can be started now; the next request tries again
                return _number(uid)
            self._asked[uid] = asked
        try:
            async with asyncio.timeout(NAME_LIMIT_S):
                return await asyncio.shield(asked)
        except TimeoutError:
            return _number(uid)

    def _look(self, uid: int, asked: asyncio.Future[str]) -> None:
        name = _number(uid)

        def answer() -> None:
            del self._asked[uid]
            asked.set_result(name)

        try:
            name = _look_up(uid)
        finally:  # whatever it raised: without an answer this user would never be looked up again
            with contextlib.suppress(RuntimeError):  # the loop is closed
                asked.get_loop().call_soon_threadsafe(answer)


def _login_uid(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/loginuid", encoding="ascii") as file:
            uid = int(file.read())
    except (OSError, ValueError):
        return None
    return None if uid == _NO_LOGIN else uid


def _look_up(uid: int) -> str:
    try:
        return storable(pwd.getpwuid(uid).pw_name, NAME_CHARACTERS)  # a directory service may say anything
    except (KeyError, OSError, OverflowError):
        return _number(uid)


def _number(uid: int) -> str:
    return f"uid {uid}"
