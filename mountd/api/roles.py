"""The routes as a table, and who may use which: the one place that decides it for the TCP port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from aiohttp import web

from mountd.api.documents.requests import NoQuery
from mountd.settings.tokens import Role

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RouteAccess(Enum):
    """What a route asks of those who come over TCP. On the control socket every client is an operator."""

    OPEN = "open"
    """for everybody: probes and metrics"""
    READ = "read"
    """on loopback for everybody, elsewhere for readers and operators"""
    WRITE = "write"
    """for operators"""
    SIGNED = "signed"
    """for everybody: the handler itself checks a signature, and answers 401 to a wrong one, which counts as a wrong
    token"""
    LOGIN = "login"
    """for everybody where tokens are configured: the handler itself checks one, and answers 401 to a wrong one, which
    counts as a wrong token"""


SELF_CHECKED = (RouteAccess.SIGNED, RouteAccess.LOGIN)
"""Their handlers refuse by themselves whom they do not know."""


Answers = Mapping[int, Any]
"""By HTTP status: the TypedDict of the document, a union of several, or of other types than JSON by media type."""


@dataclass(frozen=True, slots=True)
class Route:
    """`query`, `body`: TypedDicts of what it reads, `body` None: nothing; `about`: what it does, in Markdown."""

    definition: web.RouteDef
    access: RouteAccess
    query: type = NoQuery
    body: type | None = None
    answers: Answers = field(default_factory=dict)
    about: str = ""

    @property
    def method(self) -> str:
        return self.definition.method

    @property
    def path(self) -> str:
        return self.definition.path


def needed(routes: Iterable[Route]) -> Mapping[tuple[str, str], RouteAccess]:
    """By method and path."""
    return {(each.method, each.path): each.access for each in routes}


def access_of(table: Mapping[tuple[str, str], RouteAccess], method: str, path: str | None) -> RouteAccess:
    """Of a request; what no route serves is read or written like all else, so that only who may learns that."""
    method = "GET" if method == "HEAD" else method
    found = table.get((method, path)) if path is not None else None
    return found or (RouteAccess.READ if method == "GET" else RouteAccess.WRITE)


class Verdict(Enum):
    ADMITTED = 200
    NO_TOKEN = 401
    """a token is needed, and none was sent"""
    NO_TOKENS = 403
    """a token is needed, and none is configured"""
    READER = 4030
    """the token of a reader, where an operator is needed"""
    NOT_OWN_PAGE = 4031
    """what a session changes has to come from the page that logged in"""

    @property
    def status(self) -> int:
        return 403 if self in (Verdict.READER, Verdict.NOT_OWN_PAGE) else self.value


def judge(access: RouteAccess, role: Role | None, *, is_local: bool, has_tokens: bool) -> Verdict:
    """`role`: of the token that was sent, or of the one that the session began with; None without one. A wrong one is
    refused before."""
    if access is RouteAccess.LOGIN and not has_tokens:
        return Verdict.NO_TOKENS
    if access in (RouteAccess.OPEN, *SELF_CHECKED) or role == "operator":
        return Verdict.ADMITTED
    if access is RouteAccess.READ and (role == "reader" or is_local):
        return Verdict.ADMITTED
    if role == "reader":
        return Verdict.READER
    return Verdict.NO_TOKEN if has_tokens else Verdict.NO_TOKENS
