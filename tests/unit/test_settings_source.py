"""YAML as text with lines: what is read is what was written; the wording and the line of what cannot be read."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.settings.source import MAX_BYTES, BadSource, decode, dotted, line_of, read


def test_scalars_stay_what_was_written() -> None:
    text = (
        "umask: 022\nversion: 1.10\nday: 2026-01-01\nflag: on\nyes: true\nhex: 0x1F\nquoted: '1'\nblock: |\n  a\n  b\n"
    )
    assert read(text).data == {
        "umask": "022",
        "version": "1.10",
        "day": "2026-01-01",
        "flag": "on",
        "yes": "true",
        "hex": "0x1F",
        "quoted": "1",
        "block": "a\nb\n",
    }


def test_only_plain_nothing_is_nothing() -> None:
    text = "a:\nb: ~\nc: null\nd: ''\ne: '~'\nf: \"null\"\ng: [~, x]\n"
    assert read(text).data == {"a": None, "b": None, "c": None, "d": "", "e": "~", "f": "null", "g": [None, "x"]}


def test_every_place_has_its_line() -> None:
    document = read("# a comment\na:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n")
    assert document.lines == {
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
        ("a", "c", 1, "d"): 6,
    }
    assert line_of(("a", "missing", "deep"), document.lines) == 2
    assert line_of(("nowhere",), document.lines) == 0


def test_an_alias_repeats_what_its_anchor_holds() -> None:
    document = read("a: &fast {interval: 1s}\nb: *fast\n")
    assert document.data == {"a": {"interval": "1s"}, "b": {"interval": "1s"}}
    assert document.problems == ()


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (("apps", "webui", "command", 0), "apps.webui.command[0]"),
        (("mounts", "s", "options", "--vfs-read-ahead"), "mounts.s.options.--vfs-read-ahead"),
        (("a b", "c\n"), '"a b"."c\\n"'),
        ((), ""),
    ],
)
def test_places_in_words(place: tuple[str | int, ...], text: str) -> None:
    assert dotted(place) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("a:\n\tb: c\n", "line 2: a tab cannot indent: use spaces"),
        ("a: b\n\tc: d\n", "line 2: a tab cannot indent: use spaces"),
        ("a: [1, 2\nb: c\n", "line 1: this bracket is not closed, or a comma is missing"),
        ("a: {b: c\n", "line 1: this bracket is not closed, or a comma is missing"),
        ("a: 1\nb: 'x\nc: d\n", "line 2: this quote is not closed"),
        ("a: b: c\n", "line 1: wrong indentation, or a value that holds ': ' and needs quotes"),
        ("a:\n  - b\n c: d\n", "line 3: wrong indentation: this does not line up with what stands above"),
        ("a: 1\nb\nc: 2\n", "line 2: a key without ':'"),
        ('a: "\\q"\n', "line 1: an unknown escape in double quotes: use single quotes"),
        ('a: "\\U99999999"\n', "this is not YAML"),
        ("a: @x\n", "line 1: a value cannot start with this character: quote it"),
        ("a: %x\n", "line 1: a value cannot start with this character: quote it"),
        ("a: *x\n", "line 1: an alias (*…) without its anchor (&…): quote a value that starts with '*'"),
        ("a: *\n", "line 1: quote a value that starts with '*' or '&'"),
        ("a: &x [*x]\n", "line 1: an alias (*…) contains itself"),
        ("a: 1\n---\nb: 2\n", "line 2: more than one document ('---'): a file holds one"),
        ("a: \x07\n", "line 1: the character U+0007 cannot stand in YAML"),
        ("a: [[", "line 1: this bracket is not closed, or a comma is missing"),
        ("[" * 5000, "nested more than 40 deep"),
        ("a: " + "[" * 50 + "]" * 50, "line 1: nested more than 40 deep"),
        ("a" * (MAX_BYTES + 1), "the file is larger than 1 MiB"),
    ],
)
def test_broken_yaml(text: str, problem: str) -> None:
    with pytest.raises(BadSource) as caught:
        read(text)
    assert str(caught.value.problem) == problem


def test_aliases_that_multiply_are_bounded() -> None:
    text = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        text += f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
    with pytest.raises(BadSource) as caught:
        read(text)
    assert caught.value.problem.text == "the aliases (*…) of this file expand to too much"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1\nb: 2\na: 3\n", ["line 3: a: is written twice, first in line 1"]),
        (
            "x:\n  a: 1\n  a: 2\n  a: 3\n",
            ["line 3: x.a: is written twice, first in line 2", "line 4: x.a: is written twice, first in line 2"],
        ),
        ("a: !!int 5\n", ["line 1: a: tags are not used here: quote a value that starts with '!'"]),
        ("a: !foo {b: c}\n", ["line 1: a: tags are not used here: quote a value that starts with '!'"]),
        ("a: {{ x }}\n", ["line 1: a: a key must be text: quote a value that starts with '{' or '['"]),
        ("x:\n  <<: {a: 1}\n", ["line 2: x: merge keys (<<) are not supported: write the keys out"]),
        (": x\n", None),
        ("'': x\n", ["line 1: a key is empty"]),
        ('a: "\\0"\n', ["line 1: a: holds a NUL character"]),
        ('x:\n  "a\\0": 1\n  b: 2\n', ["line 2: x: a key holds a NUL character"]),
        ('"\\ud800": x\n', ["line 1: a key holds half of a surrogate pair (write the character itself)"]),
        ('a: "\\ud83d\\ude00"\n', ["line 1: a: holds half of a surrogate pair (write the character itself)"]),
        ("'<<': x\n", []),
    ],
)
def test_lesser_problems_leave_a_document(text: str, problems: list[str] | None) -> None:
    if problems is None:
        with pytest.raises(BadSource):
            read(text)
    else:
        assert [str(problem) for problem in read(text).problems] == problems


def test_bytes_are_utf_8_with_or_without_a_mark() -> None:
    assert decode("a: 模型\n".encode()) == "a: 模型\n"
    assert decode(b"\xef\xbb\xbfa: 1\n") == "a: 1\n"
    for data, problem in [
        (b"a: 1\nb: \xff\n", "line 2: this is not UTF-8 text: save the file as UTF-8"),
        ("a: 1\n".encode("utf-16"), "line 1: this is not UTF-8 text: save the file as UTF-8"),
        (b"#" * (MAX_BYTES + 1), "the file is larger than 1 MiB"),
    ]:
        with pytest.raises(BadSource) as caught:
            decode(data)
        assert str(caught.value.problem) == problem


@given(st.text(alphabet=st.sampled_from(list("ab:-[]{}&*!|>'\"%@#~, \n\t\\\x00\x07\ud7ff")), max_size=40))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    with contextlib.suppress(BadSource):
        read(text)
