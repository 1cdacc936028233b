"""What a version held and what it holds: no change goes unseen, and nothing else is reported."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.journal.records import KnownContent
from mountd.model import manifest
from mountd.model.content import Content
from mountd.model.known import CHANGED, alarm, changed_since, differences, is_same
from mountd.model.survey import FileList, changes

FILES = {"a": 1, "models/gpt.pth": 100}
MANIFESTED = {**FILES, manifest.NAME: 50}
SINCE = "2026-01-02T03:04:05.678Z"


def content(files: dict[str, int], digest: str = "") -> Content:
    return Content("v1", "hub_v1", FileList.of(files), digest or manifest.listing_digest(files), bool(digest), ())


def reported(before: Content, digest: str, files: dict[str, int]) -> list[str]:
    """What is said of a change since `before`."""
    named = changes(before.files.unpack(), files)
    return differences(known(before), before.files, digest, FileList.of(files), named)


def known(of: Content) -> KnownContent:
    return KnownContent("hub", "v1", of.digest, of.listing, SINCE)


BARE, WHOLE = content(FILES), content(MANIFESTED, "d1")


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        (WHOLE, WHOLE, True),
        (WHOLE, content({**MANIFESTED, "README": 3}, "d1"), True),
        (WHOLE, content(MANIFESTED, "d2"), False),
        (WHOLE, BARE, False),
        (BARE, BARE, True),
        (BARE, content({**FILES, "b": 1}), False),
        (BARE, content({**FILES, "a": 2}), False),
        (BARE, content(MANIFESTED, "d1"), True),
        (BARE, content({**MANIFESTED, "a": 2}, "d1"), False),
    ],
    ids=[
        "same", "more-than-the-manifest", "other-manifest", "manifest-gone", "same-bare", "added", "other-size",
        "manifest-came", "manifest-came-with-a-change",
    ],
)  # fmt: skip
def test_what_is_still_the_same_version(before: Content, now: Content, same: bool) -> None:
    assert is_same(known(before), now.digest, now.files) is same
    text = changed_since(known(before), now)
    assert (text is None) is same
    if text:
        assert "2026-01-02 03:04" in text
        assert "--force" in text


def test_what_was_recorded_under_the_former_digest_has_not_changed() -> None:
    of_now = Content("v1", "hub_v1", FileList.of(MANIFESTED), "new", True, (), former="d1")
    assert changed_since(known(WHOLE), of_now) is None
    assert changed_since(known(content(MANIFESTED, "d2")), of_now) is not None


def test_a_version_that_was_never_live_has_not_changed() -> None:
    assert changed_since(None, WHOLE) is None


@pytest.mark.parametrize(
    ("before", "digest", "files", "shown"),
    [
        (WHOLE, "d1", MANIFESTED, []),
        (WHOLE, "d1", {**MANIFESTED, "README": 3}, []),
        (WHOLE, "d2", MANIFESTED, [(manifest.NAME,)]),
        (WHOLE, "d1", {"a": 1, manifest.NAME: 50}, [("models/gpt.pth",)]),
        (WHOLE, "d1", FILES, [(manifest.NAME,)]),
        (WHOLE, "d1", {}, [(manifest.NAME,), ("a",), ("models/gpt.pth",)]),
        (WHOLE, "d1", {**MANIFESTED, "a": 7}, [("a", "7", "1")]),
        (WHOLE, "d2", {**MANIFESTED, manifest.NAME: 51}, [(manifest.NAME,)]),
        (BARE, BARE.digest, FILES, []),
        (BARE, "other", {**FILES, "b": 1}, [("b",)]),
        (BARE, "other", MANIFESTED, []),
    ],
)
def test_what_is_reported_of_a_change(
    before: Content, digest: str, files: dict[str, int], shown: list[tuple[str, ...]]
) -> None:
    """The name of each file, and its sizes where both are known."""
    found = [text.partition(" ") for text in reported(before, digest, files)]
    assert [(name, *re.findall(r"\d+", rest)) for name, _, rest in found] == shown


def test_a_change_before_this_start_is_reported_without_names() -> None:
    now = content({**FILES, "a": 9})
    (text,) = differences(known(BARE), now.files, now.digest, now.files)
    assert not [word for word in text.split() if word in FILES]
    now = content(MANIFESTED, "d2")
    (text,) = differences(known(WHOLE), now.files, "d2", now.files)
    assert text.startswith(f"{manifest.NAME} ")


def test_the_alarm_names_the_first_files_only() -> None:
    reason = alarm("hub", "v1", known(WHOLE), [f"file{number}" for number in range(9)])
    assert (reason.code, reason.layer, reason.object) == (CHANGED, "link", "hub")
    assert reason.text.endswith(manifest.summary([f"file{number}" for number in range(9)]))
    assert re.findall(r"file\d", reason.text) == ["file0", "file1", "file2"]
    assert alarm("hub", "v1", known(WHOLE), ["file1"], 99).text.endswith(" and 97 more")
    assert reason.hint


_files = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3), min_size=1)


@given(before=_files, now=_files)
def test_of_a_bare_version_every_change_is_reported(before: dict[str, int], now: dict[str, int]) -> None:
    then = content(before)
    problems = reported(then, manifest.listing_digest(now), now)
    assert bool(problems) == (before != now)


@given(before=_files, now=_files)
def test_of_a_manifest_version_what_is_missing_or_other_is_reported(
    before: dict[str, int], now: dict[str, int]
) -> None:
    then = content({**before, manifest.NAME: 5}, "d1")
    problems = reported(then, "d1", {**now, manifest.NAME: 5})
    assert len(problems) == sum(now.get(path) != size for path, size in before.items())
