"""Removes a file that was uploaded, and nothing that a program has put at its place or is writing into it.

Used in the worker's process: knows only the standard library.
"""

from __future__ import annotations

import contextlib
import os
import stat

from mountd.outbox.settling import FileLook, own_name
from mountd.outbox.tree import FILE, GONE, Writers, look_of, opened_directory, split


def remove(root: int, path: str, expected: FileLook, writers: Writers | None = None) -> str:
    """Removes the file when it is still the one expected: removed, gone or changed. Raises OSError.

    It gets another name first. What a program puts at its place in that moment stays, and is never followed: by a link
    to a file of root alone it would have root link that file into the program's own directory. Under that name nobody
    opens it any more: if no program has it open for writing then, none has.
    """
    directory, name = split(path)
    writers = writers or Writers(os.fstat(root).st_dev)
    file = None
    try:
        with opened_directory(root, directory) as parent:
            seen = os.stat(name, dir_fd=parent, follow_symlinks=False)
            # With its ctime: a program may have written to it and set its time back.
            if not stat.S_ISREG(seen.st_mode) or look_of(seen) != expected:
                return "changed"
            with contextlib.suppress(PermissionError):  # who cannot read it has not uploaded it lately
                file = os.open(name, FILE, dir_fd=parent)
            if file is not None and writers.have(file):
                return "changed"
            aside = own_name(expected)
            os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)
            seen = os.stat(aside, dir_fd=parent, follow_symlinks=False)
            if not _is(expected, seen) or (file is not None and writers.have(file)):
                _put_back(parent, aside, name, is_directory=stat.S_ISDIR(seen.st_mode))
                return "changed"
            os.unlink(aside, dir_fd=parent)
    except OSError as error:
        if error.errno in GONE:
            return "gone"
        raise
    finally:
        if file is not None:
            os.close(file)
    return "removed"


def _is(expected: FileLook, seen: os.stat_result) -> bool:
    """Whatever its ctime, which another name changes."""
    return stat.S_ISREG(seen.st_mode) and look_of(seen).content == expected.content


def _put_back(parent: int, aside: str, name: str, *, is_directory: bool) -> None:
    """Where a newer one lies there already, that one stays. Raises OSError."""
    if is_directory:
        os.rename(aside, name, src_dir_fd=parent, dst_dir_fd=parent)  # takes the place of no file
        return
    try:
        os.link(aside, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError:  # no hard links on this disk, or not of this user's files
        with contextlib.suppress(FileNotFoundError):
            os.stat(name, dir_fd=parent, follow_symlinks=False)
            os.unlink(aside, dir_fd=parent)
            return
        os.rename(aside, name, src_dir_fd=parent, dst_dir_fd=parent)
        return
    os.unlink(aside, dir_fd=parent)
