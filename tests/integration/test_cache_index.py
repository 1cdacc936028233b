"""The index of a cache on a real file system, as a killed rclone, a loss of power or another program has left it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mountd.cache import digests, extents, index_repair, stamps
from mountd.cache.index_repair import RepairedIndex, repair, stamp
from tests.support.vfs_cache import keep_digests

BELOW = "store{x}/bucket/hub_v1"
NAME = f"{BELOW}/models/gpt.pth"
CONTENT = os.urandom(1_300_000)


class Cache:
    """One that rclone has left with one file in it, fetched as a whole, of which its index says `index`."""

    def __init__(self, root: Path, index: list[dict[str, int]] | None = None, content: bytes = CONTENT) -> None:
        self.root = root
        self.data, self.meta = root / "vfs" / NAME, root / "vfsMeta" / NAME
        for path in (self.data, self.meta):
            path.parent.mkdir(parents=True)
        self.data.write_bytes(content)
        self.write_meta(Rs=index)

    def write_meta(self, **changes: Any) -> None:
        size = len(CONTENT)
        record = {"Size": size, "Rs": None, "Fingerprint": f"{size},2026-01-01", "Dirty": False, "ATime": "x"}
        self.meta.write_text(json.dumps({**record, **changes}))

    def know(self, content: bytes = CONTENT) -> None:
        """What the manifest says."""
        keep_digests(self.root, "hub_v1", {"models/gpt.pth": (len(content), hashlib.sha256(content).hexdigest())})

    def repair(self, *, writes_back: bool = False) -> RepairedIndex:
        return repair(self.root, writes_back, may_guess=True)

    def end(self, durable_s: float | None = None) -> None:
        """rclone's, seen by mountd."""
        stamp(self.root, durable_s)

    def boot(self) -> None:
        path = self.root / stamps.NAME
        path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))

    @property
    def index(self) -> list[tuple[int, int]] | None:
        """From where to where; None when the file is no longer in the cache."""
        if not self.data.exists():
            assert not self.meta.exists()
            return None
        return [(each["Pos"], each["Pos"] + each["Size"]) for each in json.loads(self.meta.read_text())["Rs"] or []]


WHOLE = [{"Pos": 0, "Size": len(CONTENT)}]
ALL = [(0, len(CONTENT))]


