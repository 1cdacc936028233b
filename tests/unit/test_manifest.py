"""Manifests: read whole or refused in words, digests as the interface defines them, compared with what is there."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.demo import hub
from mountd.errors import Refused
from mountd.model import manifest
from mountd.model.manifest import Manifest

FILES = [{"path": "models/gpt.pth", "size": 7, "sha256": 64 * "0"}, {"path": "config.yaml", "size": 0}]


BELOW_NOTHING = ("/a", "a/", "a//b", ".", "./a", "a/..", "../a", "/")


def document(**changes: Any) -> bytes:
    whole = {"schema": 1, "version": "v23", "created": "2026-01-01T00:00:00Z", "tool": "x", "files": FILES}
    return json.dumps({**whole, **changes}).encode()


def test_a_manifest() -> None:
    assert manifest.parse(document()) == Manifest("v23", {"models/gpt.pth": 7, "config.yaml": 0})


def test_the_manifest_of_the_demo(hub_directory: Path) -> None:
    directory = hub_directory / hub.BUCKET / "cache_hub_v23"
    data = (directory / manifest.NAME).read_bytes()
    parsed = manifest.parse(data)
    there = {
        path.relative_to(directory).as_posix(): path.stat().st_size for path in directory.rglob("*") if path.is_file()
    }
    assert parsed.version == "v23"
    assert manifest.compare(parsed.files, there) == []
    assert set(parsed.files) == set(there) - {manifest.NAME}


def test_unknown_keys_and_odd_names_are_fine() -> None:
    files = [{"path": path, "size": 1, "etag": "x"} for path in ("声音 模型.safetensors", "a b#2.pth", "x\ty")]
    assert set(manifest.parse(document(files=files, more={})).files) == {"声音 模型.safetensors", "a b#2.pth", "x\ty"}


@pytest.mark.parametrize("size", [0, 1, 2, 20, len(document()) // 2, len(document()) - 1])
def test_truncated(size: int) -> None:
    with pytest.raises(Refused, match="truncated"):
        manifest.parse(document()[:size])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (document(schema=2), "schema 2 "),
        (document(schema="1"), "schema '1' "),
        (document(schema=True), "schema True "),
        (document(schema=None), "schema None "),
        (b"[]", "truncated"),
        (b"null", "truncated"),
        (b"{}", "truncated"),
        (b"\xff\xfe\x00", "truncated"),
        (b"<html>", "truncated"),
        (b"[" * 100_000, "truncated"),
        (document(files=None), "truncated"),
        (document(files={"a": 1}), "truncated"),
        (document(files=["a"]), "truncated"),
        (document(files=[{"path": "a"}]), "truncated"),
        (document(files=[{"path": ["a"], "size": 1}]), "each file"),
        (document(files=[{"path": 1, "size": 1}]), "each file"),
        (document(files=[{"path": "", "size": 1}]), "each file"),
        (document(files=[{"path": "a", "size": -1}]), "'a' has -1 "),
        (document(files=[{"path": "a", "size": "1"}]), "each file"),
        (document(files=[{"path": "a", "size": 1.5}]), "each file"),
        (document(files=[{"path": "a", "size": True}]), "each file"),
        (document(version=23), "version"),
        (document(version="v" * 65), "version is 'vvv"),
        (document(version="\ud800"), "version is '\\ud800'"),
        (document(files=[]), "no files"),
        (document(files=[*FILES, FILES[0]]), "'models/gpt.pth'"),
        (document(files=[{"path": "a", "size": 2**53 + 1}]), "9007199254740993"),
        (document(files=[{"path": "a", "size": 10**4000}]), "64 bits"),
        (document(files=[{"path": "a\ud800", "size": 1}]), "'a\\ud800'"),
        (document(files=[{"path": "a" * 1025, "size": 1}]), "1024"),
        *((document(files=[{"path": path, "size": 1}]), "no path") for path in BELOW_NOTHING),
        *((document(files=[{"path": path, "size": 1}]), "NUL") for path in ("a\nb", "a\r", "\0")),
    ],
    ids=itertools.count(),
)
def test_what_is_no_manifest(data: bytes, why: str) -> None:
    with pytest.raises(Refused) as refused:
        manifest.parse(data)
    assert manifest.NAME in refused.value.text
    assert why in refused.value.text
    assert refused.value.exit_code == 7


@pytest.mark.parametrize(
    ("path", "fits"),
    [("a" * 1024, True), ("a" * 1025, False), ("声" * 341, True), ("声" * 342, False), ("声" * 1024, False)],
    ids=itertools.count(),
)
def test_a_path_is_as_long_as_a_key_of_s3_in_bytes(path: str, fits: bool) -> None:
    assert (manifest.path_problem(path) == "") is fits


def test_what_is_just_within_its_limit() -> None:
    data = document(version="v" * 64, files=[{"path": "a", "size": 2**53}, {"path": "b", "size": 0}])
    assert manifest.parse(data) == Manifest("v" * 64, {"a": 2**53, "b": 0})


@pytest.mark.parametrize("sha256", ["0" * 63, "0" * 65, "g" * 64, 0, [], f"{'0' * 64}\n"])
def test_a_digest_that_is_none_is_no_manifest(sha256: Any) -> None:
    with pytest.raises(Refused):
        manifest.parse(document(files=[{"path": "a", "size": 1, "sha256": sha256}]))


@pytest.mark.parametrize(
    ("path", "marker"),
    [(".mountd-publishing-1", True), ("a/.mountd-publishing-1", False), (".mountd-publishing-/a", False)],
)
def test_which_object_marks_a_version_that_is_published(path: str, marker: bool) -> None:
    assert manifest.is_marker(path) is marker


@pytest.mark.parametrize(
    "data",
    [
        document(schema="x" * 5_000_000),
        document(version="x" * 5_000_000),
        document(files=[{"path": "x" * 5_000_000, "size": 1}]),
        document(files=[{"path": "a", "size": 1, "sha256": "x" * 5_000_000}]),
        document(files=[{"path": f"{number}", "size": 1} for number in range(100_001)]),
    ],
    ids=["schema", "version", "path", "sha256", "files"],
)
def test_what_is_reported_of_megabytes_is_short(data: bytes) -> None:
    with pytest.raises(Refused) as refused:
        manifest.parse(data)
    assert len(refused.value.text) < 400


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(Refused):
        manifest.parse(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["path", "size", "x"]), inner),
    max_leaves=8,
)


@given(st.sampled_from(["schema", "version", "files"]), json_values)
def test_no_value_raises_anything_else(key: str, value: Any) -> None:
    with contextlib.suppress(Refused):
        manifest.parse(document(**{key: value}))


# -- digests, as interface.md says ------------------------------------------------------------------------------------


def test_digest_is_the_sha256_of_sorted_lines() -> None:
    lines = f"config.yaml\t0\t\nmodels/gpt.pth\t7\t{64 * '0'}\n"
    assert manifest.digest(manifest.parse(document())) == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"created": "2030-01-01T00:00:00Z", "tool": "rsync", "version": "v24"}, True),
        ({"files": FILES[::-1]}, True),
        ({"files": [{**FILES[0], "sha256": 64 * "A"}, FILES[1]]}, False),
        ({"files": [{**FILES[0], "size": 8}, FILES[1]]}, False),
        ({"files": FILES[:1]}, False),
        ({"files": [*FILES, {"path": "more", "size": 0}]}, False),
    ],
)
def test_the_digest_is_of_the_content_alone(changes: dict[str, Any], same: bool) -> None:
    before, now = (manifest.digest(manifest.parse(data)) for data in (document(), document(**changes)))
    assert (before == now) is same


def test_the_digest_does_not_depend_on_how_a_sha256_is_written() -> None:
    upper, lower = (document(files=[{"path": "a", "size": 1, "sha256": 64 * letter}]) for letter in "Aa")
    assert manifest.digest(manifest.parse(upper)) == manifest.digest(manifest.parse(lower))


def test_listing_digest_is_the_sha256_of_sorted_lines() -> None:
    lines = "B\t3\na b\t2\nmodels/gpt.pth\t1\n声\t4\n"
    files = {"models/gpt.pth": 1, "声": 4, "a b": 2, "B": 3}
    assert manifest.listing_digest(files) == hashlib.sha256(lines.encode()).hexdigest()
    assert manifest.listing_digest({}) == hashlib.sha256(b"").hexdigest()


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0)), st.randoms())
def test_listing_digest_does_not_depend_on_the_order(files: dict[str, int], random: Any) -> None:
    shuffled = [*files.items()]
    random.shuffle(shuffled)
    assert manifest.listing_digest(dict(shuffled)) == manifest.listing_digest(files)


def test_listing_digest_of_names_that_are_no_text() -> None:
    assert manifest.listing_digest({"caf\udce9": 1}) == hashlib.sha256(b"caf\xe9\t1\n").hexdigest()


# -- comparing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "problems"),
    [
        ({"a": 1, "b": 2}, []),
        ({"a": 1, "b": 2, "more": 3}, []),
        ({"a": 1}, [("b",)]),
        ({}, [("a",), ("b",)]),
        ({"a": 1, "b": 1}, [("b", "1", "2")]),
        ({"a": 0}, [("b",), ("a", "0", "1")]),
    ],
)
def test_compare(found: dict[str, int], problems: list[tuple[str, ...]]) -> None:
    """The name of each file, and both sizes of one that is there."""
    shown = [text.partition(" ") for text in manifest.compare({"a": 1, "b": 2}, found)]
    assert [(name, *re.findall(r"\d+", rest)) for name, _, rest in shown] == problems
