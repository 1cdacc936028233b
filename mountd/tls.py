"""The certificates of this machine, read when a server is asked: so new ones are noticed, and a start is faster."""

from __future__ import annotations

import asyncio
import contextlib
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
