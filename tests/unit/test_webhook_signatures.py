"""Who may make mountd read a repository: signatures of GitHub and Gitea, the token of GitLab."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.gitops import webhook

# From GitHub's documentation of webhooks.
SECRET, BODY = "It's a Secret to Everybody", b"Hello, World!"
SIGNATURE = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def is_signed(headers: dict[str, str], body: bytes = BODY, secret: str = SECRET) -> bool:
    signature = webhook.begin(secret)
    for index in range(0, len(body), 5):  # as it comes
        signature.update(body[index : index + 5])
    return webhook.has_signature(headers) and webhook.is_signed(headers, signature)


@pytest.mark.parametrize(
    ("headers", "signed"),
    [
        ({webhook.GITHUB: f"sha256={SIGNATURE}"}, True),
        ({webhook.GITEA: SIGNATURE}, True),
        ({webhook.GITHUB: f"sha256={SIGNATURE}", webhook.GITEA: "0" * 64}, True),
        ({webhook.GITHUB: f"sha256={'0' * 64}"}, False),
        ({webhook.GITHUB: f"sha256={SIGNATURE[:-1]}"}, False),
        ({webhook.GITHUB: f"sha256={SIGNATURE}0"}, False),
        ({webhook.GITHUB: "sha256="}, False),
        ({webhook.GITHUB: "sha256=" + "é" * 64}, False),
        ({"X-Hub-Signature": SIGNATURE[:40]}, False),
        ({webhook.GITLAB: SIGNATURE}, False),
        ({}, False),
    ],
)
def test_signatures(headers: dict[str, str], signed: bool) -> None:
    assert is_signed(headers) is signed


@pytest.mark.parametrize(
    ("headers", "fits"),
    [
        ({webhook.GITLAB: SECRET}, True),
        ({webhook.GITLAB: SECRET + " "}, False),
        ({webhook.GITLAB: ""}, False),
        ({webhook.GITLAB: "\udcff"}, False),
        ({webhook.GITHUB: SECRET}, False),
        ({}, False),
    ],
)
def test_tokens(headers: dict[str, str], fits: bool) -> None:
    assert webhook.is_token(headers, SECRET) is fits


@given(secret=st.text(st.characters(codec="utf-8"), min_size=1), body=st.binary(), other=st.binary())
def test_only_the_signed_body_passes(secret: str, body: bytes, other: bytes) -> None:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    assert is_signed({webhook.GITEA: signature}, body, secret)
    assert is_signed({webhook.GITEA: signature}, other, secret) is (other == body)
