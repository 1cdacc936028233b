"""Who is logged in, as documents."""

from __future__ import annotations

from mountd.api.documents import Schema


class SessionDocument(Schema):
    """`name` and `role` of the token that the request came with, null without one; `login`: tokens are configured."""

    name: str | None
    role: str | None
    login: bool


class LoginDocument(Schema):
    """`csrf` goes with each change, in a header: no other answer has it. The session lasts `lifetime_s` seconds."""

    name: str
    role: str
    csrf: str
    lifetime_s: float
