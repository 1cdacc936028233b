"""Which parts of a file hold data, as its file system tells: a file that is fetched in parts has holes elsewhere."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from mountd.mount.reindex import Ranges

MOST = 10_000
"""Of so many parts of one file the rest is taken for a hole."""
_PROBE_BYTES = 1024 * 1024


def extents(fd: int, size: int) -> Ranges:
    """In blocks of the file system, the last up to `size`. Blocks. Raises OSError."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < size and len(found) < MOST:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                break
            raise
        at = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
        if begin >= at:
            break
        found.append((begin, at))
    return tuple(found)


def are_told(directory: Path) -> bool:
    """Whether the file system of `directory` tells of holes at all; one that does not calls all of a file data."""
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=directory) as file:
        file.truncate(_PROBE_BYTES)
        return extents(file.fileno(), _PROBE_BYTES) == ()
    return False
