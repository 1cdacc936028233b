"""Reads what the TCP port is opened with: tokens, certificate and key. Blocks: call it in a thread."""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Iterator

from mountd.errors import CannotStart, needs_fix
from mountd.settings import tokens
from mountd.settings.http import HttpSettings, TlsSettings
from mountd.settings.secret import SecretRef
from mountd.settings.source import Place
from mountd.settings.tokens import NO_TOKENS, BadTokens, Tokens
from mountd.tls import BadPair, expiry, server_context

TOKENS: Place = ("http", "tokens")
CERTIFICATE: Place = ("http", "tls", "certificate")
KEY: Place = ("http", "tls", "key")


def read_tokens(http: HttpSettings) -> Tokens:
    """None configured: no token is valid. Raises CannotStart naming the place, never the content."""
    if http.tokens is None:
        return NO_TOKENS
    text = http.tokens.read()
    _refuse_readable(http.tokens)
    try:
        return tokens.parse(text)
    except BadTokens as error:
        raise needs_fix("tokens-unusable", f"cannot use the tokens in {http.tokens}: {error}", tokens.HOW) from None


def read_context(tls: TlsSettings | None) -> ssl.SSLContext | None:
    """What a server speaks TLS with; None without `tls`. Raises CannotStart."""
    if tls is None:
        return None
    certificate, key = tls.certificate.read(), tls.key.read()
    _refuse_readable(tls.key)
    try:
        return server_context(certificate, key)
    except BadPair as error:
        text = f"cannot use the certificate in {tls.certificate} with the key in {tls.key}: {error}"
        raise needs_fix("tls-unusable", text, "both are PEM, and the key is not encrypted") from None


def read_expiry(tls: TlsSettings | None) -> float | None:
    """When the certificate expires, in seconds since 1970; None without `tls`, or when it does not say. Raises
    CannotStart."""
    return None if tls is None else expiry(tls.certificate.read())


def problems(http: HttpSettings) -> Iterator[tuple[Place, CannotStart]]:
    """What cannot be used of secrets that can be read, each with its place."""
    try:
        read_tokens(http)
    except CannotStart as error:
        yield TOKENS, error
    try:
        read_context(http.tls)
    except CannotStart as error:
        yield KEY, error


def _refuse_readable(secret: SecretRef) -> None:
    """A file that everybody on the machine may read keeps no secret. A group may be meant: a volume's, for one."""
    path = secret.path
    if path is None:
        return
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # it has just been read, and is being replaced: that is noticed
    if mode & stat.S_IROTH:
        text = f"cannot use {path}: every user of this machine can read it"
        raise needs_fix("secret-readable", text, f"chmod o= {path}; for a volume of Kubernetes defaultMode: 0440")
