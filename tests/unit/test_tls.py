"""What a process trusts that has imported aiohttp without reading certificates."""

from __future__ import annotations

import subprocess
import sys

CODE = """
from mountd import tls
with tls.unread():
    from aiohttp import connector
import ssl
print(len(connector._SSL_CONTEXT_VERIFIED.get_ca_certs()), connector._SSL_CONTEXT_VERIFIED.verify_mode.name)
print(ssl.SSLContext.load_default_certs.__name__, ssl.create_default_context().verify_mode.name)
"""


def test_nobody_until_somebody_is_asked() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["0", "CERT_REQUIRED", "load_default_certs", "CERT_REQUIRED"]
