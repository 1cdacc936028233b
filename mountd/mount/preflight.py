"""What must be so before rclone may be started, each with what to do when it is not."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from mountd import container
from mountd.errors import CannotStart, DiskError, Unavailable, cause_of, needs_fix
from mountd.files.client import Files, NoStat
from mountd.fuse import rights, table
from mountd.fuse.rights import FUSE_DEVICE
from mountd.fuse.table import Entry
from mountd.fuse.watch import MACHINE, read_table
from mountd.process import tool, way
from mountd.status.snapshot import Reason

UNSAFE_HINT = "mount below a directory of root, such as /mnt; where nobody else can be, set allow_unsafe_paths: true"
NOT_VISIBLE = "mount-not-visible"
FUSE_CONF = Path("/etc/fuse.conf")
TOUCH_TIMEOUT_S = 10.0


async def check(
    path: str, source: str, files: Files, *, allow_other: bool, allow_unsafe: bool, clear: Callable[[], Awaitable[None]]
) -> None:
    """All of it, for a mount of `source` at `path`; `clear` removes what a previous run left mounted there. Raises
    CannotStart, Unavailable."""
    check_fuse()
    check_fusermount()
    check_mtab(root=os.geteuid() == 0)
    check_allow_other(allow_other=allow_other, root=os.geteuid() == 0)
    if occupant(read_table(), path, source) is not None:
        await clear()
    await check_mount_point(path, files, allow_unsafe=allow_unsafe)


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
        raise needs_fix("no-fuse", f"cannot mount: {device} {cause}", hint) from None


def check_fusermount(path: str | None = None) -> None:
    """Raises CannotStart when `fusermount3` (for rclone also `fusermount`) is not on PATH."""
    if shutil.which("fusermount3", path=path) is None and shutil.which("fusermount", path=path) is None:
        raise needs_fix(
            "no-fusermount", "cannot mount: fusermount3 was not found on PATH", "install it: apt-get install fuse3"
        )


def check_mtab(*, root: bool, path: str = "/etc/mtab") -> None:
    """Raises CannotStart where fusermount3 would mount, and could not unmount again: images of some distributions lack
    the file, which Docker makes and other container runtimes do not."""
    if not root and not os.path.lexists(path):
        raise needs_fix(
            "no-mtab",
            f"cannot mount: without {path} fusermount3 could not unmount again",
            f"make it, in a container in its image: ln -s /proc/self/mounts {path}; or run mountd as root",
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
        raise needs_fix(
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
    raise _cannot_mount(path, f"{entry.source} ({entry.fs_type}) is already mounted there", hint, "mount-point-taken")


def _cannot_mount(path: str, cause: str, hint: str, code: str = "mount-point") -> CannotStart:
    return needs_fix(code, f"cannot mount at {path}: {cause}", hint)


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
        cause = f"it leads through a symbolic link, to {real}"
        raise _cannot_mount(path, cause, f"write the real path in its place: path: {real}")


async def check_mount_point(path: str, files: Files, *, allow_unsafe: bool = False) -> None:
    """A directory, empty, made when missing; asked of the worker, because what is above may hang. Raises CannotStart.

    `allow_unsafe`: also where somebody else can move it, or a directory above it.
    """
    try:
        await check_real_path(path, files)
        await _make(path, allow_unsafe=allow_unsafe)
        (found,) = await files.stat([path], timeout_s=TOUCH_TIMEOUT_S)
        if isinstance(found, NoStat):
            raise _cannot_mount(path, found.error.lower(), "look at the directory above it")
        if found.type != "directory":
            raise _cannot_mount(path, "it is not a directory", "move it away, or choose another path")
        listing = await files.list(path, limit=3, timeout_s=TOUCH_TIMEOUT_S)
    except DiskError as error:
        raise _cannot_mount(path, error.text, "look at the directory above it") from None
    if listing.items:
        names = ", ".join(item.name for item in listing.items) + (", …" if listing.truncated else "")
        hint = "a mount would hide these files: move them away, or choose another path"
        raise _cannot_mount(path, f"the directory is not empty ({names})", hint, "mount-point-not-empty")


async def _make(path: str, *, allow_unsafe: bool) -> None:
    """The directory, where it is missing. Raises CannotStart when what is mounted there could end up elsewhere, and
    Unavailable when the check could not finish, which says nothing."""
    options = ["--make", *(["--lax"] if allow_unsafe else [])]
    outcome = await tool.run([sys.executable, "-I", "-S", way.__file__, *options, path], timeout_s=TOUCH_TIMEOUT_S)
    try:
        found = None if outcome.code or outcome.not_started else way.found(outcome.output)
    except ValueError:
        found = None
    if found is None:
        said = outcome.output.rpartition("\n")[2] or outcome
        raise Unavailable(f"cannot check the way to {path}: {said}", hint="see whether memory or processes ran out")
    for _, cause, number in found:
        if number is None:
            raise _cannot_mount(path, cause, UNSAFE_HINT, "unsafe-path")
        if number != errno.ENOTDIR:
            hint = container.for_directory(path, OSError(number, "")) or "create it, owned by mountd's user"
            raise needs_fix("mount-point", f"cannot create the mount point {path}: {cause}", hint)
