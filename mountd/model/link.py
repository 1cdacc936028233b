"""The link to the live version: read and replaced atomically, on local disk, never followed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

from mountd.errors import Unavailable
from mountd.model import drift
from mountd.model.drift import Kind, Seen

_PREFIX = ".mountd-"


class LinkBlocked(Unavailable):
    """Something that may be somebody's data stands where the link belongs, or its directory cannot be written."""


def read(link: Path) -> str | None:
    """Where it points, as text; None when there is no link. Neither the link nor its target is followed."""
    try:
        return os.readlink(link)
    except OSError:
        return None


def look(link: Path) -> Seen:
    """What stands there, without following it."""
    try:
        mode = os.lstat(link).st_mode
        if stat.S_ISLNK(mode):
            return Seen(Kind.LINK, os.readlink(link))
    except FileNotFoundError:
        return Seen(Kind.NOTHING if link.parent.is_dir() else Kind.NO_PARENT)
    except OSError as error:
        return Seen(Kind.UNREADABLE, _cause(error))
    return Seen(Kind.DIRECTORY if stat.S_ISDIR(mode) else Kind.FILE)


def check(link: Path) -> None:
    """Raises LinkBlocked unless `link` is free or a link, in a directory that exists."""
    blocked = drift.block(link, look(link))
    if blocked is not None:
        raise LinkBlocked(blocked.text, hint=blocked.hint)


def prove(link: Path, target: str) -> None:
    """A link can be made beside `link`: there is room, and its directory may be written. Raises LinkBlocked."""
    check(link)
    temporary = link.parent / f"{_PREFIX}{link.name}-{secrets.token_hex(4)}"
    try:
        os.symlink(target, temporary)
        os.unlink(temporary)
    except OSError as error:
        raise LinkBlocked(
            f"cannot place the link {link}: {_cause(error)}",
            hint=f"let mountd's user write in {link.parent}, and see that its disk has room",
        ) from None


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
