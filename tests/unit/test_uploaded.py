"""Which part of what rclone has moved are uploads, from its lists of transfers."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.rclone.stats import TRANSFERS_KEPT, CoreStats, Transferred, transferred
from mountd.rclone.uploaded import UploadCount

CACHE, BUCKET = ":local{8un-i}:/var/cache/x/vfs/store{Dn7qA}/bkt", "store{Dn7qA}:bkt"


def up(name: str, size: int, begun: str = "t") -> Transferred:
    return Transferred(name, begun, size, is_upload=True)


def down(name: str, size: int, begun: str = "t") -> Transferred:
    return Transferred(name, begun, size, is_upload=False)


def test_uploads_are_separated_from_reads_and_copies_to_this_machine() -> None:
    rows = [
        {"name": "a.wav", "bytes": 5, "started_at": "2026-01-02T03:04:05Z", "srcFs": CACHE, "dstFs": BUCKET},
        {"name": "read", "bytes": 6, "started_at": "2026-01-02T03:04:06Z", "srcFs": BUCKET},
        {"name": "copied", "bytes": 7, "srcFs": BUCKET, "dstFs": "/tmp/x"},
        {"name": "odd", "bytes": None, "srcFs": None, "dstFs": None},
        "no transfer",
    ]
    assert transferred({"transferred": rows}) == [
        up("a.wav", 5, "2026-01-02T03:04:05Z"),
        down("read", 6, "2026-01-02T03:04:06Z"),
        down("copied", 7, ""),
        down("odd", 0, ""),
    ]
    assert transferred({}) == transferred({"transferred": None}) == []
    running = {"name": "b.wav", "bytes": 3, "size": 9, "srcFs": CACHE, "dstFs": BUCKET}
    stats = CoreStats.parse({"bytes": 14, "errors": 0, "elapsedTime": 12.5, "transferring": [running, *rows[1:]]})
    assert (stats.uploading, stats.age_s) == ({"b.wav": 3}, 12.5)


def test_one_upload_over_several_looks_counts_once() -> None:
    count = UploadCount()
    assert count.look(10, {"a": 10}, []) == 10
    assert count.look(15, {"a": 25}, []) == 15
    assert count.look(5, {}, [up("a", 30)]) == 5
    assert count.look(0, {}, [up("a", 30)]) == 0
    assert count.look(30, {}, [up("a", 30), up("a", 30, "later")]) == 30, "the same file once more"


def test_reads_beside_it_are_no_uploads() -> None:
    count = UploadCount()
    assert count.look(100, {}, [up("a", 30), down("m", 70)]) == 30
    assert count.look(50, {}, [up("a", 30), down("m", 70)]) == 0


def test_more_than_are_listed_are_counted_by_those_that_are() -> None:
    listed = [up(f"{number}", 10) for number in range(TRANSFERS_KEPT - 1)] + [down("m", 10)]
    assert UploadCount().look(5000, {}, listed) == 4950
    assert UploadCount().look(5000, {}, listed[:-1]) == 990, "all that have ended are listed"


@dataclass
class Rclone:
    """Transfers as rclone keeps them."""

    moved: int = 0
    uploaded: int = 0
    running: dict[str, int] = field(default_factory=dict)
    ended: list[Transferred] = field(default_factory=list)
    number: int = 0

    def step(self, what: str, size: int) -> None:
        name = f"{size % 3}"
        if what == "read":
            self.moved += size
            self.number += 1
            self.ended.append(down("m", size, str(self.number)))
        elif what == "write":
            self.moved, self.uploaded = self.moved + size, self.uploaded + size
            self.running[name] = self.running.get(name, 0) + size
        elif name in self.running:
            self.number += 1
            self.ended.append(up(name, self.running.pop(name), str(self.number)))
        self.ended = self.ended[-TRANSFERS_KEPT:]


STEP = st.tuples(st.sampled_from(["read", "write", "end"]), st.integers(1, 100))


@given(st.lists(st.lists(STEP, max_size=20), max_size=20))
def test_whatever_happens_between_the_looks(looks: list[list[tuple[str, int]]]) -> None:
    rclone, count, before, total = Rclone(), UploadCount(), 0, 0
    for steps in looks:
        for what, size in steps:
            rclone.step(what, size)
        total += count.look(rclone.moved - before, dict(rclone.running), rclone.ended)
        before = rclone.moved
    assert total == rclone.uploaded


@pytest.mark.parametrize("opt", [{"CacheMaxSize": -1}, {"CacheMaxSize": "off"}, {}, None])
def test_a_cache_without_a_limit(opt: object) -> None:
    from mountd.rclone.stats import VfsStats
    from tests.unit.test_rclone_stats import VFS

    disk = VfsStats.parse(VFS | {"opt": opt}).disk_cache
    assert disk is not None
    assert disk.limit_bytes is None
    limited = VfsStats.parse(VFS | {"opt": {"CacheMaxSize": 1 << 30}}).disk_cache
    assert limited is not None
    assert limited.limit_bytes == 1 << 30
