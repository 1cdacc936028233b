"""What mountd has last seen of each clean cached file, beside the cache: a change meanwhile is seen.

It lies with the cache, not in the state directory: a pod that starts again may have kept nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mountd.cache.reindex import Origin
from mountd.rclone.private_file import sync

NAME = "index.json"
SCHEMA = 1
MOST_BYTES = 256 * 1024 * 1024
"""A line is some 200 bytes: room for a million files."""


class Stamp(NamedTuple):
    """A file's data as they were, and the object that they are of."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    fingerprint: str
    is_durable: bool = False
    """on disk, whatever becomes of the machine"""
    is_guessed: bool = False
    is_proven: bool = False
    """of both see `reindex.CachedFile`"""

    @classmethod
    def of(cls, data: os.stat_result, fingerprint: str) -> Stamp:
        return cls(data.st_ino, data.st_size, data.st_mtime_ns, data.st_ctime_ns, fingerprint)

    def is_of(self, other: Stamp) -> bool:
        """The same data of the same object."""
        return self[:5] == other[:5]


@dataclass(frozen=True, slots=True)
class Stamps:
    """`boot` names the run of the kernel; `running`: an rclone may have changed the cache since."""

    boot: str
    running: bool
    files: Mapping[str, Stamp] = field(default_factory=dict)


NONE = Stamps("", running=False)
"""There is a record, and it makes no sense: nothing is known of any file."""


def origin(stamps: Stamps | None, boot: str, name: str, now: Stamp) -> Origin:
    """What may have changed a file since it was stamped; None: no mountd has kept stamps here yet."""
    if stamps is None:
        return Origin.UNRECORDED
    is_same_boot = bool(boot) and stamps.boot == boot
    before = stamps.files.get(name)
    if before is not None and before.is_of(now) and (is_same_boot or before.is_durable):
        return Origin.UNTOUCHED
    return Origin.RCLONE if is_same_boot and stamps.running else Origin.UNKNOWN


def boot_id() -> str:
    """Another one after each start of the kernel; empty where it is unknown."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return ""


def read(cache: Path) -> Stamps | None:
    """None when there are none. Blocks. Raises OSError when they cannot be read now."""
    try:
        with open(cache / NAME, "rb") as file:
            content = file.read(MOST_BYTES)
    except FileNotFoundError:
        return None
    try:
        document = json.loads(content)
        if document["schema"] != SCHEMA:
            return NONE
        files = {name: Stamp(*fields) for name, fields in document["files"].items()}
        return Stamps(str(document["boot"]), bool(document["running"]), files)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return NONE


def write(cache: Path, stamps: Stamps, *, durable: bool) -> None:
    """Replaces them as a whole. `durable`: it is on disk when this returns. Blocks. Raises OSError."""
    document = {"schema": SCHEMA, "boot": stamps.boot, "running": stamps.running, "files": stamps.files}
    replace(cache / NAME, json.dumps(document).encode(), durable=durable)


def replace(path: Path, content: bytes, *, durable: bool) -> None:
    """A file of mountd's in the cache, which other users may not read, as a whole. Blocks. Raises OSError."""
    new = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(new, path)
    if durable:
        sync(path.parent)
