"""The access check of the TCP port: the name it is asked by, the token of a request, and what its role may do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from aiohttp import web

from mountd.api.cookie import cookie_of
from mountd.api.documents import failures
from mountd.api.login import LOG_IN_AGAIN, NOT_OWN_PAGE
from mountd.api.peer import CALLER, STILL_ADMITTED, TokenHolder
from mountd.api.roles import SELF_CHECKED, Handler, RouteAccess, Verdict, access_of, judge
from mountd.api.same_origin import is_same_origin
from mountd.api.sessions import Session, Sessions
from mountd.api.wrong_tokens import WrongTokens
from mountd.errors import UsageError
from mountd.settings.http import HttpSettings
from mountd.settings.tokens import Holder, Tokens
from mountd.text import dumps, storable

log = structlog.get_logger()

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
FORWARDED = ("Forwarded", "X-Forwarded-For", "Via")
"""Headers of a request that a proxy passes on: the client is not on this machine, also without `behind_proxy`."""
SCHEME = "bearer"
CSRF_HEADER = "X-Mountd-CSRF"
"""The proof of a session: what changes something has it."""
LOGGED_AT_ONCE = "all addresses"
"""Those who guess from many addresses do not fill the log, either."""
_SEND = "send `Authorization: Bearer TOKEN`; the mountd command takes it from $MOUNTD_TOKEN or $MOUNTD_TOKEN_FILE"
_HINTS = {
    Verdict.NO_TOKEN: ("a token is needed", _SEND),
    Verdict.NO_TOKENS: (
        "no tokens are configured (http.tokens)",
        "use the mountd command on this machine, or the control socket",
    ),
    Verdict.READER: ("the token is that of a reader", "use the token of an operator"),
    Verdict.NOT_OWN_PAGE: (NOT_OWN_PAGE, LOG_IN_AGAIN),
}


@dataclass(frozen=True, slots=True)
class Requester:
    """Who sends a request, and whether their token or session is still valid; `session`: the request came with one."""

    holder: Holder | None = None
    is_valid: Callable[[], bool] = lambda: True
    session: Session | None = None


class Guard:
    """`routes`: what each route needs. Everything else can change while it serves. `sessions`: of all guards."""

    def __init__(
        self,
        routes: Mapping[tuple[str, str], RouteAccess],
        http: HttpSettings,
        tokens: Tokens,
        sessions: Sessions | None = None,
    ) -> None:
        self._routes = routes
        self._sessions = sessions if sessions is not None else Sessions()
        self._wrong = WrongTokens()
        self._logged = WrongTokens()
        self.admit(http, tokens)

    def admit(self, http: HttpSettings, tokens: Tokens) -> None:
        """From the next request on."""
        self._http, self._tokens = http, tokens
        self._sessions.admit(tokens)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The outermost; answers a document itself, or calls `handler` with CALLER set to the holder of the token."""
        access = access_of(self._routes, request.method, _path_of(request))
        # What is signed may come by any name, through any proxy.
        is_named = access is not RouteAccess.SIGNED and self._http.is_local
        if is_named and (refused := _strange_host(request)):
            return refused
        if access is RouteAccess.OPEN:
            return await handler(request)
        address = self._address(request)
        is_self_checked = access in SELF_CHECKED
        token = None if is_self_checked else _token(request)
        is_local = self._http.is_local and not any(name in request.headers for name in FORWARDED)
        # All users of this machine share its loopback address: one of them must not shut out the others.
        wait_s = 0.0 if is_local else self._wrong.wait_s(address, time.monotonic())
        if wait_s > 0 and (token is not None or is_self_checked):
            return _too_many(request, wait_s)
        asker = Requester() if is_self_checked else self._asker(request, token)
        if token is not None and asker.holder is None:
            self._count(address, waits=not is_local)
            return _refusal(request, 401, "the token is not valid", _SEND)
        role = asker.holder.role if asker.holder else None
        verdict = judge(access, role, is_local=is_local, has_tokens=self._tokens.is_configured)
        if verdict is Verdict.ADMITTED and not _is_own_page(request, asker.session):
            verdict = Verdict.NOT_OWN_PAGE
        if verdict is not Verdict.ADMITTED:
            return _refusal(request, verdict.status, *_HINTS[verdict])
        holder = asker.holder
        before = CALLER.set(TokenHolder(holder.name, holder.role) if holder else None)
        admitted = STILL_ADMITTED.set(asker.is_valid)
        try:
            answer = await handler(request)
        finally:
            CALLER.reset(before)  # the next request of this connection may come without a token
            STILL_ADMITTED.reset(admitted)
        if is_self_checked and answer.status == 401:
            self._count(address, waits=not is_local)
        return answer

    def _asker(self, request: web.Request, token: str | None) -> Requester:
        """By `token`, else by the cookie of a session. One that is over is none: it may have ended with its token."""
        if token is not None:
            return Requester(self._tokens.holder(token), lambda: self._tokens.holder(token) is not None)
        cookie = cookie_of(request)
        found = self._sessions.find(cookie, time.monotonic()) if cookie is not None else None
        if cookie is None or found is None:
            return Requester()
        session, holder = found
        return Requester(holder, lambda: self._sessions.find(cookie, time.monotonic()) is not None, session)

    def _address(self, request: web.Request) -> str:
        """The address for which a wrong token is counted."""
        forwarded = request.headers.getall("X-Forwarded-For", []) if self._http.behind_proxy else []
        last = forwarded[-1].rpartition(",")[2].strip() if forwarded else ""  # the others are what the client says
        return last or request.remote or ""

    def _count(self, address: str, *, waits: bool) -> None:
        """`waits`: whether the address has to wait after too many; each is logged, at most so often."""
        now = time.monotonic()
        if waits:
            self._wrong.count(address, now)
        if self._logged.wait_s(LOGGED_AT_ONCE, now) == 0:
            self._logged.count(LOGGED_AT_ONCE, now)
            log.warning("wrong token", address=storable(address, 64))


