"""rclone's cache on disk: which files it consists of, what their metadata says, and which of them wait for an upload.

rclone keeps `vfsMeta/REMOTE/PATH`, a JSON record, beside `vfs/REMOTE/PATH`, the data. It marks a record as dirty with
the first write to the file and clears the mark when the upload has finished: so a file that a program still writes
counts as waiting, and so does what a killed rclone has left. Measured with rclone 1.75.2.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mountd.cache import stamps
from mountd.cache.upload_state import NAMES, Pending

META, DATA = "vfsMeta", "vfs"
GONE = (FileNotFoundError, NotADirectoryError)
"""What a look at a file raises that has vanished. Any other error says nothing about the file."""


def raises(error: OSError) -> None:
    """What cannot be read now may be read later; what has vanished is no failure."""
    if not isinstance(error, GONE):
        raise error


def data_of(cache: Path, meta: str) -> str:
    """The path of the data that belongs to the metadata at `meta`."""
    return f"{cache / DATA}{meta.removeprefix(str(cache / META))}"


def record_of(cache: Path, meta: str) -> tuple[Any, os.stat_result] | None:
    """What the metadata at `meta` says (None: torn), and its data; None when one has vanished. Raises OSError."""
    with contextlib.suppress(*GONE):
        record = _read(meta)
        data = os.lstat(data_of(cache, meta))
        if stat.S_ISREG(data.st_mode):
            return record, data
    return None


def _read(meta: str) -> Any:
    with open(meta, "rb") as file:
        try:
            return json.load(file)
        except ValueError:
            return None


def records(
    cache: Path, root: Path, without: str = "", unreadable: Callable[[OSError], None] = raises
) -> Iterator[tuple[str, Any, os.stat_result]]:
    """Each file of the cache below `root`: the path of its metadata, what that says (None: torn), and its data.

    What vanishes meanwhile is left out, and so is what has no data, of which nothing could be uploaded. `unreadable` is
    called with each OSError, and raises it; else that file or directory is left out.
    """
    for parent, directories, names in os.walk(root, onerror=unreadable):
        if without:
            directories[:] = [each for each in directories if os.path.join(parent, each) != without]
        for name in names:
            meta = os.path.join(parent, name)
            try:
                found = record_of(cache, meta)
            except OSError as error:
                unreadable(error)
                continue
            if found is not None:
                yield meta, *found


def write_record(new: Path, meta: str, record: Mapping[str, Any], *, durable: bool) -> None:
    """Replaces `meta` as a whole by way of `new`, the caller's own; `durable`: it is on disk then. Raises OSError."""
    stamps.replace(new, json.dumps(record, indent="\t").encode(), durable=durable)
    os.replace(new, meta)


def is_dirty(record: Any) -> bool:
    """Whether a record says that its file is not uploaded; torn metadata says nothing."""
    return isinstance(record, dict) and record.get("Dirty") is True


def pending(cache: Path, meta: str = "") -> Pending:
    """What waits below `meta`, the metadata directory that a running rclone names; without it, in the whole cache.

    Blocks, for about 30 µs a cached file: call it in a thread. What vanishes meanwhile was uploaded or removed.
    """
    return _waiting(cache, Path(meta) if meta else cache / META)


def stranded(cache: Path, meta: str) -> Pending:
    """What waits elsewhere in the cache: an rclone for `meta` uploads none of it."""
    return _waiting(cache, cache / META, without=meta)


def is_empty(cache: Path, meta: str) -> bool:
    """Whether the cache holds the file of this metadata as uploaded and without content. Raises OSError."""
    found = record_of(cache, meta)
    if found is None:
        return False
    record, data = found
    return data.st_size == 0 and isinstance(record, dict) and record.get("Dirty") is False


def _waiting(cache: Path, root: Path, without: str = "") -> Pending:
    """Names are relative to `root`. Torn metadata is being written at this moment, hence changing.

    What cannot be read is left out: the rest is counted, and rclone's own queue is asked as well.
    """
    count = total = 0
    names: list[str] = []
    for meta, record, data in records(cache, root, without, unreadable=lambda _: None):
        if record is None or is_dirty(record):
            count, total = count + 1, total + data.st_size
            bisect.insort(names, os.path.relpath(meta, root))
            del names[NAMES:]  # no more than are shown, however many there are
    return Pending(count, total, tuple(names))
