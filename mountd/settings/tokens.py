"""The tokens of the TCP port: lines `reader|operator NAME TOKEN` → who holds which, as digests only."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

Role = Literal["reader", "operator"]
"""A reader asks for what is there; an operator also changes it."""
ROLES: tuple[Role, ...] = get_args(Role)
SHORTEST, LONGEST = 16, 512
"""Characters of a token: what is shorter can be guessed."""
MAX_TOKENS = 500
"""Each request compares with all of them."""
HOW = "write lines such as `operator ci TOKEN`, with a token from: openssl rand -hex 32"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TOKEN = re.compile(rf"[\x21-\x7e]{{{SHORTEST},{LONGEST}}}")


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of a token, and the role that they have."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Tokens:
    """All that are valid. `is_configured`: also when there is none now, because the file cannot be used."""

    holders: tuple[tuple[bytes, Holder], ...] = field(default=(), repr=False)
    is_configured: bool = False

    def holder(self, presented: str) -> Holder | None:
        """The holder of the token. Takes the same time for every token, valid or not."""
        return self.holder_of(digest_of(presented))

    def holder_of(self, digest: bytes) -> Holder | None:
        """The same for the digest of a token."""
        found = None
        for known, holder in self.holders:
            if hmac.compare_digest(known, digest):
                found = holder
        return found


NO_TOKENS = Tokens()


class BadTokens(ValueError):
    """What is wrong in the lines, by their numbers; it never repeats a token."""


def parse(text: str) -> Tokens:
    """The tokens of a file. Empty lines and those that begin with `#` are left out. Raises BadTokens."""
    found: dict[bytes, Holder] = {}
    for number, words in _lines(text):
        role = next((each for each in ROLES if each == words[0]), None)
        if role is None or len(words) != 3:
            raise BadTokens(f"line {number} is not `reader NAME TOKEN` or `operator NAME TOKEN`")
        _, name, token = words
        if not _NAME.fullmatch(name):
            raise BadTokens(f"line {number}: the name must be 64 letters, digits and . _ @ - at most")
        if not _TOKEN.fullmatch(token):
            raise BadTokens(f"line {number}: a token has {SHORTEST} to {LONGEST} characters of ASCII")
        digest = digest_of(token)
        if digest in found:
            raise BadTokens(f"line {number}: the token stands in another line already")
        found[digest] = Holder(name, role)
        if len(found) > MAX_TOKENS:
            raise BadTokens(f"line {number}: there are more than {MAX_TOKENS} tokens")
    if not found:
        raise BadTokens("it holds no token")
    return Tokens(tuple(found.items()), is_configured=True)


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Numbered from 1, with their words."""
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            yield number, words
