"""What becomes of rclone's index of a cached file: a table, and what must hold for every file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.cache.reindex import (
    BUFFERED,
    MARGIN,
    CachedFile,
    IndexAction,
    IndexPlan,
    Origin,
    Ranges,
    covers,
    decide,
    inwards,
    merged,
    ranges,
    without,
)
from mountd.cache.stamps import NONE, Stamp, Stamps, origin

SIZE = 20 * MARGIN
WHOLE: Ranges = ((0, SIZE),)
HALF: Ranges = ((0, SIZE // 2),)
HALF_INWARDS: Ranges = ((0, SIZE // 2 - MARGIN),)
U, R, F, X = Origin.UNTOUCHED, Origin.RCLONE, Origin.UNRECORDED, Origin.UNKNOWN
KEEP, DROP = IndexPlan(IndexAction.KEEP), IndexPlan(IndexAction.DROP)


def judged(found: CachedFile, *, may_guess: bool = True, writes_back: bool = False) -> IndexPlan:
    return decide(found, may_guess=may_guess, writes_back=writes_back)


@pytest.mark.parametrize(
    ("who", "index", "extents", "has_digest", "plan"),
    [
        # What was not touched is kept, without a look at its bytes.
        (U, WHOLE, None, True, KEEP),
        (U, WHOLE, WHOLE, True, KEEP),
        (U, WHOLE, None, False, KEEP),
        # A killed rclone has noted nothing of what lies there.
        (R, (), WHOLE, True, IndexPlan(IndexAction.VERIFY, ())),
        (U, (), WHOLE, True, IndexPlan(IndexAction.VERIFY, ())),
        (R, (), WHOLE, False, IndexPlan(IndexAction.EXTEND, ((0, SIZE - MARGIN),))),
        (R, (), HALF, True, IndexPlan(IndexAction.EXTEND, HALF_INWARDS)),
        (R, HALF, HALF, False, KEEP),
        # What was there before mountd kept a record is as trusted as it was then, and no further.
        (F, WHOLE, WHOLE, False, KEEP),
        (F, (), WHOLE, False, KEEP),
        (F, WHOLE, WHOLE, True, IndexPlan(IndexAction.VERIFY, WHOLE)),
        # Changed by another program, or by a loss of power: only a digest is evidence for it.
        (X, WHOLE, WHOLE, True, IndexPlan(IndexAction.VERIFY, None)),
        (X, WHOLE, WHOLE, False, DROP),
        (X, HALF, HALF, True, DROP),
        (X, (), (), False, DROP),
        # The index claims what is a hole: right, if its zeros are those of the object, which only the digest can say.
        (R, WHOLE, HALF, True, IndexPlan(IndexAction.VERIFY, None)),
        (U, WHOLE, HALF, True, IndexPlan(IndexAction.VERIFY, None)),
        (F, WHOLE, HALF, True, IndexPlan(IndexAction.VERIFY, None)),
        (X, WHOLE, HALF, True, IndexPlan(IndexAction.VERIFY, None)),
        (X, WHOLE, (), True, IndexPlan(IndexAction.VERIFY, None)),
        (F, WHOLE, HALF, False, DROP),
        (R, WHOLE, HALF, False, DROP),
        (U, WHOLE, HALF, False, DROP),
        (U, HALF, ((0, MARGIN),), False, DROP),
        (U, HALF, ((0, MARGIN),), True, DROP),
        # The file system does not report holes.
        (R, (), None, True, KEEP),
        (R, WHOLE, None, True, IndexPlan(IndexAction.VERIFY, WHOLE)),
        (X, WHOLE, None, True, IndexPlan(IndexAction.VERIFY, None)),
        # The record makes no sense.
        (U, None, WHOLE, True, DROP),
    ],
)
def test_what_becomes_of_a_file(
    who: Origin, index: Ranges | None, extents: Ranges | None, has_digest: bool, plan: IndexPlan
) -> None:
    assert judged(CachedFile(SIZE, index, extents, who, has_digest)) == plan


def test_what_was_extended_without_a_digest_is_compared_as_soon_as_there_is_one() -> None:
    found = CachedFile(SIZE, WHOLE, WHOLE, U, has_digest=True, guessed=True)
    assert judged(found) == IndexPlan(IndexAction.VERIFY, WHOLE)
    assert judged(replace(found, has_digest=False)) == KEEP


@pytest.mark.parametrize(
    ("who", "index", "has_digest", "plan"),
    [
        (U, WHOLE, True, KEEP),
        (U, WHOLE, False, KEEP),
        (U, HALF, False, KEEP),
        (U, HALF, True, IndexPlan(IndexAction.VERIFY, HALF)),
        # Written to since.
        (R, WHOLE, True, IndexPlan(IndexAction.VERIFY, None)),
        (R, WHOLE, False, DROP),
        (X, WHOLE, True, IndexPlan(IndexAction.VERIFY, None)),
        (X, WHOLE, False, DROP),
    ],
)
def test_holes_that_had_the_digest_are_content_until_they_are_written(
    who: Origin, index: Ranges, has_digest: bool, plan: IndexPlan
) -> None:
    assert judged(CachedFile(SIZE, index, ((0, MARGIN),), who, has_digest, proven=True), may_guess=False) == plan


@pytest.mark.parametrize("ways", [{"may_guess": False}, {"writes_back": True}])
def test_what_the_file_system_reports_is_no_proof_where_parts_of_pages_are_written(ways: dict[str, bool]) -> None:
    assert judged(CachedFile(SIZE, (), HALF, R), **ways) == KEEP


def test_nor_for_a_small_file_which_rclone_does_not_buffer() -> None:
    size = BUFFERED - 1
    assert judged(CachedFile(size, (), ((0, size),), R)) == KEEP


def test_a_record_without_sense_may_be_a_programs_work_not_yet_uploaded() -> None:
    assert judged(CachedFile(SIZE, None, WHOLE, R), writes_back=True) == IndexPlan(IndexAction.LEAVE)


RANGES = st.lists(
    st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda pair: (min(pair), max(pair))), max_size=6
).map(merged)
FOUND = st.builds(
    CachedFile,
    size=st.just(SIZE),
    index=st.none() | RANGES | st.just(WHOLE),
    extents=st.none() | RANGES | st.just(WHOLE),
    origin=st.sampled_from(Origin),
    has_digest=st.booleans(),
    guessed=st.booleans(),
    proven=st.booleans(),
)


@given(FOUND, st.booleans(), st.booleans())
def test_nothing_is_served_that_nothing_speaks_for(found: CachedFile, may_guess: bool, writes_back: bool) -> None:
    plan = judged(found, may_guess=may_guess, writes_back=writes_back)
    kept = found.index if plan.action is IndexAction.KEEP else plan.index
    if kept is None or plan.action is IndexAction.LEAVE:
        return
    assert found.origin is not Origin.UNKNOWN
    if found.extents is not None and not (found.proven and found.origin is Origin.UNTOUCHED):
        assert covers(found.extents, kept)
    if plan.action is IndexAction.EXTEND:
        assert found.index is not None
        assert covers(kept, found.index)
        assert may_guess


@given(RANGES, RANGES)
def test_ranges_cover_what_their_bytes_do(outer: Ranges, inner: Ranges) -> None:
    def has(given_: Ranges, at: int) -> bool:
        return any(begin <= at < end for begin, end in given_)

    edges = {at for pair in (*outer, *inner) for edge in pair for at in (edge - 1, edge)}
    assert covers(outer, inner) == all(has(outer, at) for at in edges if has(inner, at))
    assert all(has(outer, at) for at in edges if has(inwards(outer), at))
    assert all(has(without(outer, inner), at) == (has(outer, at) and not has(inner, at)) for at in edges)


RECORD: dict[str, Any] = {"Size": 9, "Fingerprint": "9,2026", "Rs": [{"Pos": 0, "Size": 4}, {"Pos": 4, "Size": 2}]}


def test_the_index_of_a_record() -> None:
    assert ranges(RECORD, 9) == ((0, 6),)
    assert ranges({**RECORD, "Rs": None}, 9) == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"Size": 8},
        {"Fingerprint": ""},
        {"Fingerprint": "8,2026"},
        {"Fingerprint": None},
        {"Rs": "all"},
        {"Rs": 7},
        {"Rs": [7]},
        {"Rs": [{"Pos": 0}]},
        {"Rs": [{"Pos": -1, "Size": 2}]},
        {"Rs": [{"Pos": 0, "Size": 10}]},
        {"Rs": [{"Pos": True, "Size": 1}]},
    ],
)
def test_a_record_that_makes_no_sense(changed: dict[str, Any]) -> None:
    assert ranges({**RECORD, **changed}, 9) is None


STAMP = Stamp(7, 9, 100, 200, "9,2026")


@pytest.mark.parametrize(
    ("before", "boot", "now", "who"),
    [
        (None, "a", STAMP, F),
        (NONE, "a", STAMP, X),
        (Stamps("a", False, {"x": STAMP}), "a", STAMP, U),
        (Stamps("a", True, {"x": STAMP}), "a", STAMP, U),
        (Stamps("a", False, {"x": STAMP}), "a", STAMP._replace(ctime_ns=201), X),
        (Stamps("a", True, {"x": STAMP}), "a", STAMP._replace(ctime_ns=201), R),
        (Stamps("a", False, {"x": STAMP}), "a", STAMP._replace(fingerprint="9,2027"), X),
        (Stamps("a", True), "a", STAMP, R),
        (Stamps("a", False), "a", STAMP, X),
        # The kernel was started meanwhile, and what was not on disk may be gone.
        (Stamps("a", False, {"x": STAMP}), "b", STAMP, X),
        (Stamps("a", True), "b", STAMP, X),
        (Stamps("a", False, {"x": STAMP._replace(is_durable=True)}), "b", STAMP, U),
        (Stamps("a", True, {"x": STAMP._replace(is_durable=True)}), "b", STAMP._replace(inode=8), X),
        # It is unknown whether it was.
        (Stamps("", True, {"x": STAMP}), "", STAMP, X),
    ],
)
def test_who_may_have_changed_a_file(before: Stamps | None, boot: str, now: Stamp, who: Origin) -> None:
    assert origin(before, boot, "x", now) is who
