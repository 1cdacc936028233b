"""Which parts of a file hold data, as its file system reports: a file that is fetched in parts has holes elsewhere.

rclone 1.75.2 writes what it fetches in buffers of whole blocks, and a SIGKILL stops a write between two pages. Where
the network broke off, it writes a part of a block (seen in its source); when the next block was fetched by then, no
hole shows the rest, which reads as zeros.
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mountd.cache.reindex import Ranges, merged, without

BLOCK = 4096
TAIL_BYTES = 8
"""As many zeros at the end of a block make it suspect: of a number that ends it, the last 7 bytes often are."""
MOST = 10_000
"""The holes of a file in more parts are unknown."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_PIECE_BYTES = 1024 * 1024


def extents(fd: int, size: int) -> Ranges | None:
    """In blocks of the file system, the last up to `size`; None for more than MOST. Blocks. Raises OSError."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                break
            raise
        at = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
        if begin >= at:
            break
        if len(found) == MOST:
            return None
        found.append((begin, at))
    return tuple(found)


def finest(directory: Path) -> int:
    """In blocks of how many bytes the file system of `directory` reports holes; 0: it calls all of a file data.

    0 also where there is no room for a file to try it with. Raises OSError.
    """
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.truncate(_PIECE_BYTES)
            return os.fstat(file.fileno()).st_blksize if has_hole(file.fileno(), _PIECE_BYTES) else 0
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return 0


def has_hole(fd: int, size: int) -> bool:
    """Raises OSError."""
    try:
        return size > 0 and os.lseek(fd, 0, os.SEEK_HOLE) < size
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that does not report holes
            raise
        return False


def filled(fd: int, given: Ranges, deadline: float, check: Callable[[], None]) -> Ranges | None:
    """Those blocks of `given` that do not end in zeros; None when it takes too long. Blocks.

    `check` is called before each piece is read. Raises OSError, and whatever `check` raises.
    """
    found: list[tuple[int, int]] = []
    for begin, end in given:
        for at in range(begin - begin % BLOCK, end, _PIECE_BYTES):
            check()
            if time.monotonic() > deadline:
                return None
            data = os.pread(fd, _PIECE_BYTES, at)
            suspects = [number * BLOCK for number, last in enumerate(data[BLOCK - 1 :: BLOCK]) if not last]
            empty = tuple((at + each, at + each + BLOCK) for each in suspects if _ends_in_zeros(data, each))
            found += without(((max(begin, at), min(end, at + len(data))),), empty)
    return merged(found)


def _ends_in_zeros(data: bytes, at: int) -> bool:
    return data[at + BLOCK - TAIL_BYTES : at + BLOCK] == bytes(TAIL_BYTES)
