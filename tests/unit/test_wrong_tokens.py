"""How many wrong tokens an address may try, and how many addresses are remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.api.wrong_tokens import ADDRESSES, AT_ONCE, EACH_S, WrongTokens


def attempts(found: WrongTokens, address: str, now: float) -> int:
    """How many it may make now."""
    made = 0
    while found.wait_s(address, now) == 0:
        found.count(address, now)
        made += 1
    return made


def test_ten_at_once_and_then_one_each_six_seconds() -> None:
    found = WrongTokens()
    assert attempts(found, "10.0.0.1", 100.0) == AT_ONCE
    assert found.wait_s("10.0.0.1", 100.0) == EACH_S
    assert found.wait_s("10.0.0.1", 100.0 + EACH_S - 0.5) == pytest.approx(0.5)
    assert attempts(found, "10.0.0.1", 100.0 + EACH_S) == 1
    assert attempts(found, "10.0.0.1", 100.0 + 4 * EACH_S) == 3
    assert attempts(found, "10.0.0.1", 10_000.0) == AT_ONCE
    assert attempts(found, "10.0.0.2", 100.0) == AT_ONCE, "another address is not concerned"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("what a proxy says", "what a proxy says", True),
        ("", "10.0.0.1", False),
    ],
)
def test_whose_addresses_they_are(one: str, other: str, same: bool) -> None:
    found = WrongTokens()
    attempts(found, one, 0.0)
    assert (found.wait_s(other, 0.0) > 0) is same


def test_of_many_addresses_those_that_were_wrong_longest_ago_are_forgotten() -> None:
    found = WrongTokens()
    attempts(found, "10.0.0.1", 0.0)
    for number in range(ADDRESSES):
        found.count(f"10.1.{number // 256}.{number % 256}", 1.0)
    assert len(found) == ADDRESSES
    assert found.wait_s("10.0.0.1", 1.0) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 30)), max_size=200))
def test_nobody_makes_more_than_the_rate_allows(steps: list[tuple[int, float]]) -> None:
    found, now, made = WrongTokens(), 0.0, dict.fromkeys(range(4), 0)
    for who, pause in steps:
        now += pause
        if found.wait_s(f"10.0.0.{who}", now) == 0:
            found.count(f"10.0.0.{who}", now)
            made[who] += 1
        assert made[who] <= AT_ONCE + now / EACH_S
