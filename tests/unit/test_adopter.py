"""What is found in a directory, in which order it is tried, and what may be linked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.warm import adopter
from mountd.warm.adopter import FoundFile, OfSize, Reporter, base_of, planned, rank, scan

A, B, C = "a" * 64, "b" * 64, "c" * 64


class Notes(Reporter):
    """Keeps what would be printed."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, object]] = []

    def line(self, **fields: object) -> None:
        self.lines.append(fields)


def look(base: Path, size: int = 4, **limits: Any) -> tuple[dict[str, list[str]], list[object]]:
    """The names of each file of this size by its first one, and the notes."""
    report = Notes()
    given: dict[str, Any] = {"mounts": [], "excluded": [], "entries": 1000, "depth": 8, "scan_s": 60.0, **limits}
    found = scan(str(base), {size}, report, **given)
    return {file.names[0]: file.names for file in found}, [line["note"] for line in report.lines if "note" in line]


def put(path: Path, content: bytes = b"1234") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_only_files_of_a_wanted_size_are_found(tmp_path: Path) -> None:
    put(tmp_path / "a/b/gpt.pth")
    put(tmp_path / "a/other", b"12345")
    os.mkfifo(tmp_path / "a/pipe")
    os.link(tmp_path / "a/b/gpt.pth", tmp_path / "a/again")
    found, notes = look(tmp_path)
    assert [sorted(names) for names in found.values()] == [["a/again", "a/b/gpt.pth"]]
    assert notes == []


def test_a_link_is_another_name_of_a_file_inside_and_nothing_else(tmp_path: Path) -> None:
    base = tmp_path / "base"
    put(base / "blobs/x")
    put(tmp_path / "outside")
    (base / "snapshots/1").mkdir(parents=True)
    (base / "snapshots/1/gpt.pth").symlink_to("../../blobs/x")
    (base / "snapshots/1/absolute").symlink_to(base / "blobs/x")
    (base / "snapshots/1/out").symlink_to("../../../outside")
    (base / "snapshots/1/gone").symlink_to("nowhere")
    (base / "snapshots/1/directory").symlink_to("../../blobs")
    (base / "circle").symlink_to(".")
    found, _ = look(base)
    names = ["blobs/x", "snapshots/1/absolute", "snapshots/1/gpt.pth"]
    assert [sorted(each) for each in found.values()] == [names]


def test_what_is_mounted_there_or_excluded_is_not_looked_at(tmp_path: Path) -> None:
    for name in ("a", "mounted", "pins"):
        put(tmp_path / name / "x")
    mounts = [str(tmp_path / "mounted"), str(tmp_path)]
    found, notes = look(tmp_path, mounts=mounts, excluded=[str(tmp_path / "pins")])
    assert list(found) == ["a/x"]
    assert len(notes) == 2


@pytest.mark.parametrize("limits", [{"entries": 5}, {"scan_s": -1.0}, {"depth": 1}], ids=str)
def test_it_is_bounded(tmp_path: Path, limits: dict[str, Any]) -> None:
    for number in range(10):
        put(tmp_path / f"{number}/deep/x")
    found, notes = look(tmp_path, **limits)
    assert found == {}
    assert notes


@pytest.mark.parametrize(
    ("directory", "base"),
    [
        ("hub/models--org--x/snapshots/abc", "hub/models--org--x"),
        ("hub/models--org--x/snapshots/abc/deep", "hub/models--org--x"),
        ("hub/models--org--x/snapshots", "hub/models--org--x"),
        ("hub/models--org--x", "hub/models--org--x"),
        ("hub/snapshots/abc", "hub/snapshots/abc"),
        ("hub", "hub"),
    ],
)
def test_files_of_a_snapshot_lie_beside_it(tmp_path: Path, directory: str, base: str) -> None:
    (tmp_path / directory).mkdir(parents=True)
    assert base_of(str(tmp_path / directory)) == os.path.realpath(tmp_path / base)


def of_size(**wanted: str) -> OfSize:
    found = OfSize()
    for path, sha256 in wanted.items():
        found.add(path.replace("_", "/"), sha256)
    return found


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([f"models--x/blobs/{A}"], (0, A)),
        ([f"blobs/{A}", "snapshots/1/y"], (0, A)),
        ([f"blobs/{C}", "snapshots/1/d/x"], (4, None)),
        ([f"{A}"], (3, None)),
        ([f"blobs/{'a' * 40}", "snapshots/1/d/x"], (1, A)),
        (["d/x"], (1, A)),
        (["cache_hub/d/x"], (1, A)),
        (["cache_hub/nod/x"], (2, A)),
        (["y"], (1, B)),
        (["z", "other/y"], (1, B)),
        (["e/x", "d/x"], (1, A)),
        (["something.bin"], (3, None)),
    ],
    ids=str,
)
def test_what_speaks_for_a_file(names: list[str], expected: tuple[int, str | None]) -> None:
    assert rank(names, of_size(d_x=A, y=B)) == expected


