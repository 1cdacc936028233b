"""What can be pinned, as values: paths that stay in their tree, the list and the record of a version, and what fits."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.errors import Refused
from mountd.model import manifest
from mountd.warm import pins
from mountd.warm.pins import PinFit, PinRecord
from mountd.warm.plan import WantedFile

A, B = "a" * 64, "b" * 64


def file(path: str, size: int = 1, sha256: str | None = A) -> WantedFile:
    return WantedFile(path, size, sha256)


@pytest.mark.parametrize(
    "files",
    [
        [],
        [file("")],
        [file("/etc/passwd")],
        [file("../x")],
        [file("a/../b")],
        [file("a/./b")],
        [file("a//b")],
        [file("a/")],
        [file(".")],
        [file("a\0b")],
        [file("a\nb")],
        [file("a\rb")],
        [file("a\ud800")],
        [file("é" * 200)],
        [file("/".join(["x" * 200] * 6))],
        [file("a"), file("a")],
        [file("a"), file("a/b")],
        [file("a"), file("a-b"), file("a/b/c")],
        [file("a", -1)],
        [file("a", sha256=None)],
        [file("a", sha256="A" * 64)],
        [file("a", sha256="../" + "a" * 61)],
        [file("a", sha256=A + "\n")],
        [file("a", 1), file("b", 2)],
    ],
    ids=str,
)
def test_what_cannot_be_pinned(files: list[WantedFile]) -> None:
    with pytest.raises(Refused):
        pins.checked(files)


@pytest.mark.parametrize(
    "path",
    ["a", "a/b/c", ".hidden/..x", "...", "模型/声音 #1.wav", "a\tb", "x" * 255, "a\\b", "-rf", "%2e%2e/x", "\x1b[2J"],
)
def test_what_can_be(path: str) -> None:
    wanted = [file(path)]
    assert pins.checked(wanted) == wanted
    assert list(pins.parse_listing(pins.listing(wanted).splitlines(keepends=True))) == wanted


_parts = st.text(st.characters(exclude_characters="/\0\n\r", exclude_categories=["Cs"]), min_size=1, max_size=20)
_paths = st.one_of(st.lists(_parts, min_size=1, max_size=4).map("/".join), st.text(max_size=30))


@given(st.lists(st.tuples(_paths, st.integers(0, 2**53), st.sampled_from([A, B])), max_size=6))
def test_what_is_let_through_stays_in_its_tree_and_is_read_back(given: list[tuple[str, int, str]]) -> None:
    files = [WantedFile(*each) for each in given]
    try:
        found = pins.checked(files)
    except Refused:
        return
    for each in found:
        parts = each.path.split("/")
        assert "" not in parts
        assert not {".", ".."} & set(parts)
        assert not manifest.path_problem(each.path)
    paths = {each.path for each in found}
    assert len(paths) == len(files)
    assert not any(f"{one}/" == other[: len(one) + 1] for one in paths for other in paths)
    lines = pins.listing(found)
    assert list(pins.parse_listing(line + b"\n" for line in lines.split(b"\n")[:-1])) == found


@given(st.dictionaries(_paths, st.tuples(st.integers(0, 9), st.sampled_from([A, B])), min_size=1, max_size=6))
def test_the_list_of_all_files_of_a_manifest_has_the_digest_of_the_version(
    files: dict[str, tuple[int, str]],
) -> None:
    sizes = {path: size for path, (size, _) in files.items()}
    version = manifest.Manifest("v1", sizes, {path: sha256 for path, (_, sha256) in files.items()})
    try:
        found = pins.checked([WantedFile(path, *each) for path, each in files.items()])
    except Refused:
        return
    assert hashlib.sha256(pins.listing(found)).hexdigest() == manifest.digest(version)


RECORD = PinRecord("d" * 64, A, 12, 3, "2026-01-31T12:00:00.000Z")


def test_a_record_is_read_back() -> None:
    assert pins.parse_record(pins.render_record(RECORD)) == RECORD


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        pins.render_record(RECORD)[:-9],
        pins.render_record(RECORD).replace(b'"schema": 1', b'"schema": 2'),
        pins.render_record(RECORD).replace(b'"bytes": 12', b'"bytes": "12"'),
        pins.render_record(RECORD).replace(b"aaaa", b"../a"),
    ],
    ids=range(9),
)
def test_what_is_no_record(data: bytes) -> None:
    assert pins.parse_record(data) is None


@pytest.mark.parametrize(
    ("model", "version", "fine"),
    [
        ("hub", "v23", True),
        ("hub", "1.0.json", True),
        ("hub", "v1.files", True),
        ("hub", "..", False),
        ("hub", "a..b", False),
        ("hub", "", False),
        ("hub", ".v1", False),
        ("hub", "a/b", False),
        ("hub", "v1\n", False),
        ("hub", "x" * 65, False),
        ("..", "v1", False),
        ("", "v1", False),
        ("a/b", "v1", False),
        ("Hub", "v1", False),
    ],
)
def test_names(model: str, version: str, fine: bool) -> None:
    if fine:
        pins.check_names(model, version)
    else:
        with pytest.raises(Refused):
            pins.check_names(model, version)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        (".v1.json", "v1"),
        (".v1.files", "v1"),
        (".v1.json.json", "v1.json"),
        (".v1.files.json", "v1.files"),
        ("v1.json", None),
        (".v1.txt", None),
        (".v1", None),
        ("..json", None),
        (".json", None),
        ("", None),
    ],
)
def test_what_lies_beside_a_tree(name: str, version: str | None) -> None:
    assert pins.version_beside(name) == version
    if version is not None:
        assert name in (pins.beside(version, pins.LIST), pins.beside(version, pins.RECORD))


@pytest.mark.parametrize(
    ("needed", "free", "could_go", "reserve", "expected"),
    [
        (0, 0, 0, 0, PinFit.FITS),
        (10, 10, 0, 0, PinFit.FITS),
        (10, 10, 0, 1, PinFit.NO_ROOM),
        (10, 10, 1, 1, PinFit.AFTER_SWEEP),
        (10, 0, 10, 0, PinFit.AFTER_SWEEP),
        (10, 0, 9, 0, PinFit.NO_ROOM),
        (0, 5, 0, 9, PinFit.NO_ROOM),
        (12 << 30, 8 << 30, 9 << 30, 2 << 30, PinFit.AFTER_SWEEP),
    ],
)
def test_what_fits(needed: int, free: int, could_go: int, reserve: int, expected: PinFit) -> None:
    assert pins.fit(needed, free, could_go, reserve) is expected
    text = pins.no_room("v23", needed, free, could_go, reserve)
    assert (text is not None) is (expected is PinFit.NO_ROOM)
