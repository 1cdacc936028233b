"""Required files that are not there: what is said of a typo, and what of an upload that is not finished."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.model.required import MAX_FILES, misnamed, problems

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
    assert "another Unicode form" in said


def test_what_the_manifest_names_is_no_typo() -> None:
    assert problems(["models/gtp.pth"], FILES, {"models/gtp.pth": 1}) == ["models/gtp.pth is missing"]
    assert misnamed(["models/gtp.pth", "other", "config.yaml"], FILES, {"other": 1}) == ["models/gtp.pth"]


def test_among_very_many_files_nobody_looks_for_a_like_one() -> None:
    many = {f"models/gpt{number}.pth": 1 for number in range(MAX_FILES + 1)}
    assert problems(["models/gpt.pth"], many, ()) == ["models/gpt.pth is missing"]


@given(st.lists(st.sampled_from([*FILES, "x", "models"]), unique=True), st.sets(st.sampled_from([*FILES, "x"])))
def test_each_that_is_not_there_is_said_once(required: list[str], named: set[str]) -> None:
    found = problems(required, FILES, named)
    assert len(found) == len([path for path in required if not FILES.get(path)])
    assert set(misnamed(required, FILES, named)) <= {path for path in required if path not in FILES}
