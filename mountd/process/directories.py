"""Makes the daemon's own directories, and refuses what somebody else may have laid out for it in a place like /tmp.

Who owns a directory can exchange all that lies in it. Where everybody may make names, as in /tmp, one that is easy to
guess belongs to the user who comes first. Everywhere else the administrator has decided: the directory of a volume may
belong to another user, and its group, or in a container everybody, may write there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from mountd.errors import MountdError

_FOR_ALL = stat.S_ISVTX | stat.S_IWOTH
_HINT = "see who made it and remove it, or set another path in the configuration (state, runtime, cache.dir)"


def make(path: Path, mode: int) -> None:
    """With what is missing above it, that 0755. Whatever the umask is; 0700 among everybody's names.

    Raises OSError, and MountdError when a stranger could exchange it.
    """
    path = Path(os.path.abspath(path))
    for each in [*reversed(path.parents), path][1:]:
        among_all = os.stat(each.parent).st_mode & _FOR_ALL == _FOR_ALL
        if not os.path.lexists(each):
            with contextlib.suppress(FileExistsError):  # somebody was quicker: see below who
                os.mkdir(each, 0o700)
                if not among_all:
                    os.chmod(each, mode if each == path else 0o755)
        if among_all:
            _check_owner(each)
    if not os.path.isdir(path):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def make_private(path: Path) -> None:
    """0700, and ours. Raises OSError, MountdError."""
    make(path, 0o700)
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise MountdError(f"cannot use {path}: it is a link", hint=_HINT)
    _check_owner(path)
    os.chmod(path, 0o700)


def open_private(path: Path) -> int:
    """A descriptor of the file, which is made when missing: 0600, also when it was there before with other rights.

    Who can open a file can lock it: for a file that others may read, any local user decides when mountd goes on.
    Raises OSError.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if stat.S_IMODE(os.fstat(fd).st_mode) != 0o600:
            os.fchmod(fd, 0o600)
    except OSError:
        os.close(fd)
        raise
    return fd


def is_anybodys(path: Path) -> bool:
    """Whether everybody may exchange what lies in it. Raises OSError."""
    return os.stat(path).st_mode & _FOR_ALL == stat.S_IWOTH


def _check_owner(path: Path) -> None:
    owner = os.lstat(path).st_uid
    if owner not in (0, os.geteuid()):
        raise MountdError(f"cannot use {path}: it belongs to another user (uid {owner})", hint=_HINT)
