"""A daemon's TCP port: its address, a connection to it, and the token; `ssl` is imported only where TLS is spoken."""

from __future__ import annotations

import os
import socket
import time
from typing import NamedTuple

MAX_TOKEN_BYTES = 4096
HTTP_PORT = 8780


class Address(NamedTuple):
    """`prefix`: what a proxy has before the paths of mountd, without a slash at its end."""

    is_secure: bool
    host: str
    port: int
    prefix: str

    @property
    def name(self) -> str:
        """For the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def is_address(place: str) -> bool:
    """Whether a daemon is asked over TCP there; else it is the path of a socket."""
    return place.startswith(("http://", "https://"))


def parse(place: str) -> Address:
    """Raises UsageError for what is no http:// or https:// address, or holds a password."""
    from urllib.parse import urlsplit

    from mountd.errors import UsageError

    hint = "write http://HOST:PORT or https://HOST:PORT, or for ssh HOST or ssh://USER@HOST"
    try:
        parts = urlsplit(place)
        port = parts.port
    except ValueError:
        raise UsageError(f"cannot use {place!r} as an address", hint=hint) from None
    if parts.username is not None or parts.query or parts.fragment:
        hint = "the token is taken from $MOUNTD_TOKEN, or from the file that $MOUNTD_TOKEN_FILE names"
        raise UsageError("cannot use an address that holds a user, a password or a query", hint=hint)
    is_word = place.isascii() and place.isprintable() and " " not in place
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_word:
        raise UsageError(f"cannot use {place!r} as an address", hint=hint)
    is_secure = parts.scheme == "https"
    return Address(is_secure, parts.hostname, port or (443 if is_secure else HTTP_PORT), parts.path.rstrip("/"))


def token() -> str:
    """Of $MOUNTD_TOKEN, else of the file that $MOUNTD_TOKEN_FILE names; "" without both. Raises UsageError."""
    from mountd.errors import UsageError, cause_of

    found, source = os.environ.get("MOUNTD_TOKEN", ""), "$MOUNTD_TOKEN"
    if not found and (path := os.environ.get("MOUNTD_TOKEN_FILE")):
        source = path
        try:
            with open(path, "rb") as file:
                found = file.read(MAX_TOKEN_BYTES).decode("ascii", "replace")
        except OSError as error:
            text = f"cannot read the token in {path}: {cause_of(error)}"
            raise UsageError(text, hint="$MOUNTD_TOKEN_FILE names a file that holds only the token") from None
    found = found.strip()
    if not (found.isascii() and all(each.isprintable() and each != " " for each in found)):
        raise UsageError(f"cannot use the token in {source}: it is not one word of ASCII")
    return found


def connect(place: str, deadline: float | None) -> socket.socket:
    """A connected socket, encrypted for https. Raises OSError, TimeoutError at the `deadline`, Unreachable for TLS."""
    address = parse(place)
    left_s = None if deadline is None else max(deadline - time.monotonic(), 0.001)
    connection = socket.create_connection((address.host, address.port), left_s)
    if not address.is_secure:
        return connection
    import ssl

    try:
        return ssl.create_default_context().wrap_socket(connection, server_hostname=address.host)
    except ssl.SSLCertVerificationError as error:
        connection.close()
        raise _unverified(place, error.verify_message) from None
    except ssl.SSLError as error:
        connection.close()
        raise _unverified(place, f"it does not speak TLS ({error.reason or 'no handshake'})") from None
    except BaseException:
        connection.close()
        raise


def _unverified(place: str, cause: str) -> Exception:
    from mountd.errors import Unreachable

    hint = "SSL_CERT_FILE=/path/to/ca.pem names the authority that signed its certificate; http:// is without TLS"
    return Unreachable(f"cannot reach mountd at {place}: {cause}", hint=hint)
