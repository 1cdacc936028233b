"""The certificates of this machine, read when a server is asked; and what mountd itself speaks TLS with."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

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


def expiry(certificate: str) -> float | None:
    """When the first certificate of a PEM text expires, in seconds since 1970; None: it cannot be read."""
    found = _PEM.search(certificate)
    if found is None:
        return None
    try:
        # Certificate → what is signed → (version), serial number, algorithm, issuer, validity → not before, not after.
        certified = _der(_der(ssl.PEM_cert_to_DER_cert(found.group()))[0][1])
        signed = _der(certified[0][1])
        validity = signed[4 if signed[0][0] == _EXPLICIT_0 else 3]
        kind, text = _der(validity[1])[1]
        return datetime.strptime(text.decode("ascii"), _TIMES[kind]).replace(tzinfo=UTC).timestamp()
    except (ValueError, IndexError, KeyError):
        return None


_PEM = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_EXPLICIT_0 = 0xA0
_TIMES = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
"""UTCTime, GeneralizedTime; `%y` turns over in 1969, by one year otherwise than X.509 does."""


def _der(data: bytes) -> list[tuple[int, bytes]]:
    """The values one after the other: tag and content. Raises IndexError when it is cut off."""
    found, at = [], 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size]), at + size
        if at + length > len(data):
            raise IndexError("a value is cut off")
        found.append((tag, data[at : at + length]))
        at += length
    return found


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """The path of a file that nobody else can open: OpenSSL reads keys from files alone."""
    descriptor = os.memfd_create("mountd-tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
