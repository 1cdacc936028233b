"""Which versions are evicted from the cache: never one that is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.cache.retention import RECENT_S, CacheClaim, CachedVersion, plan
from mountd.model.layout import Layout

NOW = 1_000_000.0
LAYOUT = Layout("hub_{version}")


def cached(version: str, days: float = 9, directory: str = "") -> CachedVersion:
    """A version that was used `days` ago."""
    return CachedVersion(version, directory or f"hub_{version}", 10, NOW - days * RECENT_S)


def claim(needed: str, *, keep: int = 2, paused: bool = False, model: str = "hub") -> CacheClaim:
    return CacheClaim(model, LAYOUT, keep, frozenset(needed.split()), paused)


@pytest.mark.parametrize(
    ("found", "of", "going"),
    [
        ([cached("v1"), cached("v2")], claim("v1 v2"), []),
        ([cached("v1"), cached("v2"), cached("v3")], claim("v2 v3"), ["v1"]),
        ([cached("v1"), cached("v2"), cached("v3")], claim("v2 v3", keep=3), []),
        ([cached("v1", 9), cached("v2", 5), cached("v3", 7), cached("v4", 2)], claim("v4", keep=3), ["v1"]),
        ([cached("v1", 9), cached("v2", 5), cached("v3", 7)], claim("v9"), ["v1", "v3"]),
        ([cached("v1"), cached("v2"), cached("v3")], claim("v1 v2 v3"), []),
        ([cached("v1"), cached("v2"), cached("v3")], claim("v2 v3", paused=True), []),
        ([cached("v2"), cached("v3"), cached("v4", 0.9)], claim("v2 v3"), []),
        ([cached("v2"), cached("v3"), cached("v4", 1.1)], claim("v2 v3"), ["v4"]),
        ([cached("v1", 9), cached("v2", 99)], claim("v3 v4"), ["v2", "v1"]),
    ],
    ids=[
        "live-and-previous", "beyond-keep", "keep-3", "the-longest-unused-first", "needed-but-not-cached",
        "never-what-is-needed", "paused", "used-today", "used-long-ago", "slots-of-what-is-not-there",
    ],
)  # fmt: skip
def test_what_is_evicted(found: Sequence[CachedVersion], of: CacheClaim, going: list[str]) -> None:
    assert [each.version for each in plan({"hub": found}, [of], NOW)] == going


def test_two_models_of_one_directory_keep_what_either_needs() -> None:
    found = [cached(version) for version in ("v1", "v2", "v3", "v4")]
    both = {"hub": found, "other": found}
    one, other = claim("v1 v2"), claim("v2 v3", model="other")
    assert [each.version for each in plan(both, [one, other], NOW)] == ["v4"]
    assert plan(both, [one, claim("v2 v3", model="other", paused=True)], NOW) == []


def test_what_is_pinned_need_not_be_cached_also_when_it_is_live_or_was_used_today() -> None:
    found = [cached("v1"), cached("v2", 0.1), cached("v3")]
    of = replace(claim("v2 v3"), pinned=frozenset({"v2"}))
    assert [each.version for each in plan({"hub": found}, [of], NOW)] == ["v1", "v2"]
    assert plan({"hub": found}, [replace(of, paused=True)], NOW) == []


def test_a_directory_in_or_around_a_needed_one_stays() -> None:
    outer = [cached("v1"), cached("v10")]
    inner = [cached("x", directory="hub_v1/lora_x")]
    claims = [claim("v8 v9"), claim("x y", model="lora")]
    assert [each.directory for each in plan({"hub": outer, "lora": inner}, claims, NOW)] == ["hub_v10"]


_versions = st.sampled_from([f"v{number}" for number in range(8)])
_found = st.dictionaries(_versions, st.floats(0, 3)).map(
    lambda ages: [cached(version, days) for version, days in ages.items()]
)
_claims = st.tuples(_found, st.frozensets(_versions, max_size=4), st.integers(2, 5), st.booleans())


@given(st.lists(_claims, max_size=3))
def test_nothing_that_is_needed_ever_goes(
    given: list[tuple[list[CachedVersion], frozenset[str], int, bool]],
) -> None:
    found = {f"m{number}": each[0] for number, each in enumerate(given)}
    claims = [CacheClaim(f"m{at}", LAYOUT, keep, needed, paused) for at, (_, needed, keep, paused) in enumerate(given)]
    going = {each.version for each in plan(found, claims, NOW)}
    for each in claims:
        own = {version.version: version for version in found[each.model]}
        gone = going & own.keys()
        assert not gone & each.needed
        assert not (each.paused and gone)
        assert all(NOW - own[version].used_at >= RECENT_S for version in gone)
        assert not gone or len(each.needed | (own.keys() - gone)) >= each.keep
