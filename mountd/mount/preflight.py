"""What must be so before rclone may be started, each with what to do when it is not."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from mountd.cache.repair import DATA, META
from mountd.errors import CannotStart, DiskError, MountdError, Unavailable, cause_of
from mountd.files.client import Files, NoStat
from mountd.fuse import rights, table
from mountd.fuse.rights import FUSE_DEVICE
from mountd.fuse.table import Entry
from mountd.fuse.watch import MACHINE, read_table
from mountd.process import directories, tool, way
from mountd.process.child import Exit
from mountd.settings.units import Size
from mountd.status.snapshot import Reason

RETRY_S = 10.0
"""Somebody has to mend these; asking every 10 s costs nothing and saves them a restart."""
UNSAFE_HINT = "mount below a directory of root, such as /mnt; where nobody else can be, set allow_unsafe_paths: true"
NOT_VISIBLE = "mount-not-visible"
LOCK_NAME = "mountd.lock"
FUSE_CONF = Path("/etc/fuse.conf")
MIN_FREE_BYTES = 64 * 1024 * 1024
"""Below this rclone's cache cannot even hold its chunks in flight."""
LEAST_FREE_BYTES = 1024 * 1024
"""Less than this is nothing, however little the cache is to leave free."""
MIN_FREE_FILES = 100
TOUCH_TIMEOUT_S = 10.0


def failure(code: str, text: str, hint: str) -> CannotStart:
    return CannotStart(text, hint=hint, code=code, retry_s=RETRY_S)


def check_fuse(device: str = FUSE_DEVICE) -> None:
    """Raises CannotStart when this machine, container or user cannot mount with FUSE at all."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        found = rights.look()
        missing = isinstance(error, FileNotFoundError)
        flags = f"in a container add {rights.container_flags(found, device=True)}"
        if missing:
            hint = flags if found.in_container else f"run `modprobe fuse`; {flags}"
        elif error.errno == errno.EPERM:  # a container that has the node, and may not use the device behind it
            hint = flags
        else:
            hint = f"let this user (uid {found.uid}) read and write {device}"
            hint += ", or run mountd as root" if found.uid != 0 else ""
        cause = "does not exist" if missing else f"cannot be opened: {cause_of(error)}"
        raise failure("no-fuse", f"cannot mount: {device} {cause}", hint) from None


def check_fusermount(path: str | None = None) -> None:
    """Raises CannotStart when `fusermount3` (for rclone also `fusermount`) is not on PATH."""
    if shutil.which("fusermount3", path=path) is None and shutil.which("fusermount", path=path) is None:
        raise failure(
            "no-fusermount", "cannot mount: fusermount3 was not found on PATH", "install it: apt-get install fuse3"
        )


def check_allow_other(*, allow_other: bool, root: bool, conf: Path = FUSE_CONF) -> None:
    """Raises CannotStart when FUSE would refuse `allow_other` to this user."""
    if not allow_other or root:
        return
    try:
        lines = conf.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    if not any(line.partition("#")[0].strip() == "user_allow_other" for line in lines):
        raise failure(
            "no-user-allow-other",
            f"cannot mount with allow_other: {conf} does not permit it to users",
            f"add the line user_allow_other to {conf}, or set allow_other: false",
        )


def occupant(entries: Sequence[Entry], path: str, source: str) -> Entry | None:
    """What is mounted at `path` when it is our own leftover, else None. Raises CannotStart for somebody else's."""
    entry = table.at(entries, path)
    if entry is None or (entry.source == source and entry.root == "/"):
        return entry
    hint = f"unmount it (umount {path}), or give the mount another path"
    if entry.source == source:
        hint = f"somebody has bound a part of it over it (mount --bind): umount {path}"
    elif entry.is_fuse and entry.source.startswith(f"{table.DEVNAME_PREFIX}:"):
        hint = "it belongs to another mountd: stop that one, or give the mount another path"
    raise failure(
        "mount-point-taken",
        f"cannot mount at {path}: {entry.source} ({entry.fs_type}) is already mounted there",
        hint,
    )


def apart(name: str, path: str) -> Reason | None:
    """Of a mount that the rest of the machine will not see, although all is well with it."""
    try:
        machine = read_table(MACHINE)
    except OSError:
        return None  # it may not be looked at
    if table.is_seen_from(path, read_table(), machine):
        return None
    return Reason(
        NOT_VISIBLE,
        f"only mountd and its apps see the mount {name}: mountd runs in a mount namespace of its own",
        "mount",
        name,
        "take ProtectSystem, ProtectHome, PrivateTmp and the like out of its unit (`systemctl cat mountd`);"
        " for a container mount a shared directory (rshared, Bidirectional)",
    )


async def check_real_path(path: str, files: Files) -> None:
    """Raises CannotStart when `path` leads through a symbolic link: the kernel's table of mounts, by which a mount is
    found and cleared again, names real paths only. Raises DiskError."""
    real = await files.real_path(path, timeout_s=TOUCH_TIMEOUT_S)
    if real != path:
        raise failure(
            "mount-point",
            f"cannot mount at {path}: it leads through a symbolic link, to {real}",
            f"write the real path in its place: path: {real}",
        )


