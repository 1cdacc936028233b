"""The cookie of a session: its name, how it is read from a request, set and removed."""

from __future__ import annotations

from aiohttp import web

PLAIN, SECURE = "mountd", "__Host-mountd"
"""A browser takes the second only from a connection with TLS, for the whole host, and from no other host."""
MAX_CHARACTERS = 100


def cookie_of(request: web.Request) -> str | None:
    """What the browser sends for the session, None without it."""
    found = request.cookies.get(_name(request))
    return found if found and len(found) <= MAX_CHARACTERS else None


def set_cookie(request: web.Request, answer: web.Response, value: str) -> None:
    """Until the browser is closed: no script reads it, and no page of another site makes the browser send it."""
    is_secure = _is_secure(request)
    answer.set_cookie(_name(request), value, httponly=True, samesite="Strict", path="/", secure=is_secure)


def remove_cookie(request: web.Request, answer: web.Response) -> None:
    is_secure = _is_secure(request)
    answer.del_cookie(_name(request), httponly=True, samesite="Strict", path="/", secure=is_secure)


def _is_secure(request: web.Request) -> bool:
    """A client that lies about its proxy changes its own cookie only."""
    return request.secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"


def _name(request: web.Request) -> str:
    """With the port that the browser asks: it keeps one set of cookies for all ports of a host."""
    port = request.headers.get("Host", "").rpartition(":")[2]
    suffix = f"-{port}" if port.isascii() and port.isdigit() and len(port) < 6 else ""
    return f"{SECURE if _is_secure(request) else PLAIN}{suffix}"
