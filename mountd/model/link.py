"""The link to the live version: read and replaced atomically, on local disk, never followed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

from mountd.errors import Unavailable

_PREFIX = ".mountd-"


class LinkBlocked(Unavailable):
    """Something that may be somebody's data stands where the link belongs, or its directory cannot be written."""


def read(link: Path) -> str | None:
    """Where it points, as text; None when there is no link. Neither the link nor its target is followed."""
    try:
        return os.readlink(link)
    except OSError:
        return None


def check(link: Path) -> None:
    """Raises LinkBlocked unless `link` is free or a link, in a directory that exists."""
    try:
        mode = os.lstat(link).st_mode
    except FileNotFoundError:
        if not link.parent.is_dir():
            raise LinkBlocked(
                f"cannot place the link {link}: the directory {link.parent} does not exist",
                hint=f"create it (mkdir -p {link.parent}), or set another link",
            ) from None
        return
    except OSError as error:
        raise LinkBlocked(
            f"cannot place the link {link}: {_cause(error)}", hint="look at the directory above"
        ) from None
    if not stat.S_ISLNK(mode):
        kind = "directory" if stat.S_ISDIR(mode) else "file"
        raise LinkBlocked(
            f"cannot place the link {link}: a real {kind} is in its place",
            hint=f"mountd never deletes data: look what it is, then move it away (mv {link} {link}.old)",
        )


def point(link: Path, target: str) -> None:
    """Make `link` point to `target` in one step: whoever opens it sees the old or the new, never nothing.

    The directory is synced, so that after a power cut the link is one of the two. Raises LinkBlocked.
    """
    check(link)
    if read(link) == target:
        return
    # Same directory, so that the rename stays within one file system. (`ln -sf` on a link to a directory would
    # create a link inside that directory.)
    temporary = link.parent / f"{_PREFIX}{link.name}-{secrets.token_hex(4)}"
    try:
        os.symlink(target, temporary)
        try:
            os.replace(temporary, link)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        directory = os.open(link.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise LinkBlocked(
            f"cannot place the link {link}: {_cause(error)}", hint=f"let mountd's user write in {link.parent}"
        ) from None


def sweep(link: Path) -> None:
    """Removes temporary links that a kill left beside `link`."""
    # The whole name: `cache-hub` may be a link of its own beside `cache`.
    ours = re.compile(re.escape(f"{_PREFIX}{link.name}-") + "[0-9a-f]{8}")
    with contextlib.suppress(OSError), os.scandir(link.parent) as entries:
        for entry in entries:
            if ours.fullmatch(entry.name) and entry.is_symlink():
                os.unlink(entry.path)


def _cause(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