async def check_mount_point(path: str, files: Files, *, allow_unsafe: bool = False) -> None:
    """A directory, empty, made when missing; asked of the worker, as nobody knows what is above. Raises CannotStart.

    `allow_unsafe`: also where somebody else can move it, or a directory above it.
    """
    try:
        await check_real_path(path, files)
        await _make(path, allow_unsafe=allow_unsafe)
        (found,) = await files.stat([path], timeout_s=TOUCH_TIMEOUT_S)
        if isinstance(found, NoStat):
            cause = found.error.lower()
            raise failure("mount-point", f"cannot mount at {path}: {cause}", "look at the directory above it")
        if found.type != "directory":
            raise failure(
                "mount-point", f"cannot mount at {path}: it is not a directory", "move it away, or choose another path"
            )
        listing = await files.list(path, limit=3, timeout_s=TOUCH_TIMEOUT_S)
    except DiskError as error:
        raise failure(
            "mount-point", f"cannot mount at {path}: {error.text}", "look at the directory above it"
        ) from None
    if listing.items:
        names = ", ".join(item.name for item in listing.items) + (", …" if listing.truncated else "")
        raise failure(
            "mount-point-not-empty",
            f"cannot mount at {path}: the directory is not empty ({names})",
            "a mount would hide these files: move them away, or choose another path",
        )


async def _make(path: str, *, allow_unsafe: bool) -> None:
    """The directory, where it is missing. Raises CannotStart when what is mounted there could end up elsewhere, and
    Unavailable when nobody could look: a check that came to no end says nothing."""
    options = ["--make", *(["--lax"] if allow_unsafe else [])]
    outcome = await tool.run([sys.executable, "-I", "-S", way.__file__, *options, path], timeout_s=TOUCH_TIMEOUT_S)
    try:
        found = None if outcome.code or outcome.not_started else way.found(outcome.output)
    except ValueError:
        found = None
    if found is None:
        said = outcome.output.rpartition("\n")[2] or Exit(outcome.code, outcome.not_started)
        raise Unavailable(f"cannot check the way to {path}: {said}", hint="see whether memory or processes ran out")
    for _, cause, number in found:
        if number is None:
            raise failure("unsafe-path", f"cannot mount at {path}: {cause}", UNSAFE_HINT)
        if number != errno.ENOTDIR:
            hint = "create it, owned by mountd's user"
            raise failure("mount-point", f"cannot create the mount point {path}: {cause}", hint)


def lock_cache(directory: Path, held: int | None = None) -> int:
    """Creates the cache directory (0700), proves that it can be written and takes it: two rclones on one cache corrupt
    it. The descriptor holds the lock; `held` is the one of before, given back when it still is the lock of this
    directory (somebody may have removed it to clear the cache). Raises CannotStart."""
    try:
        directories.make(directory, 0o700)
        fd = directories.open_private(directory / LOCK_NAME)
    except MountdError as error:
        raise failure("cache-not-writable", error.text, error.hint) from None
    except OSError as error:
        raise failure(
            "cache-not-writable",
            f"cannot use the cache directory {directory}: {cause_of(error)}",
            f"make it a directory that uid {os.geteuid()} can write, on local disk, or set cache.dir",
        ) from None
    try:
        for below in (DATA, META):
            _check_own(directory / below)
        if held is not None and os.path.sameopenfile(held, fd):
            os.close(fd)
            return held
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(fd, b"\n", 0)
    except BlockingIOError:
        os.close(fd)
        raise failure(
            "cache-taken",
            f"cannot use the cache directory {directory}: another mount uses it",
            "give each mount a cache.dir of its own",
        ) from None
    except OSError as error:
        os.close(fd)
        cause = cause_of(error)
        raise failure(
            "cache-not-writable",
            f"cannot use the cache directory {directory}: {cause}",
            "look at what is in it, and at the room on its disk",
        ) from None
    return fd


def _check_own(place: Path) -> None:
    """What rclone makes there itself: without it nothing is read, cached or not. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.stat(place).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, f"{place.name} in it is not a directory")
        if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{place.name} in it cannot be written")


def check_space(directory: Path, *, held_bytes: int = 0, min_free: Size | None = None) -> None:
    """Raises CannotStart when the cache's file system has less than 64 MiB left, or has gone.

    `held_bytes` are in the cache, which gives them up for what is read next. `min_free` is for a cache in use: on a
    small disk rclone may leave less than 64 MiB, so half of what it is to keep free is enough.
    """
    try:
        usage = os.statvfs(directory)
    except OSError as error:
        cause = cause_of(error)
        raise failure(
            "cache-not-writable", f"cannot use the cache directory {directory}: {cause}", "look at its disk"
        ) from None
    free, needed = usage.f_bavail * usage.f_frsize, MIN_FREE_BYTES
    if min_free is not None:
        needed = min(needed, max(LEAST_FREE_BYTES, min_free.of(usage.f_blocks * usage.f_frsize) // 2))
    if free + held_bytes < needed:
        raise failure(
            "cache-full",
            f"cannot use the cache directory {directory}: only {free // 1024**2} MiB are free",
            f"free at least {MIN_FREE_BYTES // 1024**2} MiB there, or set cache.dir to a larger disk",
        )
    if usage.f_files > 0 and usage.f_favail < MIN_FREE_FILES:  # some file systems do not count them: 0 of 0
        raise failure(
            "cache-full",
            f"cannot use the cache directory {directory}: its disk has room, but not for more files (inodes)",
            "remove files there that nobody needs (`df -i` counts them), or set cache.dir to another disk",
        )
