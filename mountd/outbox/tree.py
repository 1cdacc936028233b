"""A directory and what lies below it, as the worker's process touches it: step by step, and never by a link.

Writers of results are often less trusted than mountd: a link in place of a file or directory must not make mountd read
what that user may not read. So each step of a path is opened by itself, without following links. Knows only the
standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Generator, Iterator, Sequence

from mountd.outbox.settling import OWN_PREFIX, FileLook, belongs, enters, own_name

IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF, IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
IN_ONLYDIR, IN_EXCL_UNLINK, IN_ISDIR = 0x0100_0000, 0x0400_0000, 0x4000_0000
WATCHED = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF
HEAD = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
BUFFER_BYTES = 64 * 1024
MOST_DIRECTORIES = 8192
"""Watches: each takes about 1 KiB in the kernel, whose smallest default for one user is 8,192."""
MOST_LINKS = 20
LONGEST_PATH = 1024
"""Bytes of a path below the directory, as of a key in S3. The kernel itself sets no limit: its PATH_MAX is only one for
what a single call is given, and each directory may be made from within the one above it."""
MOST_DEPTH = 64
"""Directories above one file: each is opened to reach it."""
MOST_SHOWN = 10
LEASING = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "f2fs", "zfs", "bcachefs"})
"""File systems on which a lease that is refused means a writer; on NFS it may mean nothing."""
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def look_of(seen: os.stat_result) -> FileLook:
    return FileLook(seen.st_size, seen.st_mtime_ns, seen.st_ino, seen.st_ctime_ns)


def open_root(path: str) -> int:
    """The directory itself. Above it only links of root and of our own user are followed, at its place none.

    Raises OSError.
    """
    parts, links = path.strip("/").split("/"), 0
    here = os.open("/", _DIRECTORY)
    try:
        while parts:
            part = parts.pop(0)
            try:
                there = os.open(part, _DIRECTORY, dir_fd=here)
            except OSError as error:
                # Linux says ENOTDIR of a link that is not followed to a directory.
                if error.errno not in (errno.ELOOP, errno.ENOTDIR) or not parts:
                    raise
                seen = os.stat(part, dir_fd=here, follow_symlinks=False)
                links += 1
                if not stat.S_ISLNK(seen.st_mode) or seen.st_uid not in (0, os.geteuid()) or links > MOST_LINKS:
                    raise
                target = os.readlink(part, dir_fd=here)
                parts = [*filter(None, target.split("/")), *parts]
                if target.startswith("/"):
                    os.close(here)
                    here = os.open("/", _DIRECTORY)
                continue
            os.close(here)
            here = there
    except BaseException:
        os.close(here)
        raise
    return here


@contextlib.contextmanager
def opened_directory(root: int, path: str) -> Iterator[int]:
    """The directory at `path` below `root`, "" for itself. Raises OSError."""
    here = os.dup(root)
    try:
        for part in filter(None, path.split("/")):
            there = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = there
        yield here
    finally:
        os.close(here)


def split(path: str) -> tuple[str, str]:
    directory, _, name = path.rpartition("/")
    return directory, name


def look_at(root: int, path: str) -> FileLook | None:
    """None: there is no such file, or it is a link, pipe or device. Raises OSError."""
    directory, name = split(path)
    try:
        with opened_directory(root, directory) as parent:
            seen = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno in GONE:
            return None
        raise
    return look_of(seen) if stat.S_ISREG(seen.st_mode) else None


def open_file(root: int, path: str) -> int:
    """A regular file, to be read; with PermissionError none of another user that only a hard link brought here.

    Raises OSError.
    """
    directory, name = split(path)
    with opened_directory(root, directory) as parent:
        file = os.open(name, FILE, dir_fd=parent)
    seen = os.fstat(file)
    if not stat.S_ISREG(seen.st_mode):
        os.close(file)
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    if seen.st_nlink > 1 and not _may_be_linked(seen, os.fstat(root)):
        os.close(file)
        raise PermissionError(errno.EPERM, "a hard link to a file of another user")
    return file


def _may_be_linked(file: os.stat_result, directory: os.stat_result) -> bool:
    """Without fs.protected_hardlinks who writes to a directory can link any file into it."""
    if file.st_uid != directory.st_uid:
        return False
    return file.st_uid != 0 or not directory.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


class Held:
    """A file that is hashed, open until it is released. `seen`: as it was before it was read last."""

    def __init__(self, file: int, look: FileLook) -> None:
        self.file, self.look = file, look
        self.seen = look_of(os.fstat(file))
        self.sha256 = ""

    @property
    def same(self) -> bool:
        """Its content, as far as size, mtime and inode say; it may have been removed meanwhile."""
        return look_of(os.fstat(self.file)).content == self.look.content

    @property
    def untouched(self) -> bool:
        """Else it has to be read again: a program may have written to it and set its time back."""
        return look_of(os.fstat(self.file)) == self.seen


class Writers:
    """Which files programs have open for writing, as far as that can be seen; for one look at many files."""

    def __init__(self, device: int) -> None:
        """`device`: that of the directory."""
        self._leases = _file_system(device) in LEASING
        self._opened: dict[int, list[str]] | None = None

    def have(self, file: int) -> bool:
        """The kernel gives nobody a read lease on a file that is open for writing.

        It gives one only to the file's owner and to a process with CAP_LEASE; otherwise only /proc shows it.
        """
        if self._leases:
            try:
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                return False
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    return True
        if self._opened is None:
            self._opened = {}
            for inode, place in _open_for_writing():
                self._opened.setdefault(inode, []).append(place)
        seen = os.fstat(file)
        return any(_is_on(seen.st_dev, place) for place in self._opened.get(seen.st_ino, ()))


def _file_system(device: int) -> str:
    """Its kind: ext4, nfs, …; "" when it cannot be found."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:
        for line in table:
            before, _, after = line.partition(" - ")
            if before.split(" ", 3)[2] == wanted:
                return after.split(" ", 1)[0]
    return ""