def _path_of(request: web.Request) -> str | None:
    """The path of the route that serves it, None when none does."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else None


def _is_own_page(request: web.Request, session: Session | None) -> bool:
    """A browser sends the cookie of a session by itself; whether the page means it, only the page can prove."""
    if session is None or request.method in ("GET", "HEAD"):
        return True
    return session.is_proven(request.headers.get(CSRF_HEADER, "")) and is_same_origin(request.headers)


def _token(request: web.Request) -> str | None:
    """The one that was sent. Another scheme is none: a proxy may pass on the password that it asked for."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == SCHEME else None


def _strange_host(request: web.Request) -> web.Response | None:
    """A page in a browser must not reach us under another name (DNS rebinding)."""
    host = request.headers.get("Host", "localhost").lower()  # a browser sends it; probes with HTTP/1.0 may not
    host = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if host in LOCAL_NAMES:
        return None
    hint = "use 127.0.0.1 or localhost; behind a proxy set http.behind_proxy"
    return _document(UsageError(f"cannot answer for the host {storable(host, 64)!r}", hint=hint), 400)


def _refusal(request: web.Request, status: int, cause: str, hint: str) -> web.Response:
    what = "read" if request.method in ("GET", "HEAD") else "write"
    return _document(UsageError(f"cannot {what} over TCP: {cause}", hint=hint), status)


def _too_many(request: web.Request, wait_s: float) -> web.Response:
    seconds = math.ceil(wait_s)
    answer = _refusal(
        request, 429, "too many wrong tokens came from this address", f"correct the token, and wait {seconds} s"
    )
    answer.headers["Retry-After"] = str(seconds)
    return answer


def _document(error: UsageError, status: int) -> web.Response:
    answer = web.json_response(failures.error(error), status=status, dumps=dumps)
    if status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer
