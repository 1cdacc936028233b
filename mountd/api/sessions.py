"""Sessions of browsers: who is logged in, by a cookie. Each ends with its token, and after half a day at the latest."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

from mountd.settings.tokens import NO_TOKENS, Holder, Tokens, digest_of

LIFETIME_S = 12 * 3600.0
OF_ONE_TOKEN = 20
"""Sessions of one token at a time; then the oldest of them ends. With MAX_TOKENS that bounds all sessions."""
SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class NewSession:
    """What a browser gets at its login. `proof` is for its page alone: no cookie carries it."""

    holder: Holder
    cookie: str = field(repr=False)
    proof: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Session:
    """`token`, `proof`: digests. `ends`: by the clock of the caller."""

    token: bytes = field(repr=False)
    proof: bytes = field(repr=False)
    ends: float

    def is_proven(self, presented: str) -> bool:
        """Whether the request comes from the page that logged in. Takes the same time for every text."""
        return hmac.compare_digest(self.proof, digest_of(presented))


class Sessions:
    """All of them, in memory; times are seconds of one clock, given by the caller.

    A browser sends a cookie to every port of a host, so to an app beside mountd as well: with the cookie alone nobody
    can change anything, and no answer repeats the proof.
    """

    def __init__(self) -> None:
        self._tokens = NO_TOKENS
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        """by the digest of the cookie, the oldest first"""

    def admit(self, tokens: Tokens) -> None:
        """These are valid from now on: the sessions of all others end, also if such a token is added again later."""
        self._tokens = tokens
        for key, session in list(self._sessions.items()):
            if tokens.holder_of(session.token) is None:
                del self._sessions[key]

    @property
    def can_begin(self) -> bool:
        """Whether tokens are configured."""
        return self._tokens.is_configured

    def begin(self, token: str, now: float) -> NewSession | None:
        """A session with secrets of its own; None: the token is not valid."""
        holder = self._tokens.holder(token)
        if holder is None:
            return None
        self._drop_old(digest_of(token), now)
        cookie, proof = secrets.token_urlsafe(SECRET_BYTES), secrets.token_urlsafe(SECRET_BYTES)
        self._sessions[digest_of(cookie)] = Session(digest_of(token), digest_of(proof), now + LIFETIME_S)
        return NewSession(holder, cookie, proof)

    def find(self, cookie: str, now: float) -> tuple[Session, Holder] | None:
        """The session of the cookie, and the holder of its token with the role that they have now."""
        session = self._sessions.get(digest_of(cookie))
        if session is None or session.ends <= now:
            return None
        holder = self._tokens.holder_of(session.token)
        return (session, holder) if holder is not None else None

    def end(self, cookie: str) -> None:
        self._sessions.pop(digest_of(cookie), None)

    def _drop_old(self, token: bytes, now: float) -> None:
        """Makes room for one more of the token."""
        for key, session in list(self._sessions.items()):
            if session.ends <= now:
                del self._sessions[key]
        mine = [key for key, session in self._sessions.items() if session.token == token]
        for key in mine[: max(0, len(mine) + 1 - OF_ONE_TOKEN)]:
            del self._sessions[key]

    def __len__(self) -> int:
        return len(self._sessions)
