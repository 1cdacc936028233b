"""Files that wait for upload in rclone's cache on disk: which they are, and what a start repairs of a killed rclone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mountd.cache import layout
from mountd.cache.repair import is_whole, repair
from mountd.cache.upload_state import NAMES, Pending
from tests.support.vfs_cache import put


def test_what_waits_is_read_from_the_cache(tmp_path: Path) -> None:
    assert layout.pending(tmp_path) == Pending()  # a cache that was never used
    here = "store{Dn7qA}/bucket"
    put(tmp_path, f"{here}/d/名 前.wav", dirty=True)
    put(tmp_path, f"{here}/uploaded", dirty=False)
    put(tmp_path, f"{here}/removed", dirty=True, data=None)
    put(tmp_path, f"{here}/being-written", dirty=True, text='{"Dir')
    put(tmp_path, f"{here}/list", dirty=True, text="[]")
    put(tmp_path, "store/other/old.wav", dirty=True)
    meta = str(tmp_path / "vfsMeta" / here)
    assert layout.pending(tmp_path, meta) == Pending(2, 10, ("being-written", "d/名 前.wav"))
    assert layout.stranded(tmp_path, meta) == Pending(1, 5, ("store/other/old.wav",))
    assert layout.pending(tmp_path).files == 3


def test_names_of_what_waits_are_bounded(tmp_path: Path) -> None:
    for number in range(30):
        put(tmp_path, f"r/b/{number:02}", dirty=True)
    names = tuple(f"r/b/{number:02}" for number in range(NAMES))
    assert layout.pending(tmp_path) == Pending(30, 150, names)


def test_torn_metadata_is_repaired_so_that_the_file_is_uploaded(tmp_path: Path) -> None:
    put(tmp_path, "r/b/torn", dirty=True, text='{"Dir')
    put(tmp_path, "r/b/nothing", dirty=True, text="{", data=b"")
    put(tmp_path, "r/b/fine", dirty=True)
    done = repair(tmp_path)
    assert (done.waiting, sorted(done.leftovers)) == (3, ["r/b/fine", "r/b/nothing", "r/b/torn"])
    assert sorted(done.repaired) == ["r/b/nothing", "r/b/torn"]
    record = json.loads((tmp_path / "vfsMeta/r/b/torn").read_text())
    assert (record["Dirty"], record["Size"], record["Rs"]) == (True, 5, [{"Pos": 0, "Size": 5}])
    assert json.loads((tmp_path / "vfsMeta/r/b/nothing").read_text())["Rs"] is None
    assert repair(tmp_path).repaired == ()


@pytest.mark.parametrize("rs", [None, [], [{"Pos": 0, "Size": 2}], [{"Pos": 1, "Size": 4}], 3])
@pytest.mark.parametrize("fingerprint", ["", "4,2026-01-01 00:00:00 +0000 UTC,abc"])
def test_a_record_of_the_first_write_alone_is_repaired(tmp_path: Path, rs: object, fingerprint: str) -> None:
    first = {"Size": 0, "Rs": rs, "Fingerprint": fingerprint, "Dirty": True}
    put(tmp_path, "r/b/new", dirty=True, text=json.dumps(first))
    assert repair(tmp_path).repaired == ("r/b/new",)
    record = json.loads((tmp_path / "vfsMeta/r/b/new").read_text())
    assert (record["Dirty"], record["Size"], record["Rs"]) == (True, 5, [{"Pos": 0, "Size": 5}])


@pytest.mark.parametrize(("fingerprint", "repaired"), [("", ("r/b/holes",)), ("4,x", ())])
def test_holes_are_content_only_where_no_object_has_some(
    tmp_path: Path, fingerprint: str, repaired: tuple[str, ...]
) -> None:
    put(tmp_path, "r/b/holes", dirty=True, text=json.dumps({"Size": 5, "Fingerprint": fingerprint, "Dirty": True}))
    os.truncate(tmp_path / "vfs/r/b/holes", 10 << 20)
    assert repair(tmp_path).repaired == repaired


def test_only_a_hole_makes_a_file_less_than_whole(tmp_path: Path) -> None:
    """Not how much room it takes: a compressed file takes less, and what was only reserved is no content."""
    put(tmp_path, "r/b/torn", dirty=True, text="{")
    data = tmp_path / "vfs/r/b/torn"
    data.write_bytes(os.urandom(1 << 20))
    meta = str(tmp_path / "vfsMeta/r/b/torn")
    found = os.lstat(data)
    compressed = os.stat_result((*found[:10],), {"st_blocks": 8})
    assert (compressed.st_size, compressed.st_blocks) == (1 << 20, 8)
    assert is_whole(tmp_path, meta, compressed)
    with data.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 2 << 20)
    assert repair(tmp_path).rescued == ("r/b/torn",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rescued", "vfs", "vfsMeta"]


def test_what_may_not_be_whole_is_set_aside_and_not_uploaded(tmp_path: Path) -> None:
    put(tmp_path, "r/b/torn", dirty=False, text="{")
    with (tmp_path / "vfs/r/b/torn").open("r+b") as file:
        file.truncate(10 << 20)
    done = repair(tmp_path)
    assert (done.waiting, done.rescued) == (0, ("r/b/torn",))
    assert (tmp_path / "rescued/r/b/torn").stat().st_size == 10 << 20
    assert not (tmp_path / "vfsMeta/r/b/torn").exists()
    assert not (tmp_path / "vfs/r/b/torn").exists()


def test_content_that_rclone_has_lost_is_dropped(tmp_path: Path) -> None:
    lost = {"Size": 0, "Rs": None, "Dirty": False, "Fingerprint": "200000,2026-01-01 00:00:00 +0000 UTC,abc"}
    put(tmp_path, "r/b/lost", dirty=False, data=b"", text=json.dumps(lost))
    put(tmp_path, "r/b/empty", dirty=False, data=b"", text=json.dumps(lost | {"Fingerprint": "0,x"}))
    put(tmp_path, "r/b/unknown", dirty=False, data=b"", text=json.dumps(lost | {"Fingerprint": "-1,x"}))
    put(tmp_path, "r/b/changed", dirty=True, data=b"", text=json.dumps(lost | {"Dirty": True}))
    assert repair(tmp_path).emptied == ("r/b/lost",)
    left = sorted(path.name for path in (tmp_path / "vfsMeta/r/b").iterdir())
    assert left == sorted(path.name for path in (tmp_path / "vfs/r/b").iterdir()) == ["changed", "empty", "unknown"]


def test_a_record_with_another_size_than_its_data_is_repaired(tmp_path: Path) -> None:
    known = {"Size": 3, "Rs": [{"Pos": 0, "Size": 5}], "Fingerprint": "", "Dirty": True}
    put(tmp_path, "r/b/grown", dirty=True, text=json.dumps(known))
    assert repair(tmp_path).repaired == ("r/b/grown",)
    assert json.loads((tmp_path / "vfsMeta/r/b/grown").read_text())["Size"] == 5


def test_content_of_no_known_object_is_dropped(tmp_path: Path) -> None:
    put(tmp_path, "r/b/a", dirty=False, text=json.dumps({"Size": 5, "Dirty": False, "Fingerprint": ""}))
    assert repair(tmp_path).emptied == ("r/b/a",)


def test_what_a_repair_remembers_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mountd.cache.repair.LEFTOVERS", 3)
    for number in range(NAMES + 2):
        put(tmp_path, f"r/b/{number:02}", dirty=True, text="{")
    done = repair(tmp_path)
    assert (done.waiting, len(done.leftovers), len(done.repaired)) == (NAMES + 2, 3, NAMES)


def test_what_is_no_regular_file_waits_for_nothing(tmp_path: Path) -> None:
    put(tmp_path, "r/b/link", dirty=True, data=None)
    (tmp_path / "vfs/r/b").mkdir(parents=True)
    (tmp_path / "vfs/r/b/link").symlink_to(tmp_path / "vfsMeta/r/b/link")
    assert layout.pending(tmp_path) == Pending()


@pytest.mark.parametrize(
    ("dirty", "data", "empty"),
    [(False, b"", True), (True, b"", False), (False, b"1", False), (False, None, False)],
)
def test_what_counts_as_uploaded_and_empty(tmp_path: Path, dirty: bool, data: bytes | None, empty: bool) -> None:
    put(tmp_path, "r/b/a", dirty=dirty, data=data)
    assert layout.is_empty(tmp_path, str(tmp_path / "vfsMeta/r/b/a")) is empty
    put(tmp_path, "r/b/a", dirty=dirty, data=data, text='{"Dir')
    assert not layout.is_empty(tmp_path, str(tmp_path / "vfsMeta/r/b/a"))
