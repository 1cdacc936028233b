"""Which versions leave the cache: never one that somebody needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.cache.retention import AHEAD_S, Cached, Claim, plan

NOW = 1_000_000.0


def cached(version: str, age_s: float = 2 * AHEAD_S, directory: str = "") -> Cached:
    return Cached(version, directory or f"hub_{version}", 10, NOW - age_s)


def claim(*found: Cached, needed: str = "", known: str | None = None, keep: int = 2, paused: bool = False) -> Claim:
    once_live = frozenset(known.split()) if known is not None else frozenset(each.version for each in found)
    return Claim("hub", found, keep, frozenset(needed.split()), once_live, paused)


@pytest.mark.parametrize(
    ("of", "going"),
    [
        (claim(cached("v1"), cached("v2"), needed="v1 v2"), []),
        (claim(cached("v1"), cached("v2"), cached("v3"), needed="v2 v3"), ["v1"]),
        (claim(cached("v1"), cached("v2"), cached("v3"), needed="v2 v3", keep=3), []),
        (claim(cached("v1", 9), cached("v2", 5), cached("v3", 7), cached("v4", 1), needed="v4", keep=3), ["v1"]),
        (claim(cached("v1", 9), cached("v2", 5), cached("v3", 7), needed="v9", keep=2), ["v1", "v3"]),
        (claim(cached("v1"), cached("v2"), cached("v3"), needed="v1 v2 v3"), []),
        (claim(cached("v1"), cached("v2"), cached("v3"), needed="v2 v3", paused=True), []),
        (claim(cached("v2"), cached("v3"), cached("v4", 60), needed="v2 v3", known="v2 v3"), []),
        (claim(cached("v2"), cached("v3"), cached("v4", AHEAD_S + 1), needed="v2 v3", known="v2 v3"), ["v4"]),
        (claim(cached("v2"), cached("v3"), cached("v4", 60), needed="v2 v3"), ["v4"]),
        (claim(cached("v1", 9), cached("v2", 99), needed="v3 v4", keep=2), ["v2", "v1"]),
    ],
    ids=[
        "live-and-previous", "beyond-keep", "keep-3", "the-longest-unused-first", "needed-but-not-cached",
        "never-what-is-needed", "paused", "read-ahead", "read-ahead-long-ago", "was-live", "slots-of-what-is-not-there",
    ],
)  # fmt: skip
def test_what_goes(of: Claim, going: list[str]) -> None:
    assert [each.version for each in plan([of], NOW)] == going


def test_two_models_of_one_directory_keep_what_either_needs() -> None:
    found = [cached(version) for version in ("v1", "v2", "v3", "v4")]
    one, other = claim(*found, needed="v1 v2"), claim(*found, needed="v2 v3")
    assert [each.version for each in plan([one, other], NOW)] == ["v4"]
    assert plan([one, claim(*found, needed="v2 v3", paused=True)], NOW) == []


def test_a_directory_in_or_around_a_needed_one_stays() -> None:
    outer = claim(cached("v1", directory="hub_v1"), cached("v10", directory="hub_v10"), needed="v8 v9")
    inner = claim(cached("x", directory="hub_v1/lora_x"), needed="x y")
    assert [each.directory for each in plan([outer, inner], NOW)] == ["hub_v10"]


_versions = st.sampled_from([f"v{number}" for number in range(8)])
_claims = st.builds(
    lambda ages, needed, known, keep, paused: Claim(
        "hub", tuple(cached(version, age) for version, age in ages.items()), keep, needed, known, paused
    ),
    st.dictionaries(_versions, st.integers(0, int(3 * AHEAD_S)).map(float)),
    st.frozensets(_versions, max_size=4),
    st.frozensets(_versions),
    st.integers(2, 5),
    st.booleans(),
)


@given(st.lists(_claims, max_size=3))
def test_nothing_that_is_needed_ever_goes(claims: list[Claim]) -> None:
    going = {each.directory for each in plan(claims, NOW)}
    for each in claims:
        own = {found.directory: found.version for found in each.cached}
        gone = {own[directory] for directory in going if directory in own}
        assert not gone & each.needed
        assert not (each.paused and gone)
        assert not gone or len(each.needed | (set(own.values()) - gone)) >= each.keep
