"""Text from outside can be stored and shown, whatever it is."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd import text

ANY = st.text(st.characters())  # lone surrogates included


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("v23", "v23"),
        ("模型 é", "模型 é"),
        ("\ud800", "\\ud800"),
        ("caf\udce9", "caf\\udce9"),
        ("a" * 10, "a" * 10),
        ("a" * 20, "a" * 9 + "…"),
        ("a" * 9 + "\udcff", "a" * 9 + "…"),
        ("\udcff" * 5000, "\\udcff\\ud…"),
    ],
)
def test_storable(given: str, stored: str) -> None:
    assert text.storable(given, 10) == stored


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("v23", "v23"),
        ("模型 é 🎉", "模型 é 🎉"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("a\r\nb\tc\0", "a\\x0d\\x0ab\\x09c\\x00"),
        ("\ud800", "\\ud800"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\u061c\u200e\u200f\u2066\u2069", "\\u061c\\u200e\\u200f\\u2066\\u2069"),
        ("\u2028\u2029\x7f\x85", "\\u2028\\u2029\\x7f\\x85"),
        ("\u200b\u00a0", "\u200b\u00a0"),
    ],
)
def test_printable(given: str, shown: str) -> None:
    assert text.printable(given) == shown


def test_what_is_kept_stays() -> None:
    assert text.printable("a\n\tb\r", keep="\n\t") == "a\n\tb\\x0d"


def test_a_text_is_cut_where_nothing_else_is_said() -> None:
    assert text.storable("a" * text.LIMIT) == "a" * text.LIMIT
    assert len(text.storable("a" * (text.LIMIT + 1))) == text.LIMIT == 1000


@pytest.mark.parametrize("indent", [None, 2])
def test_json_holds_the_text_and_shows_nothing_unsafe(indent: int | None) -> None:
    given = {"声": "a\n\x1b\x9b\u202e\ud800", "n": [1, None]}
    made = text.dumps(given, indent=indent)
    assert json.loads(made) == given
    assert ("\n" in made, "声" in made) == (indent is not None, True)
    assert text.printable(made, keep="\n") == made


def test_json_of_other_objects() -> None:
    assert json.loads(text.dumps({"path": Path("/x")}, default=str)) == {"path": "/x"}
    with pytest.raises(TypeError):
        text.dumps({"path": Path("/x")})


@given(ANY)
def test_any_text_can_be_sent_as_json(given: str) -> None:
    made = text.dumps({"text": given})
    made.encode()
    # JSON takes two halves of a surrogate pair for the character.
    assert json.loads(made) == {"text": given.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")}
    assert text.printable(made) == made


@given(ANY)
def test_any_text_can_be_stored(given: str) -> None:
    text.storable(given).encode()


@given(ANY, st.integers(1, 30))
def test_no_more_is_stored_than_the_limit(given: str, limit: int) -> None:
    assert len(text.storable(given, limit)) <= limit


@given(ANY)
def test_any_text_can_be_shown(given: str) -> None:
    shown = text.printable(given)
    shown.encode()
    assert not [each for each in shown if unicodedata.category(each) in {"Cc", "Cs", "Zl", "Zp"}]


@pytest.mark.parametrize(
    ("wrong", "names", "meant"),
    [
        ("v32", ["v21", "v22", "v23", "v33"], "v23"),
        ("v32", ["v99"], None),
        ("v3", ["v23"], "v23"),
        ("cachehub", ["voices", "cache_hub"], "cache_hub"),
        ("Webui", ["webui", "web"], "webui"),
        ("strage", ["storage", "outputs"], "storage"),
        ("metdata", ["metadata", "data", "pin"], "metadata"),
        ("模型二", ["模型一"], "模型一"),
        ("xyz", ["v22", "v23"], None),
        ("v23", ["v23"], None),
        ("", ["a"], "a"),
        ("v32", [], None),
        ("x" * 1000, ["x" * 999], None),
    ],
)
def test_the_name_that_was_probably_meant(wrong: str, names: list[str], meant: str | None) -> None:
    assert text.nearest(wrong, names) == meant
    assert text.did_you_mean(wrong, names) == (f"did you mean {meant}? " if meant else "")


def test_only_so_many_names_are_compared() -> None:
    def endless() -> Iterator[str]:
        for number in range(text.MOST_NAMES):
            yield f"v{number}"
        raise AssertionError("it asked for more")

    assert text.nearest("w9", endless()) == "v9"


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=5))
def test_what_is_near_is_one_of_the_names_and_another_one(wrong: str, names: list[str]) -> None:
    found = text.nearest(wrong, names)
    assert found is None or (found in names and found != wrong)
