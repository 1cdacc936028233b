"""Asks a store without keys: `store_probe.py clock URL SECONDS` prints the Date header of whatever it answers,
`store_probe.py connect URL SECONDS` the address at which it takes a connection. Nothing where there is no answer.

A process of its own because a name may take long to be looked up: a thread that waits for that could not be ended.
Certificates are not checked: where the clock is wrong they seem not to be valid, and nothing is sent but the request.
"""

import contextlib
import socket
import ssl
import sys
import urllib.error
import urllib.request
from email.message import Message
from urllib.parse import urlsplit


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """The first answer is the store's."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def date_of(url: str, timeout_s: float) -> str:
    """As a proxy of the environment passes it on. Raises OSError, ValueError."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), NoRedirect)
    headers: Message
    try:
        with opener.open(url, timeout=timeout_s) as answer:
            headers = answer.headers
    except urllib.error.HTTPError as refusal:  # which is what a store says to somebody without keys
        with refusal:
            headers = refusal.headers
    return str(headers.get("Date", ""))


def peer_of(url: str, timeout_s: float) -> str:
    """Raises OSError, ValueError."""
    parts = urlsplit(url)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    with socket.create_connection((parts.hostname or "", port), timeout=timeout_s) as connection:
        return str(connection.getpeername()[0])


if __name__ == "__main__":
    with contextlib.suppress(OSError, ValueError):
        print({"clock": date_of, "connect": peer_of}[sys.argv[1]](sys.argv[2], float(sys.argv[3])))
