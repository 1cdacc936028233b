"""The tree of one pinned version: filled with hard links to objects, and compared with its list.

Whoever calls holds the lock of the store. Everything blocks, and raises OSError.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mountd.errors import MountdError, Unavailable, cause_of
from mountd.rclone.private_file import sync
from mountd.warm.plan import WantedFile

READABLE = 0o444
PASSABLE = 0o755
BLOCK_BYTES = 1024 * 1024
_DAMAGED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.ENODATA)
"""What says that a file is not there, or cannot be read from its disk."""


class PinInterrupted(MountdError):
    """The caller asked to stop."""

    retryable = True


@dataclass(frozen=True, slots=True)
class DamagedPin:
    """A file of a tree that is not what its list says: `why`, in words."""

    path: str
    sha256: str
    why: str


def make_directory(path: Path, mode: int = PASSABLE) -> None:
    """Of this mode whatever the umask is, also when it was there. Raises MountdError when it is somebody else's."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    seen = os.lstat(path)
    if not stat.S_ISDIR(seen.st_mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if seen.st_uid not in (0, os.geteuid()):
        raise MountdError(
            f"cannot use {path} for pinned versions: it belongs to another user (uid {seen.st_uid})",
            hint="see who made it and remove it, or set another `state` in the configuration",
        )
    if seen.st_mode & 0o777 != mode:  # as Kubernetes does to what lies on a volume
        os.chmod(path, mode)


def fill(tree: Path, files: Iterable[WantedFile], object_of: Callable[[str], Path], aside: Path) -> None:
    """Puts each object in its place below `tree`, where some may be already; synced.

    The paths are checked, and nobody else can write in the tree, so no link leads out of it. `aside` is a path on the
    same file system that is free. Raises Unavailable when an object is lacking.
    """
    make_directory(tree)
    made, changed = {""}, False
    for each in files:
        parts = each.path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            above = "/".join(parts[:depth])
            if above not in made:
                make_directory(tree / above)
                made.add(above)
        changed |= _put(object_of(str(each.sha256)), each, f"{tree}/{each.path}", aside)
    if changed:
        for directory in made:
            sync(tree / directory)


def _put(kept: Path, wanted: WantedFile, path: str, aside: Path) -> bool:
    """Whether anything had to be done for the object to lie at `path`."""
    if not is_file(kept, wanted.size):
        raise Unavailable(f"cannot pin {wanted.path}: its content is not here yet")
    object_ = os.lstat(kept)
    if stat.S_IMODE(object_.st_mode) != READABLE:  # as above
        os.chmod(kept, READABLE)
    try:
        os.link(kept, path, follow_symlinks=False)
        return True
    except FileExistsError:
        if os.path.samestat(os.lstat(path), object_):
            return False
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
    try:
        os.link(kept, aside, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK:  # ext4: 65,000 links
            raise
        _copy(kept, aside)
    os.rename(aside, path)
    return True


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as old, open(target, "xb") as new:
        shutil.copyfileobj(old, new, BLOCK_BYTES)
        new.flush()
        os.fchmod(new.fileno(), READABLE)
        os.fsync(new.fileno())


def is_file(path: Path, size: int) -> bool:
    """Whether a file of so many bytes is there; a link to one is none."""
    try:
        seen = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(seen.st_mode) and seen.st_size == size


def compare(
    tree: Path, files: Iterable[WantedFile], count: Callable[[int], None], should_stop: Callable[[], bool]
) -> list[DamagedPin]:
    """What is not as it is listed; `count` gets how many more bytes are read. Raises PinInterrupted.

    A content that lies there several times is read once.
    """
    damaged: list[DamagedPin] = []
    read: dict[int, str] = {}
    for each in files:
        try:
            why = _damage(tree / each.path, each, read, count, should_stop)
        except OSError as error:
            if error.errno not in _DAMAGED:  # such as too many open files
                raise
            why = cause_of(error)
        if why:
            damaged.append(DamagedPin(each.path, str(each.sha256), why))
    return damaged


def _damage(
    path: Path,
    wanted: WantedFile,
    read: dict[int, str],
    count: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> str:
    seen = os.lstat(path)
    if not stat.S_ISREG(seen.st_mode):
        return "it is no file"
    if seen.st_size != wanted.size:
        return f"it has {seen.st_size} bytes instead of {wanted.size}"
    sha256 = read.get(seen.st_ino)
    if sha256 is None:
        with open(path, "rb", buffering=0) as file:
            sha256 = digest_of(file.fileno(), count, should_stop)
        if seen.st_nlink > 2:  # besides the object: it lies here once more, or in another version
            read[seen.st_ino] = sha256
    else:
        count(seen.st_size)
    return "" if sha256 == wanted.sha256 else "its bytes have another sha256"


def digest_of(
    fd: int, count: Callable[[int], None] = lambda _: None, should_stop: Callable[[], bool] = lambda: False
) -> str:
    """sha256 of a file from its beginning, in hex. Raises PinInterrupted."""
    sha256, at, block = hashlib.sha256(), 0, memoryview(bytearray(BLOCK_BYTES))
    while length := os.preadv(fd, [block], at):
        if should_stop():
            raise PinInterrupted("cannot go on with pinned files: interrupted")
        sha256.update(block[:length])
        at += length
        count(length)
    return sha256.hexdigest()
