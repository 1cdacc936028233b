"""Who may use a route over TCP, as a decision."""

from __future__ import annotations

import pytest

from mountd.api.roles import RouteAccess, Verdict, access_of, judge
from mountd.settings.tokens import Role

OPEN, READ, WRITE, SIGNED, LOGIN = RouteAccess
YES, NO_TOKEN, NO_TOKENS, READER, NOT_OWN_PAGE = Verdict


@pytest.mark.parametrize(
    ("access", "role", "is_local", "has_tokens", "verdict"),
    [
        *((access, role, local, has, YES) for access in (OPEN, SIGNED) for role in (None, "reader", "operator")
          for local in (True, False) for has in (True, False)),
        *((LOGIN, role, local, True, YES) for role in (None, "reader", "operator") for local in (True, False)),
        *((LOGIN, None, local, False, NO_TOKENS) for local in (True, False)),
        *((access, "operator", local, True, YES) for access in (READ, WRITE) for local in (True, False)),
        *((READ, "reader", local, True, YES) for local in (True, False)),
        *((WRITE, "reader", local, True, READER) for local in (True, False)),
        *((READ, None, True, has, YES) for has in (True, False)),
        (READ, None, False, True, NO_TOKEN),
        (READ, None, False, False, NO_TOKENS),
        *((WRITE, None, local, True, NO_TOKEN) for local in (True, False)),
        *((WRITE, None, local, False, NO_TOKENS) for local in (True, False)),
    ],
)  # fmt: skip
def test_who_may(access: RouteAccess, role: Role | None, is_local: bool, has_tokens: bool, verdict: Verdict) -> None:
    assert judge(access, role, is_local=is_local, has_tokens=has_tokens) is verdict


def test_the_status_of_each_answer() -> None:
    assert [each.status for each in (NO_TOKEN, NO_TOKENS, READER, NOT_OWN_PAGE)] == [401, 403, 403, 403]


@pytest.mark.parametrize(
    ("method", "path", "access"),
    [
        ("GET", "/a", OPEN),
        ("HEAD", "/a", OPEN),
        ("POST", "/a", WRITE),
        ("POST", "/b", SIGNED),
        ("GET", "/b", READ),
        ("GET", None, READ),
        ("HEAD", "/c", READ),
        ("OPTIONS", "/a", WRITE),
        ("DELETE", None, WRITE),
    ],
)
def test_what_no_route_serves_is_read_or_written_like_all_else(
    method: str, path: str | None, access: RouteAccess
) -> None:
    assert access_of({("GET", "/a"): OPEN, ("POST", "/b"): SIGNED}, method, path) is access