def spoil(cache: Cache) -> None:
    """One byte, and no other sign of it than the file system's own."""
    before = cache.data.stat()
    with cache.data.open("r+b") as file:
        file.seek(150_000)
        file.write(bytes([CONTENT[150_000] ^ 1]))
    os.utime(cache.data, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_lies_there_whole_is_indexed_when_its_digest_agrees(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.repair()
    assert cache.index == []  # nothing is known of how it came there
    cache.know()
    done = cache.repair()
    assert (cache.index, done.verified, done.hashed_bytes) == (ALL, 1, len(CONTENT))
    assert json.loads(cache.meta.read_text())["ATime"] == "x"
    assert cache.repair().hashed_bytes == 0  # once is enough


def test_in_the_same_run_of_the_machine_what_has_no_digest_is_indexed_but_for_its_edge(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.repair()
    cache.end()
    cache.repair()
    assert cache.index == [(0, len(CONTENT) - 64 * 1024)]
    cache.know()  # comes later, and is compared at once
    spoil(cache)
    cache.repair()
    assert cache.index is None


@pytest.mark.parametrize("has_digest", [True, False])
@pytest.mark.parametrize("is_ended", [True, False])
def test_planted_bytes_are_dropped(tmp_path: Path, has_digest: bool, is_ended: bool) -> None:
    cache = Cache(tmp_path, WHOLE)
    cache.repair()
    if is_ended:
        cache.end()
    if has_digest:
        cache.know()
    spoil(cache)
    done = cache.repair()
    # What a killed mountd would have seen last is unknown.
    assert cache.index == (None if has_digest or is_ended else ALL)
    assert len(done.wrong + done.unproven) == (cache.index is None)


def test_a_planted_index_is_dropped(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.data.open("r+b") as file:
        file.truncate(0)
        file.truncate(len(CONTENT))
    cache.repair()
    cache.write_meta(Rs=WHOLE)
    cache.repair()
    assert cache.index is None


@pytest.mark.parametrize("planted", [{"Fingerprint": ""}, {"Fingerprint": f"{len(CONTENT)},2027"}, {"Size": 7}])
def test_a_planted_record_is_dropped(tmp_path: Path, planted: dict[str, Any]) -> None:
    cache = Cache(tmp_path, WHOLE)
    cache.repair()
    cache.end()
    cache.write_meta(Rs=WHOLE, **planted)
    cache.repair()
    assert cache.index is None


def test_another_file_in_its_place_is_dropped(tmp_path: Path) -> None:
    cache = Cache(tmp_path, WHOLE)
    cache.repair()
    cache.end()
    before = cache.data.stat()
    cache.data.rename(tmp_path / "away")
    cache.data.write_bytes(bytes(len(CONTENT)))
    os.utime(cache.data, ns=(before.st_atime_ns, before.st_mtime_ns))
    cache.repair()
    assert cache.index is None


def test_after_a_loss_of_power_only_what_was_on_disk_or_has_its_digest_is_kept(tmp_path: Path) -> None:
    for name, durable_s, has_digest, kept in (
        ("stopped", 5.0, False, ALL),
        ("killed", None, False, None),
        ("manifest", None, True, ALL),
    ):
        cache = Cache(tmp_path / name, WHOLE)
        cache.repair()
        cache.end(durable_s)
        if has_digest:
            cache.know()
        cache.boot()
        cache.repair()
        assert cache.index == kept, name
        cache.boot()
        cache.repair()
        assert cache.index == kept, f"{name}, twice"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}', '{"schema": 1, "boot": "", "running": true}'])
def test_a_record_of_ours_that_cannot_be_read_says_nothing_for_any_file(tmp_path: Path, text: str) -> None:
    cache = Cache(tmp_path, WHOLE)
    (tmp_path / stamps.NAME).write_text(text)
    cache.repair()
    assert cache.index is None


def test_what_there_was_no_time_for_is_compared_at_a_later_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Untouched since, and indexed as whole: only its stamp shows that it was not compared."""
    cache = Cache(tmp_path, WHOLE)
    spoil(cache)
    cache.know()
    with monkeypatch.context() as hurried:
        hurried.setattr(index_repair, "HASH_S", -1.0)
        for _ in range(2):
            cache.repair()
            assert cache.index == ALL  # as a mountd without stamps has left it
            cache.end()
    cache.repair()
    assert cache.index is None


def test_what_there_is_no_time_for_is_no_further_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_repair, "HASH_S", -1.0)
    cache = Cache(tmp_path)
    cache.know()
    cache.repair()
    assert cache.index == []
    cache.end()
    spoil(cache)
    cache.repair()
    assert cache.index is None


@pytest.mark.parametrize("has_digest", [False, True])
def test_files_that_wait_for_their_upload_are_left_alone(tmp_path: Path, has_digest: bool) -> None:
    """What a program has written over a cached file is another content, of which there is no digest yet."""
    cache = Cache(tmp_path, WHOLE)
    cache.repair()
    cache.end()
    if has_digest:
        cache.know()
    spoil(cache)
    written = cache.data.read_bytes()
    for is_dirty, index, content in ((True, ALL, written), (False, None, None)):
        cache.write_meta(Rs=WHOLE, Dirty=is_dirty)
        cache.repair(writes_back=True)
        cache.end(5.0)
        assert cache.index == index
        assert content is None or cache.data.read_bytes() == content


def test_a_file_with_holes_is_indexed_where_it_has_data(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.data.open("r+b") as file:
        file.truncate(0)
        file.truncate(len(CONTENT))
        file.write(CONTENT[: 3 * 65536])
    cache.repair()
    cache.end()
    cache.repair()
    assert cache.index == [(0, 2 * 65536)]


def dig_hole(cache: Cache) -> bytes:
    """Zeros in the middle that take no room, as `tar -S`, `rsync -S` or `fallocate -d` make them: the content."""
    content = CONTENT[: 256 * 1024] + bytes(512 * 1024) + CONTENT[768 * 1024 :]
    with cache.data.open("r+b") as file:
        file.truncate(0)
        file.write(content[: 256 * 1024])
        file.seek(768 * 1024)
        file.write(content[768 * 1024 :])
    return content


@pytest.mark.parametrize("is_ended", [True, False])
def test_holes_that_are_zeros_of_the_object_are_kept(tmp_path: Path, is_ended: bool) -> None:
    cache = Cache(tmp_path, WHOLE)
    cache.know(dig_hole(cache))
    cache.repair()
    if is_ended:
        cache.end()
    assert cache.repair().hashed_bytes == 0  # compared once, and untouched since
    assert cache.index == ALL


def test_holes_that_nothing_speaks_for_are_not_served(tmp_path: Path) -> None:
    cache = Cache(tmp_path, WHOLE)
    cache.repair()
    cache.end()
    dig_hole(cache)
    cache.know()
    cache.repair()
    assert cache.index is None


def test_the_holes_of_a_file_in_very_many_parts_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extents, "MOST", 3)
    cache = Cache(tmp_path)
    for parts in (3, 4):
        with cache.data.open("r+b") as file:
            file.truncate(0)
            file.truncate(len(CONTENT))
            for number in range(parts):
                file.seek(number * 256 * 1024)
                file.write(CONTENT[: 64 * 1024])
            found = extents.extents(file.fileno(), len(CONTENT))
        assert (found and len(found)) == (3 if parts == 3 else None)
    cache.write_meta(Rs=[{"Pos": number * 256 * 1024, "Size": 64 * 1024} for number in range(4)])
    cache.repair()
    assert cache.index is not None


def test_a_former_mountd_has_left_manifests_at_least(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    entry = {"path": "models/gpt.pth", "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    text = json.dumps({"files": [entry]})
    record = {"Size": len(text), "Fingerprint": f"{len(text)},x", "Rs": None}
    (tmp_path / "vfsMeta" / BELOW / "MANIFEST.json").write_text(json.dumps(record))
    for content, index in ((text[:50].ljust(len(text), "\0"), []), (text, ALL)):
        (tmp_path / "vfs" / BELOW / "MANIFEST.json").write_text(content)
        cache.repair()
        assert cache.index == index
        (tmp_path / stamps.NAME).unlink()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 7}', '{"files": [7]}', '{"files": [{"path": "x"}]}'])
def test_a_manifest_that_makes_no_sense(text: str) -> None:
    assert digests.of_manifest(text.encode(), "x") == {}


def test_a_block_that_ends_in_zeros_may_be_filled_in_part(tmp_path: Path) -> None:
    """Where the network broke off, no hole shows the rest: the next block was fetched."""
    cache = Cache(tmp_path)
    cache.repair()
    with cache.data.open("r+b") as file:
        file.seek(5 * 4096 - 100)
        file.write(bytes(100))
    cache.repair()
    assert cache.index == [(0, 4 * 4096), (5 * 4096, len(CONTENT) - 64 * 1024)]


def test_digests_are_bounded_and_found_whatever_lies_above(tmp_path: Path) -> None:
    for number in range(digests.MOST + 3):
        keep_digests(tmp_path, f"a/hub_{number}", {"x": (1, f"{number:064x}")})
        os.utime(max((tmp_path / digests.DIRECTORY).glob("*.json"), key=os.path.getmtime), (number, number))
    assert len(list((tmp_path / digests.DIRECTORY).iterdir())) <= digests.MOST + 1
    known = digests.read(tmp_path)
    newest = f"store{{x}}/bucket/a/hub_{digests.MOST + 2}/x"
    assert digests.of(known, newest, 1) == f"{digests.MOST + 2:064x}"
    assert digests.of(known, newest, 2) == digests.of(known, "x", 1) == ""
