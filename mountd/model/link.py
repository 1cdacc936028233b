"""The link to the live version: read and replaced atomically, on local disk, never followed.

A link above it that somebody else has made is not followed either: see process/way.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from mountd import container
from mountd.errors import cause_of
from mountd.model import drift
from mountd.model.drift import FoundLink, LinkBlocked, LinkKind
from mountd.process import way

_PREFIX = ".mountd-"


def read(link: Path) -> str | None:
    """Where it points, as text; None when there is no link. Neither the link nor its target is followed."""
    try:
        return os.readlink(link)
    except OSError:
        return None


def look(link: Path) -> FoundLink:
    """What is there, without following it."""
    try:
        mode = os.lstat(link).st_mode
        if stat.S_ISLNK(mode):
            return FoundLink(LinkKind.LINK, os.readlink(link))
    except FileNotFoundError:
        return FoundLink(LinkKind.NOTHING if link.parent.is_dir() else LinkKind.NO_PARENT)
    except OSError as error:
        return FoundLink(LinkKind.UNREADABLE, cause_of(error))
    return FoundLink(LinkKind.DIRECTORY if stat.S_ISDIR(mode) else LinkKind.FILE)


def check(link: Path) -> None:
    """Raises LinkBlocked unless `link` is free or a link, in a directory that exists."""
    blocked = drift.block(link, look(link))
    if blocked is not None:
        raise blocked


def refuse_unsafe(link: Path) -> None:
    """Raises LinkBlocked where somebody else can move a directory above it, and so decides where the link is made."""
    try:
        with contextlib.suppress(OSError):  # other failures are reported when the link is made
            os.close(way.open_directory(str(link.parent), strict=True))
    except way.Unsafe as unsafe:
        raise _unsafe(link, unsafe) from None


def prove(link: Path, target: str) -> None:
    """A link can be made beside `link`: there is room, and its directory may be written. Raises LinkBlocked."""
    check(link)
    temporary = _temporary(link)
    with _directory(link) as at:
        os.symlink(target, temporary, dir_fd=at)
        os.unlink(temporary, dir_fd=at)


def point(link: Path, target: str) -> None:
    """Makes `link` point to `target` in one step: who opens it sees the old or the new target, never nothing.

    The directory is synced, so that after a power cut the link is one of the two. Raises LinkBlocked.
    """
    check(link)
    if read(link) == target:
        return
    # Same directory, so that the rename stays within one file system. (`ln -sf` on a link to a directory would
    # create a link inside that directory.)
    temporary = _temporary(link)
    with _directory(link) as at:
        os.symlink(target, temporary, dir_fd=at)
        try:
            os.replace(temporary, link.name, src_dir_fd=at, dst_dir_fd=at)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=at)
            raise
        with _readable(at) as directory:
            os.fsync(directory)


def remove(link: Path) -> None:
    """What is not a link stays. Raises LinkBlocked, but not when the link or its directory is already gone."""
    if look(link).kind is LinkKind.NO_PARENT:
        return
    with _directory(link, "remove") as at, contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(os.stat(link.name, dir_fd=at, follow_symlinks=False).st_mode):
            os.unlink(link.name, dir_fd=at)


def sweep(link: Path) -> None:
    """Removes temporary links that a kill left beside `link`."""
    # The whole name: `cache-hub` may be a link of its own beside `cache`.
    ours = re.compile(re.escape(f"{_PREFIX}{link.name}-") + "[0-9a-f]{8}")
    with contextlib.suppress(OSError, LinkBlocked), _directory(link) as at:
        with _readable(at) as directory, os.scandir(directory) as entries:
            left = [entry.name for entry in entries if ours.fullmatch(entry.name) and entry.is_symlink()]
        for name in left:
            os.unlink(name, dir_fd=at)


def _temporary(link: Path) -> str:
    return f"{_PREFIX}{link.name}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def _directory(link: Path, what: str = "place") -> Iterator[int]:
    """A descriptor of its directory, even if somebody moves that; all work goes through it. `what` is done with the
    link, for the error. Raises LinkBlocked, also for what fails inside."""
    try:
        at = way.open_directory(str(link.parent))
        try:
            yield at
        finally:
            os.close(at)
    except way.Unsafe as unsafe:
        raise _unsafe(link, unsafe, what) from None
    except OSError as error:
        raise LinkBlocked(f"cannot {what} the link {link}: {cause_of(error)}", hint=_hint(link, error)) from None


@contextlib.contextmanager
def _readable(at: int) -> Iterator[int]:
    """Another descriptor of the directory, which can be synced and listed."""
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
    try:
        yield directory
    finally:
        os.close(directory)


def _unsafe(link: Path, unsafe: way.Unsafe, what: str = "place") -> LinkBlocked:
    hint = "give the directory to root, or put the link elsewhere; allow_unsafe_paths: true where nobody else can be"
    return LinkBlocked(f"cannot {what} the link {link}: {unsafe}", hint=hint)


def _hint(link: Path, error: OSError) -> str:
    if error.errno == errno.EROFS and container.is_here():
        return "the container's root is read-only: write models.*.link below a --tmpfs or --volume of it"
    return f"let mountd's user write in {link.parent}, and see that its disk has room"
