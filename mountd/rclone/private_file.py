"""Files that only mountd's user may read: written whole, synced, and put in place by renaming."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection
from pathlib import Path

from mountd.errors import CannotStart, cause_of

FileStat = tuple[int, int, int, int]


def read(path: Path) -> str | None:
    """Its text; None when there is none."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def identity(path: Path) -> FileStat | None:
    """Another one after each change; None while there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def replace(path: Path, text: str, *, expected: str | None = None) -> bool:
    """Whether it was replaced: not when it holds this text and is 0600 already. The directory is made, 0700.

    Raises BlockingIOError when it no longer holds the text that was `expected`, CannotStart when it cannot be written.
    """
    try:
        with contextlib.suppress(OSError):
            if read(path) == text and path.stat().st_mode & 0o777 == 0o600:
                return False
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600 from the start
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if expected is not None and read(path) != expected:
                raise BlockingIOError
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync(path.parent)
    except BlockingIOError:
        raise
    except OSError as error:
        raise CannotStart(
            f"cannot write {path}: {cause_of(error)}",
            hint=f"make {path.parent} writable for mountd's user, or free space there",
            code="conf-unwritable",
        ) from None
    return True


def sync(path: Path) -> None:
    """The file or directory is on disk when this returns. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_leftovers(directory: Path, patterns: Collection[str], *, keep: Collection[str]) -> None:
    """Files of a previous run, which may hold secrets that are no longer in use."""
    for pattern in patterns:
        for path in directory.glob(pattern):
            if path.name not in keep:
                with contextlib.suppress(OSError):
                    path.unlink()