def found_file(name: str, size: int) -> FoundFile:
    file = FoundFile(os.stat_result((0o100644, 1, 1, 1, 0, 0, size, 0, 0, 0)))
    file.names.append(name)
    return file


def test_the_most_probable_first_and_of_those_the_largest() -> None:
    wanted = [("gpt.pth", 90, A), ("config.yaml", 5, B), ("w2v/model.safetensors", 80, C)]
    files = [
        found_file("other.bin", 90),
        found_file("config.yaml", 5),
        found_file("x/model.safetensors", 80),
        found_file(f"blobs/{C}", 80),
        found_file("x/gpt.pth", 90),
        found_file(f"blobs/{'d' * 64}", 90),
    ]
    assert [(file.names[0], expected) for file, expected in planned(files, wanted)] == [
        (f"blobs/{C}", C),
        ("x/gpt.pth", A),
        ("config.yaml", B),
        ("x/model.safetensors", C),
        ("other.bin", None),
    ]


_names = st.sampled_from(["a", "d/a", "x/d/a", "b", "c", f"blobs/{A}", f"blobs/{'e' * 64}"])
_sizes = st.integers(1, 3)


@given(
    st.lists(st.tuples(_names, _sizes), max_size=60),
    st.lists(st.tuples(st.sampled_from(["a", "d/a", "b"]), _sizes, st.sampled_from([A, B, C])), max_size=6),
)
def test_a_bounded_number_is_tried_and_each_once(
    found: list[tuple[str, int]], wanted: list[tuple[str, int, str]]
) -> None:
    sizes = {size for _, size, _ in wanted}
    files = [found_file(*each) for each in found if each[1] in sizes]
    plan = planned(files, wanted)
    assert len({id(file) for file, _ in plan}) == len(plan)
    for size in sizes:
        of_this = {sha256 for _, other, sha256 in wanted if other == size}
        tried = [(file, expected) for file, expected in plan if file.size == size]
        assert len(tried) <= len(of_this) + adopter.TRIES
        assert {expected for _, expected in tried} <= of_this | {None}


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_what_is_reported_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, report = Clock(), Notes()
    monkeypatch.setattr(adopter, "time", clock)
    for number in range(adopter.MOST_NOTES + 50):
        report.note(f"{'x' * 1000}{number}", "no")
    assert len(report.lines) == adopter.MOST_NOTES
    assert len(str(report.lines[0]["note"])) < 2 * adopter.SHOWN
    report.lines.clear()
    report.total = 10
    for _ in range(100):
        report.heartbeat(1)
    assert report.lines == [{"read": 1, "total": 10}], "so often at most"
    clock.now += adopter.HEARTBEAT_S
    report.heartbeat()
    assert report.lines[1:] == [{"read": 100, "total": 100}], "never less than was read"


# -- what may be linked ---------------------------------------------------------------------------------------------


def nothing(_: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "safe"),
    [
        (nothing, True),
        (lambda path: path.chmod(0o644), False),
        (lambda path: path.chmod(0o464), False),
        (lambda path: path.chmod(0o440), False),
        (lambda path: path.chmod(0o555), False),
        (lambda path: path.parent.chmod(0o775), False),
        (lambda path: path.parent.chmod(0o1777), False),
    ],
    ids=["read-only", "0644", "0464", "0440", "0555", "group-writes-there", "everybody-writes-there"],
)
def test_what_may_be_linked(tmp_path: Path, change: Callable[[Path], None], safe: bool) -> None:
    path = put(tmp_path / "x/gpt.pth")
    path.parent.chmod(0o755)
    path.chmod(0o444)
    change(path)
    with path.open("rb") as file:
        assert adopter.is_safe_to_link(file.fileno(), str(path.parent)) is safe


@pytest.mark.root
@pytest.mark.parametrize("which", ["file", "directory"])
def test_what_is_somebody_elses_is_not_linked(tmp_path: Path, which: str) -> None:
    path = put(tmp_path / "x/gpt.pth")
    path.parent.chmod(0o755)
    path.chmod(0o444)
    os.chown(path if which == "file" else path.parent, 65534, 65534)
    with path.open("rb") as file:
        assert not adopter.is_safe_to_link(file.fileno(), str(path.parent))


def test_what_is_open_for_writing_is_not_linked(tmp_path: Path) -> None:
    path = put(tmp_path / "gpt.pth")
    tmp_path.chmod(0o755)
    writer = path.open("r+b")
    path.chmod(0o444)
    with path.open("rb") as file:
        with writer:
            assert not adopter.is_safe_to_link(file.fileno(), str(tmp_path))
        assert adopter.is_safe_to_link(file.fileno(), str(tmp_path))
