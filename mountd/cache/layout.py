"""Which files wait in rclone's cache to be uploaded: read from its metadata on local disk, with or without rclone.

rclone marks a file there as dirty with its first write and takes the mark away when the upload has ended [T]: so a file
that a program still writes counts, too, and so does what a killed rclone has left. Both 1.60.1 and 1.75.2 keep
`vfsMeta/REMOTE/PATH` beside `vfs/REMOTE/PATH`, the data.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from pathlib import Path

from mountd.cache.repair import META, record_of, records
from mountd.cache.uploads import NAMES, Pending


def pending(cache: Path, meta: str = "") -> Pending:
    """What waits below `meta`, the metadata directory that a running rclone names; without it, in the whole cache.

    Blocks, for about 30 µs a cached file: call it in a thread. What vanishes meanwhile was uploaded or removed.
    """
    return _count(_dirty(cache, Path(meta) if meta else cache / META))


def stranded(cache: Path, meta: str) -> Pending:
    """What waits elsewhere in the cache: an rclone for `meta` uploads none of it."""
    return _count(_dirty(cache, cache / META, without=meta))


def is_empty(cache: Path, meta: str) -> bool:
    """Whether the cache holds the file of this metadata as uploaded and without content. Raises OSError."""
    found = record_of(cache, meta)
    if found is None:
        return False
    record, data = found
    return data.st_size == 0 and isinstance(record, dict) and record.get("Dirty") is False


def _count(files: Iterator[tuple[str, int]]) -> Pending:
    count = total = 0

    def counted() -> Iterator[str]:
        nonlocal count, total
        for name, size in files:
            count, total = count + 1, total + size
            yield name

    smallest = heapq.nsmallest(NAMES, counted())  # as many as are told, however many there are
    return Pending(count, total, tuple(smallest))


def _dirty(cache: Path, root: Path, without: str = "") -> Iterator[tuple[str, int]]:
    """Name relative to `root`, and bytes on disk. Torn metadata is being written at this moment, hence changing.

    What cannot be read is left out: the rest is counted, and rclone's own queue is asked as well.
    """
    for meta, record, data in records(cache, root, without, unreadable=lambda _: None):
        if record is None or (isinstance(record, dict) and record.get("Dirty") is True):
            yield os.path.relpath(meta, root), data.st_size
