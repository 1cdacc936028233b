"""Reads a file that somebody else wrote: a regular one, up to a limit, without waiting for anybody."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_plain(path: Path, limit: int) -> bytes:
    """At most `limit` + 1 bytes, so that the caller sees when it is larger.

    Raises OSError, also for what is not a regular file: a pipe would wait for its writer, and opening a device may
    already do something.
    """
    _refuse_special(os.stat(path).st_mode, path)
    # It may have been replaced since.
    with open(path, "rb", opener=_open_without_waiting) as file:
        _refuse_special(os.fstat(file.fileno()).st_mode, path)
        return file.read(limit + 1)


def _refuse_special(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = next((words for is_kind, words in _KINDS if is_kind(mode)), "something else")
        raise OSError(errno.EINVAL, f"is not a regular file, but {kind}", str(path))


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
