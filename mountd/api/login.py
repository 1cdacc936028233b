"""The routes of a login: a token becomes the session of a browser, who is logged in, and the end of a session."""

from __future__ import annotations

import time

from aiohttp import web

from mountd.api.cookie import cookie_of, remove_cookie, set_cookie
from mountd.api.documents import SCHEMA, failures
from mountd.api.documents.requests import LoginBody, NoBody, NoQuery
from mountd.api.documents.session import LoginDocument, SessionDocument
from mountd.api.history import answer
from mountd.api.peer import CALLER, TokenHolder
from mountd.api.roles import Handler, Route, RouteAccess
from mountd.api.route import get, post
from mountd.api.same_origin import is_same_origin
from mountd.api.sessions import LIFETIME_S, Sessions
from mountd.errors import UsageError

AT_ONCE = 10
"""Logins whose body has not come; the oldest yields to one more."""
NOT_OWN_PAGE = "the request does not come from a page of this mountd"
LOG_IN_AGAIN = "load the page again and log in; a script sends `Authorization: Bearer TOKEN` and no cookie"


class LoginRoutes:
    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._open: dict[web.RequestHandler, None] = {}
        """connections with a login whose body is awaited, oldest first"""

    def reads(self) -> list[Route]:
        """To log out changes nothing but one's own session, of which the guard asks for a proof."""
        return [
            get("/api/v1/session", self.session, NoQuery, {200: SessionDocument}),
            post("/api/v1/logout", self.logout, NoBody, {200: SessionDocument}, RouteAccess.READ),
        ]

    def logins(self) -> list[Route]:
        answers = {200: LoginDocument}
        return [
            post("/api/v1/login", self.login, LoginBody, answers, RouteAccess.LOGIN, around=self._from_own_page),
        ]

    def _from_own_page(self, reads: Handler) -> Handler:
        async def asked(request: web.Request) -> web.StreamResponse:
            # Who makes a browser log in elsewhere sees what its user does then.
            if not is_same_origin(request.headers):
                return answer(failures.error(UsageError(f"cannot log in: {NOT_OWN_PAGE}", hint=LOG_IN_AGAIN)), 403)
            while len(self._open) >= AT_ONCE:
                oldest = next(iter(self._open))
                del self._open[oldest]
                if oldest.transport is not None:
                    oldest.transport.abort()
            self._open[request.protocol] = None
            try:
                return await reads(request)
            finally:
                self._open.pop(request.protocol, None)

        return asked

    async def session(self, _: web.Request, __: NoQuery) -> web.Response:
        """Who asks, by cookie or token; on loopback and on the control socket that may be nobody."""
        caller = CALLER.get()
        holder = caller if isinstance(caller, TokenHolder) else None
        document = SessionDocument(
            schema=SCHEMA,
            name=holder.name if holder else None,
            role=holder.role if holder else None,
            login=self._sessions.can_begin,
        )
        return _unkept(answer(document))

    async def login(self, request: web.Request, body: LoginBody) -> web.Response:
        """A token becomes the session of a browser, whose cookie comes with the answer.

        Only for a page of this mountd. 401 for a wrong token; these are counted.
        """
        # Always a new session, whatever cookie comes along: what somebody else has set never becomes one.
        begun = self._sessions.begin(body["token"], time.monotonic())
        if begun is None:
            error = UsageError("cannot log in: the token is not valid", hint="a token of the file in http.tokens")
            return answer(failures.error(error), 401)
        if (before := cookie_of(request)) is not None:
            self._sessions.end(before)
        document = LoginDocument(
            schema=SCHEMA,
            name=begun.holder.name,
            role=begun.holder.role,
            csrf=begun.proof,
            lifetime_s=LIFETIME_S,
        )
        made = _unkept(answer(document))
        set_cookie(request, made, begun.cookie)
        return made

    async def logout(self, request: web.Request, _: NoBody) -> web.Response:
        """Ends the session that the request came with."""
        if (cookie := cookie_of(request)) is not None:
            self._sessions.end(cookie)
        document = SessionDocument(schema=SCHEMA, name=None, role=None, login=self._sessions.can_begin)
        made = _unkept(answer(document))
        remove_cookie(request, made)
        return made


def _unkept(made: web.Response) -> web.Response:
    made.headers["Cache-Control"] = "no-store"
    return made
