"""The certificates of this machine, read when a server is asked; and what mountd itself speaks TLS with."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Iterator

_READERS = ("load_default_certs", "set_default_verify_paths")


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """Around the import of aiohttp, which else reads them twice: 45 ms where they are one large file.

    Its own contexts then trust nobody: a request that is sent without `verifying` fails.
    """
    kept = {name: getattr(ssl.SSLContext, name) for name in _READERS}
    for name in _READERS:
        setattr(ssl.SSLContext, name, lambda *_: None)
    try:
        yield
    finally:
        for name, reader in kept.items():
            setattr(ssl.SSLContext, name, reader)


async def verifying(url: str, timeout_s: float) -> ssl.SSLContext | bool:
    """What aiohttp takes as `ssl` for a request to `url`. Raises TimeoutError when its disk is silent, OSError."""
    if url[:6].lower() != "https:":
        return True
    async with asyncio.timeout(timeout_s):
        return await asyncio.to_thread(ssl.create_default_context)


class BadPair(ValueError):
    """A certificate and a key that cannot be used together; says why, and nothing of the key."""


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """What a server speaks TLS 1.2 or newer with; both are PEM. Touches no disk. Raises BadPair."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with _in_memory(certificate) as first, _in_memory(key) as second:
        try:
            context.load_cert_chain(first, second, password="")  # none: else an encrypted key asks on the terminal
        except ssl.SSLError as error:
            why = {"KEY_VALUES_MISMATCH": "they do not belong together", "NO_START_LINE": "one of them is not PEM"}
            raise BadPair(why.get(error.reason or "", "OpenSSL cannot read one of them")) from None
    return context


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """The path of a file that nobody else can open: OpenSSL reads keys from files alone."""
    descriptor = os.memfd_create("mountd-tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
