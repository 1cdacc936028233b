"""The headers by which a receiver knows that a webhook comes from this mountd, as Standard Webhooks has them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
PREFIX = "whsec_"
"""Before a secret that is written in base64; any other one is taken as it is."""


class BadSigningSecret(ValueError):
    """It begins like one in base64 and is none; the text says nothing of it."""


def key_of(secret: str) -> bytes:
    """Raises BadSigningSecret."""
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise BadSigningSecret("what stands behind whsec_ is no base64") from None


def signed(secret: str | None, id_: str, timestamp: int, body: bytes) -> dict[str, str]:
    """`timestamp`: seconds since 1970. Without a secret there is no signature. Raises BadSigningSecret."""
    headers = {ID: id_, TIMESTAMP: str(timestamp)}
    if secret is not None:
        content = b".".join((id_.encode(), str(timestamp).encode(), body))
        digest = hmac.new(key_of(secret), content, hashlib.sha256).digest()
        headers[SIGNATURE] = f"v1,{base64.b64encode(digest).decode()}"
    return headers
