"""Required files that are not there, a typo or an upload that is not finished: the wording of what is reported."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.model.required import MAX_CHARACTERS, MAX_FILES, MAX_SOUGHT, misnamed, problems

FILES = {"models/gpt.pth": 9, "models/empty.pth": 0, "config.yaml": 3, "声/e\u0301.bin": 1}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("models/gpt.pth", []),
        ("models/empty.pth", ["models/empty.pth is empty"]),
        ("models/gtp.pth", ["models/gtp.pth is missing, did you mean 'models/gpt.pth'?"]),
        ("Config.yaml", ["Config.yaml is missing, did you mean 'config.yaml'?"]),
        ("models", ["models is missing: it is a directory, name a file in it"]),
        ("something/else.bin", ["something/else.bin is missing"]),
    ],
)
def test_what_is_said(path: str, said: list[str]) -> None:
    assert problems([path], FILES, ()) == said


def test_another_unicode_form_is_another_name() -> None:
    (said,) = problems(["声/\u00e9.bin"], FILES, ())
    assert "NFC" in said


def test_what_the_manifest_names_is_no_typo() -> None:
    (said,) = problems(["models/gtp.pth"], FILES, {"models/gtp.pth": 1})
    assert "models/gpt.pth" not in said
    assert misnamed(["models/gtp.pth", "other", "config.yaml"], FILES, {"other": 1}) == ["models/gtp.pth"]


def test_among_very_many_files_nobody_looks_for_a_like_one() -> None:
    many = {f"models/gpt{number}.pth": 1 for number in range(MAX_FILES + 1)}
    (said,) = problems(["models/gpt.pth"], many, ())
    assert "'" not in said, "no other name is quoted"


def test_the_search_for_similar_names_is_short() -> None:
    """The daemon does nothing else meanwhile. Without the bounds it takes a minute, with them less than 0.3 s."""
    many = {f"{'a' * 90}{number}": 1 for number in range(MAX_FILES)}
    began = time.process_time()
    found = problems([f"{'a' * 90}x{number}" for number in range(40)], many, ())
    assert time.process_time() - began < 3.0
    assert len(found) == 40


def test_only_for_the_first_missing_files_a_similar_name_is_sought() -> None:
    found = problems([f"models/gpt.pt{number}" for number in range(MAX_SOUGHT + 2)], FILES, ())
    assert ["'models/gpt.pth'" in said for said in found] == [*[True] * MAX_SOUGHT, False, False]


@pytest.mark.parametrize(("more", "sought"), [(0, True), (1, False)])
def test_long_names_are_not_compared(more: int, sought: bool) -> None:
    there = "a" * (MAX_CHARACTERS + more)
    (said,) = problems([there[:-1]], {there: 1}, ())
    assert (f"'{there}'" in said) is sought


def test_a_similar_name_in_the_same_directory_is_found_among_many() -> None:
    many = {f"{directory}/{number:04d}.bin": 1 for directory in "abcd" for number in range(400)}
    (said,) = problems(["c/model.pth"], many | {"c/model.pht": 1}, ())
    assert "'c/model.pht'" in said


@given(st.lists(st.sampled_from([*FILES, "x", "models"]), unique=True), st.sets(st.sampled_from([*FILES, "x"])))
def test_each_that_is_not_there_is_said_once(required: list[str], named: set[str]) -> None:
    found = problems(required, FILES, named)
    assert len(found) == len([path for path in required if not FILES.get(path)])
    assert set(misnamed(required, FILES, named)) <= {path for path in required if path not in FILES}