def _is_on(device: int, place: str) -> bool:
    """A socket, a pipe or a file of another disk may have the same number."""
    try:
        return os.stat(place).st_dev == device
    except OSError:
        return False  # it is closed by now


def _open_for_writing() -> Iterator[tuple[int, str]]:
    """Inodes, of all processes that we may look at, each with a link to what has it."""
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{process}/fdinfo"):
                with open(f"/proc/{process}/fdinfo/{descriptor}", encoding="utf-8", errors="replace") as file:
                    facts = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
                if "ino" in facts and int(facts.get("flags", "0"), 8) & os.O_ACCMODE:
                    yield int(facts["ino"]), f"/proc/{process}/fd/{descriptor}"


class Inotify:
    """inotify, as the kernel has it."""

    def __init__(self) -> None:
        """Raises OSError."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._add: Callable[[int, bytes, int], int] = libc.inotify_add_watch
        self._remove: Callable[[int, int], int] = libc.inotify_rm_watch
        self.descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            raise _error()

    def watch(self, directory: int) -> int:
        """An open directory; the number of its watch. Raises OSError."""
        path = f"/proc/self/fd/{directory}".encode()
        number = self._add(self.descriptor, path, WATCHED | IN_ONLYDIR | IN_EXCL_UNLINK)
        if number < 0:
            raise _error()
        return number

    def unwatch(self, number: int) -> None:
        self._remove(self.descriptor, number)

    def read(self) -> list[tuple[int, int, str]]:
        """What has happened: watch, mask, name."""
        try:
            data = os.read(self.descriptor, BUFFER_BYTES)
        except BlockingIOError:
            return []
        found, at = [], 0
        while at + HEAD.size <= len(data):
            number, mask, _, length = HEAD.unpack_from(data, at)
            name = data[at + HEAD.size : at + HEAD.size + length].rstrip(b"\0")
            at += HEAD.size + length
            found.append((number, mask, os.fsdecode(name)))
        return found


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


class WatchedTree:
    """The directories of one scan, with their watches; `alive` is called for each entry that it looks at."""

    def __init__(
        self, include: Sequence[str], exclude: Sequence[str], alive: Callable[[], None] = lambda: None
    ) -> None:
        self._include, self._exclude, self._alive = include, exclude, alive
        self._device: int | None = None
        self.watched: dict[int, str] = {}
        """number of the watch → the directory below root, "" for root itself"""
        self._met: set[int] = set()
        """watches of directories that this scan has met"""
        self.begin()

    def begin(self) -> None:
        """Another scan. What happens meanwhile in directories that it has not met yet is still seen."""
        self._device = None
        self._met = set()
        self.unread: list[str] = []
        """the first directories that cannot be read"""
        self.skipped = 0
        """files and directories whose paths are too long, or too deep"""
        self.first_skipped = ""
        self.is_full = False
        """there was more than `most`"""

    def unwatch_unseen(self, inotify: Inotify | None) -> None:
        """At the end of a scan: what it has not met is no longer below root."""
        for number in self.watched.keys() - self._met:
            del self.watched[number]
            if inotify is not None:
                inotify.unwatch(number)

    def belongs(self, path: str) -> bool:
        return belongs(path, self._include, self._exclude)

    def enters(self, path: str) -> bool:
        return enters(path, self._exclude)

    def fits(self, path: str) -> bool:
        """Whether its path is short enough to be looked at; what does not fit is counted."""
        if path.count("/") <= MOST_DEPTH and len(os.fsencode(path)) <= LONGEST_PATH:
            return True
        self.skipped += 1
        self.first_skipped = self.first_skipped or path
        return False

    def files(
        self, root: int, inotify: Inotify | None, base: str = "", most: int | None = None
    ) -> Generator[tuple[str, FileLook]]:
        """Every file that belongs to it in `base` and below; directories are watched before they are read.

        It ends after `most` entries, whatever they are: `is_full`. Directories of another file system are left out.
        Raises OSError for `base` itself.
        """
        if self._device is None:
            self._device = os.fstat(root).st_dev
        with opened_directory(root, base) as here:
            yield from self._files_of(here, base, inotify, [most])

    def _files_of(
        self, here: int, directory: str, inotify: Inotify | None, left: list[int | None]
    ) -> Generator[tuple[str, FileLook]]:
        """Each directory is gone through where it is met: there may be any number, and none is kept in memory."""
        self._alive()
        if os.fstat(here).st_dev != self._device:
            return
        self._watch(inotify, here, directory)
        with os.scandir(here) as entries:
            for entry in entries:
                self._alive()
                if left[0] is not None:
                    left[0] -= 1
                    if left[0] < 0:
                        self.is_full = True
                        return
                path = f"{directory}/{entry.name}" if directory else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if self.enters(path) and self.fits(path):
                        yield from self._files_below(here, entry.name, path, inotify, left)
                elif entry.name.startswith(OWN_PREFIX):
                    with contextlib.suppress(OSError):  # of a run that was killed in between
                        if entry.name == own_name(look_of(entry.stat(follow_symlinks=False))):
                            os.unlink(entry.name, dir_fd=here)
                elif entry.is_file(follow_symlinks=False) and self.belongs(path) and self.fits(path):
                    with contextlib.suppress(FileNotFoundError):
                        yield path, look_of(entry.stat(follow_symlinks=False))

    def _files_below(
        self, here: int, name: str, path: str, inotify: Inotify | None, left: list[int | None]
    ) -> Generator[tuple[str, FileLook]]:
        try:
            below = os.open(name, _DIRECTORY, dir_fd=here)
            try:
                yield from self._files_of(below, path, inotify, left)
            finally:
                os.close(below)
        except OSError as error:
            if error.errno not in GONE and len(self.unread) < MOST_SHOWN:
                self.unread.append(path)

    def _watch(self, inotify: Inotify | None, here: int, directory: str) -> None:
        """Where no watch is possible, the scan of each minute finds what changes there."""
        if inotify is not None and len(self._met) < MOST_DIRECTORIES:
            with contextlib.suppress(OSError):
                number = inotify.watch(here)
                self.watched[number] = directory
                self._met.add(number)
