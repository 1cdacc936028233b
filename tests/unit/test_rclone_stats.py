"""An answer of rclone 1.75.2 becomes a value, a malformed one an error and never a count of zero."""

from __future__ import annotations

from typing import Any

import pytest

from mountd.errors import Unavailable
from mountd.rclone.stats import CoreStats, DiskCacheStats, VfsStats

DISK = {
    "bytesUsed": 3_000_000,
    "erroredFiles": 0,
    "files": 7,
    "hashType": 1,
    "outOfSpace": False,
    "path": "/var/cache/x/vfs/store/bkt",
    "pathMeta": "/var/cache/x/vfsMeta/store/bkt",
    "uploadsInProgress": 1,
    "uploadsQueued": 2,
}
VFS = {"diskCache": DISK, "fs": "store:bkt", "inUse": 1, "metadataCache": {"dirs": 3, "files": 9}, "opt": {}}
CORE = {"bytes": 5, "errors": 1, "fatalError": False, "lastError": "403 Forbidden", "speed": 0.5}


def test_of_a_mount() -> None:
    cache = DiskCacheStats(files=7, used_bytes=3_000_000, uploads=3, metadata="/var/cache/x/vfsMeta/store/bkt")
    assert VfsStats.parse(VFS) == VfsStats(cache)


def test_of_a_mount_without_its_cache() -> None:
    without = {name: value for name, value in VFS.items() if name != "diskCache"}
    assert VfsStats.parse(without) == VfsStats(None)


def test_of_all_it_does() -> None:
    assert CoreStats.parse(CORE) == CoreStats(moved_bytes=5, errors=1, last_error="403 Forbidden")
    assert CoreStats.parse({"bytes": 0, "errors": 0}) == CoreStats(0, 0, "")
    assert CoreStats.parse(CORE | {"listed": 7}).listed == 7


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ({}, "metadataCache"),
        (VFS | {"diskCache": None}, "diskCache"),
        (VFS | {"diskCache": DISK | {"uploadsQueued": "2"}}, "uploadsQueued"),
        (VFS | {"diskCache": DISK | {"uploadsQueued": True}}, "uploadsQueued"),
        (VFS | {"diskCache": DISK | {"pathMeta": None}}, "pathMeta"),
        (VFS | {"metadataCache": 1}, "metadataCache"),
    ],
)
def test_a_malformed_answer_of_a_mount(answer: dict[str, Any], named: str) -> None:
    with pytest.raises(Unavailable, match=named):
        VfsStats.parse(answer)


@pytest.mark.parametrize("answer", [{}, CORE | {"bytes": None}, CORE | {"lastError": 403}])
def test_another_malformed_answer(answer: dict[str, Any]) -> None:
    with pytest.raises(Unavailable, match="core/stats"):
        CoreStats.parse(answer)
