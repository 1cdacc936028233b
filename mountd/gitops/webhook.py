"""Whether the sender of a webhook knows the secret: the signatures of GitHub and Gitea, the token of GitLab."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Protocol

GITHUB, GITEA, GITLAB = "X-Hub-Signature-256", "X-Gitea-Signature", "X-Gitlab-Token"
SIGNATURES = (GITHUB, GITEA)
"""Each over the whole body: Gitea and Forgejo send both."""
_HEX_CHARACTERS = 64


class Signature(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def begin(secret: str) -> Signature:
    """To be updated with the body, part by part."""
    return hmac.new(secret.encode(), digestmod=hashlib.sha256)


def is_token(headers: Mapping[str, str], secret: str) -> bool:
    """GitLab sends the secret itself."""
    return hmac.compare_digest(headers.get(GITLAB, "").encode(errors="replace"), secret.encode())


def is_signed(headers: Mapping[str, str], signature: Signature) -> bool:
    """Whether one of the headers holds this signature; compared in constant time."""
    wanted = signature.hexdigest()
    return any(hmac.compare_digest(given, wanted) for given in _given(headers))


def has_signature(headers: Mapping[str, str]) -> bool:
    return bool(_given(headers))


def _given(headers: Mapping[str, str]) -> list[str]:
    found = [headers.get(name, "").removeprefix("sha256=") for name in SIGNATURES]
    return [each for each in found if len(each) == _HEX_CHARACTERS and each.isascii()]
