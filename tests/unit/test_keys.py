"""Keys that cannot be paths: which, why, and what hides them."""

from __future__ import annotations

import pytest

from mountd.rclone.keys import (
    EMPTY,
    LONG,
    SHADOWS,
    BucketEntry,
    describe,
    gone,
    patterns,
    rules,
    unusable,
    usable,
)


def items(*paths: str) -> list[BucketEntry]:
    """A path that ends in "/" is a directory, but for one that ends in "//": an object."""
    made = []
    for path in paths:
        is_dir = path.endswith("/") and not path.endswith("//")
        shown = path[:-1] if path.endswith("/") else path
        made.append(BucketEntry(shown, shown.rpartition("/")[2], 0 if is_dir else 7, is_dir))
    return made


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        (("a/", "a/b", "c d", "声.txt", "back\\slash", "...", "．．/x", "new␊line"), {}),
        (("/oops.txt", "a"), {"/oops.txt": EMPTY}),
        (("team//x", "team/"), {"team//x": EMPTY}),
        (("a/b//",), {"a/b/": EMPTY}),
        (("v1/", "v1", "v1/x"), {"v1": SHADOWS}),
        (("v1", "v1-x", "v1/", "v1/x"), {"v1": SHADOWS}),  # as in a listing of several pages
        (("v1/m/", "v1/m", "v1/m/x", "v1/mm"), {"v1/m": SHADOWS}),
        (("n" * 255, "声" * 85), {}),
        (("n" * 256,), {"n" * 256: LONG}),
        (("声" * 86,), {"声" * 86: LONG}),
        ((f"a/{'n' * 256}/b",), {f"a/{'n' * 256}/b": LONG}),
    ],
)
def test_strange(listing: tuple[str, ...], found: dict[str, str]) -> None:
    assert unusable(items(*listing)) == found


def test_the_directory_that_rclone_lists_for_an_empty_first_part() -> None:
    assert unusable([BucketEntry("/", "/", 0, True), BucketEntry("team/", "", 0, True)]) == {"/": EMPTY, "team/": EMPTY}


def test_of_a_name_that_stands_for_both_the_directory_is_left() -> None:
    listing = items("v1/", "v1", "v1/x", "/oops")
    assert [(item.path, item.is_dir) for item in usable(listing, unusable(listing))] == [("v1", True), ("v1/x", False)]


def test_rules_hide_that_very_object_and_no_other() -> None:
    assert rules({"v1": SHADOWS, "a*[b]{c}?\\": SHADOWS, "/x": EMPTY}) == ["/a\\*\\[b\\]\\{c\\}\\?\\\\", "/v1"]
    assert patterns(None) == patterns(True) == []
    assert patterns("*.tmp") == ["*.tmp"]
    assert patterns(["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("directory", "recursive", "left"),
    [
        ("", False, {"/x", "/", "v1/a", "v1/b/c"}),
        ("", True, set()),
        ("v1", False, {"/x", "/", "v1", "v1/b/c"}),
        ("/v1/", False, {"/x", "/", "v1", "v1/b/c"}),
        ("v1", True, {"/x", "/", "v1"}),
        ("v", True, {"/x", "/", "v1", "v1/a", "v1/b/c"}),
    ],
)
def test_a_listing_shows_what_is_gone_from_its_own_directory(directory: str, recursive: bool, left: set[str]) -> None:
    known = dict.fromkeys(("/x", "/", "v1", "v1/a", "v1/b/c"), SHADOWS)
    assert {*known} - {*gone(known, {}, directory, recursive=recursive)} == left
    assert gone(known, known, directory, recursive=recursive) == []


def test_the_description_is_bounded() -> None:
    described = describe({f"/{number:04}": EMPTY for number in range(1000)})
    assert len(described) == 11
    assert "990" in described[-1]
    assert describe({}) == []
