"""Text from outside can be stored and shown, whatever it is."""

from __future__ import annotations

import unicodedata

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
    ],
)
def test_printable(given: str, shown: str) -> None:
    assert text.printable(given) == shown


def test_what_is_kept_stays() -> None:
    assert text.printable("a\n\tb\r", keep="\n\t") == "a\n\tb\\x0d"


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
