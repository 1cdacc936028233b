"""The version that the text of a file wants: plain text, or the value at a key of YAML."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.errors import Refused
from mountd.gitops.wanted import MAX_BYTES, NO_VERSION, parse
from mountd.settings.names import VERSION


@pytest.mark.parametrize(
    ("text", "key", "version"),
    [
        ("v23", None, "v23"),
        ("v23\n", None, "v23"),
        ("\n# what runs in production\n\n  v23  \r\n\n", None, "v23"),
        ("\ufeffv23\n", None, "v23"),
        ("1.10\n", None, "1.10"),
        ("version: v23\n", "version", "v23"),
        ("tts: {version: 1.10, replicas: 3}\n", "tts.version", "1.10"),
        ("tts:\n  hub:\n    version: '2026-01-01'\n", "tts.hub.version", "2026-01-01"),
        ("data:\n  version: |\n    v23\n", "data.version", "v23"),
        ("on: {yes: v1}\n", "on.yes", "v1"),
        ("a: 1\na: 2\nb: {c: 1, c: 2}\nversion: v23\n", "version", "v23"),
    ],
)
def test_what_is_wanted(text: str, key: str | None, version: str) -> None:
    assert parse(text.encode(), key, "version.txt") == version


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (b"", None),
        (b"# nothing\n", None),
        (b"v23\nv24\n", None),
        (b"version: v23\n", None),
        (b"latest\n", None),
        (b"../v23\n", None),
        (b"v23\0\n", None),
        (b"\xff\xfe", None),
        (b"v" * (MAX_BYTES + 1), None),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", None),
        (b"", "version"),
        (b"version:\n", "version"),
        (b"version: [v23]\n", "version"),
        (b"version: {a: b}\n", "version"),
        (b"other: v23\n", "version"),
        (b"version: v23\n", "version.tag"),
        (b"- v23\n", "version"),
        (b"a: {b: [\n", "a"),
        (b"version: main\n", "version"),
        (b"version: v22\nversion: v23\n", "version.tag"),
        (b"version: v22\nversion: v23\n", "version"),
        (b"tts: {version: v22}\ntts: {version: v23}\n", "tts.version"),
        (b"tts: {version: v22, version: v22}\n", "tts.version"),
    ],
)
def test_what_names_no_version(data: bytes, key: str | None) -> None:
    with pytest.raises(Refused) as caught:
        parse(data, key, "version.txt")
    assert caught.value.code == NO_VERSION
    assert caught.value.hint


@pytest.mark.parametrize(("data", "key"), [(b"v" * 60_000, None), (b"a: " + b"\xf0\x9f\x98\x80" * 5000, "a")])
def test_what_it_says_instead_is_shown_in_part(data: bytes, key: str | None) -> None:
    with pytest.raises(Refused) as caught:
        parse(data, key, "version.txt")
    assert len(caught.value.text) < 300


@given(st.binary(max_size=200), st.none() | st.sampled_from(["version", "a.b"]))
def test_whatever_stands_there_it_is_a_version_or_refused(data: bytes, key: str | None) -> None:
    with contextlib.suppress(Refused):
        assert VERSION.fullmatch(parse(data, key, "version.txt"))


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True).filter(lambda word: not word.isalpha()))
def test_a_version_is_read_back(version: str) -> None:
    assert parse(f"{version}\n".encode(), None, "f") == parse(f"x:\n  y: {version}\n".encode(), "x.y", "f") == version
