"""Puts right a cached file whose bytes are wrong, while rclone runs: with a good copy, in place.

rclone (1.75.2) has no call that drops a cached file, and it trusts its own account of what is there: a file that was
removed it would make again, and give zeros. Bytes that are written into it are what the next read gets.
"""

from __future__ import annotations

import os
from pathlib import Path

from mountd.cache.layout import GONE, data_of

PIECE_BYTES = 1024 * 1024


def restore(cache: Path, meta: str, good: Path) -> int:
    """Copies `good` over the data of the cached file with the record `meta`, where they differ; bytes that did.

    0 also when it is cached no longer. Blocks. Raises OSError.
    """
    try:
        fd = os.open(data_of(cache, meta), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except GONE:
        return 0
    restored = 0
    try:
        with open(good, "rb") as right:
            for at in range(0, os.fstat(right.fileno()).st_size, PIECE_BYTES):
                piece = right.read(PIECE_BYTES)
                if os.pread(fd, PIECE_BYTES, at) != piece:
                    _write(fd, piece, at)
                    restored += len(piece)
        os.fsync(fd)
    finally:
        os.close(fd)
    return restored


def _write(fd: int, data: bytes, at: int) -> None:
    while data:
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written
