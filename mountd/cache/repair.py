"""Repairs, before rclone starts, what a killed rclone has left in its cache in a state that loses data.

Measured with rclone 1.75.2:

- Metadata is written in place. A SIGKILL in that moment, which comes right after a program closes a file, leaves half
  of it, and the next rclone then deletes the data, although it was never uploaded.
- Metadata is written with the first write to a file and then only after its close. A SIGKILL between leaves a record
  that knows the first block alone: the rest cannot be read before its upload, and gives way to what an old object says.
- What a new rclone finds not uploaded it shows in the mount without an object behind it. The first program that reads
  such a file after its upload gets 0 bytes, and the cache remembers them as the content, over restarts as well:
  `reopen.py` prevents that, and wrong content from before is dropped here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mountd.cache import extents
from mountd.cache.layout import META, data_of, is_dirty, records, write_record
from mountd.cache.upload_state import NAMES

RESCUED = "rescued"
LEFTOVERS = 100_000
"""As many are opened before their upload, which takes about 3 ms each; it bounds the memory for their names."""


@dataclass(slots=True)
class RepairedUploads:
    """Names are relative to the metadata; of the last three the first few.

    `waiting` counts what is not uploaded, repaired files included; `leftovers` are their sizes in bytes by name, up to
    LEFTOVERS of them.
    """

    waiting: int = 0
    leftovers: dict[str, int] = field(default_factory=dict)
    repaired: tuple[str, ...] = ()
    rescued: tuple[str, ...] = ()
    """set aside, because nothing shows whether they are whole"""
    emptied: tuple[str, ...] = ()
    """wrong content of a file that is in the bucket, dropped"""

    def add(self, name: str, size: int) -> None:
        self.waiting += 1
        if len(self.leftovers) < LEFTOVERS:
            self.leftovers[name] = size


def repair(cache: Path) -> RepairedUploads:
    """All of a cache that no rclone uses. Blocks, for about 30 µs a file. Raises OSError."""
    found = RepairedUploads()
    for meta, record, data in records(cache, cache / META):
        name = os.path.relpath(meta, cache / META)
        if record is None and is_whole(cache, meta, data):
            _write(cache, meta, data)
            found.add(name, data.st_size)
            found.repaired = _with(found.repaired, name)
        elif record is None:
            aside = cache / RESCUED / name
            os.makedirs(aside.parent, mode=0o700, exist_ok=True)
            os.replace(data_of(cache, meta), aside)
            os.unlink(meta)
            found.rescued = _with(found.rescued, name)
        elif is_dirty(record):
            found.add(name, data.st_size)
            if not _covers(record, data.st_size) and (is_whole(cache, meta, data) or not record.get("Fingerprint")):
                _write(cache, meta, data)
                found.repaired = _with(found.repaired, name)
        elif isinstance(record, dict) and _differs_from_its_object(record):
            os.unlink(data_of(cache, meta))
            os.unlink(meta)
            found.emptied = _with(found.emptied, name)
    return found


def _with(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return (*names, name)[:NAMES]


def is_whole(cache: Path, meta: str, data: os.stat_result) -> bool:
    """It has no hole. What was only read may have holes, and must not be uploaded over the object. Raises OSError."""
    with open(data_of(cache, meta), "rb") as file:
        if extents.has_hole(file.fileno(), data.st_size):
            return False
    # Less on the disk, and no hole: it is compressed, unless this file system does not report holes.
    return data.st_blocks * 512 >= data.st_size or extents.finest(cache) > 0


def _covers(record: dict[str, Any], size: int) -> bool:
    """The record knows all of the data. rclone merges ranges that touch: a whole file has one."""
    ranges = record.get("Rs") or []
    try:
        known = any(each["Pos"] == 0 and each["Size"] >= size for each in ranges)
    except (TypeError, KeyError):
        known = False
    return (known or not size) and record.get("Size") == size


def _differs_from_its_object(record: dict[str, Any]) -> bool:
    """An uploaded file has the size of its object, with which rclone's fingerprint of that begins.

    Without a fingerprint it was read from an entry without an object: nothing shows what it belongs to.
    """
    size, _, _ = str(record.get("Fingerprint") or "").partition(",")
    return not size or (size.isdecimal() and int(size) != record.get("Size"))


def _write(cache: Path, meta: str, data: os.stat_result) -> None:
    """Metadata that makes rclone upload the whole file."""
    ranges = [{"Pos": 0, "Size": data.st_size}] if data.st_size else None
    changed = datetime.fromtimestamp(data.st_mtime, UTC).isoformat()
    record = {
        "ModTime": changed,
        "ATime": changed,
        "Size": data.st_size,
        "Rs": ranges,
        "Fingerprint": "",
        "Dirty": True,
    }
    write_record(cache / "repaired.json", meta, record, durable=True)
