"""Finds files by size and sha256 below a directory and brings them into a store: `adopter.py ORDER`, a file of JSON
that it removes.

A process of its own, because the directory may lie on a disk that never answers: it is killed then. It knows only the
standard library, and prints a line of JSON for each thing that happens; while it works, a line at least every
HEARTBEAT_S.

How a file is brought in:

reflink   where the file system can: a copy that shares the disk's blocks until one of the two is written.
link      a hard link is the same file: what is written to the one is written to the other. So only a file that is not
          to be written any more: mode 0444, of root or mountd's user, in a directory of theirs that nobody else can
          write, and open for writing nowhere. mountd does not change the mode itself: the file is the user's, whose
          next download would write over it. `chmod 0444` is how the user says that it stays; an older pin has it.
copy      everything else.

What came to lie in the store is hashed, and gets its name there only then.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import re
import signal
import stat
import sys
import time
from collections import deque

HEARTBEAT_S = 0.5
BLOCK_BYTES = 1024 * 1024
FICLONE = 0x40049409
TRIES = 8
"""Files of one size that are hashed beyond those that are looked for: padded shards, checkpoints of one run."""
MOST_NOTES = 100
SHOWN = 300
"""Characters of a path in a line."""
NO_REFLINK = (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.ETXTBSY)
NO_LINK = (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EMLINK)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
SNAPSHOT = re.compile(r"(.*/(?:models|datasets|spaces)--[^/]+)/snapshots(?:/.*)?")
"""Of a Hugging Face cache: its files are links to ../../blobs/DIGEST."""
BLOB = re.compile(r"(?:.*/)?blobs/([0-9a-f]{64})")

Wanted = tuple[str, int, str]
"""Path, size in bytes, sha256."""


class FoundFile:
    """A regular file of a wanted size; `names` are its paths below the directory, those of links to it included."""

    __slots__ = ("inode", "names", "size")

    def __init__(self, seen: os.stat_result) -> None:
        self.names: list[str] = []
        self.size = seen.st_size
        self.inode = (seen.st_dev, seen.st_ino)


class Reporter:
    """Prints lines; of heartbeats one at most every HEARTBEAT_S, of notes MOST_NOTES in all."""

    def __init__(self) -> None:
        self.read = 0
        self.total = 0
        self._last = 0.0
        self._notes = 0

    def line(self, **fields: object) -> None:
        print(json.dumps(fields), flush=True)

    def note(self, path: str, why: str) -> None:
        self._notes += 1
        if self._notes <= MOST_NOTES:
            self.line(note=f"{shown(path)}: {why}" if path else why)

    def heartbeat(self, more: int = 0) -> None:
        self.read += more
        now = time.monotonic()
        if now - self._last >= HEARTBEAT_S:
            self._last = now
            self.line(read=self.read, total=max(self.read, self.total))


def base_of(root: str) -> str:
    """Where to look: a snapshot of a Hugging Face cache has its files beside it."""
    real = os.path.realpath(root)
    inside = SNAPSHOT.fullmatch(real)
    return inside[1] if inside else real


def is_below(path: str, places: list[str]) -> bool:
    return any(path == place or path.startswith(place.rstrip("/") + "/") for place in places)


def scan(
    base: str,
    sizes: set[int],
    report: Reporter,
    *,
    mounts: list[str],
    excluded: list[str],
    entries: int,
    depth: int,
    scan_s: float,
) -> list[FoundFile]:
    """Regular files of these sizes, on the file system of `base` alone, within the limits given.

    None of the mount points `mounts` is entered or looked at, nor what lies in `excluded`. A link is followed only to a
    file that is found as well. Raises OSError when `base` cannot be read.
    """
    deadline, device, closed = time.monotonic() + scan_s, os.stat(base).st_dev, set(mounts) - {base}
    found: dict[tuple[int, int], FoundFile] = {}
    by_name: dict[str, FoundFile] = {}
    links: list[tuple[str, str]] = []
    ahead = deque([("", 0)])

    def look(entry: os.DirEntry[str], name: str, level: int) -> None:
        if entry.is_symlink():
            target = os.path.join(base, os.path.dirname(name), os.readlink(entry.path))
            links.append((name, os.path.relpath(os.path.normpath(target), base)))
        elif entry.is_dir(follow_symlinks=False):
            if level < depth:
                ahead.append((name, level + 1))
            else:
                report.note(name, "not looked at: it lies too deep")
        elif entry.is_file(follow_symlinks=False):
            seen = entry.stat(follow_symlinks=False)
            if seen.st_size in sizes and seen.st_dev == device:
                file = found.setdefault((seen.st_dev, seen.st_ino), FoundFile(seen))
                file.names.append(name)
                by_name[name] = file

    while ahead:
        below, level = ahead.popleft()
        try:
            listed = os.scandir(os.path.join(base, below))
        except OSError as error:
            if not below:
                raise
            report.note(below, words(error))
            continue
        with listed:
            for entry in listed:
                report.heartbeat()
                entries -= 1
                if entries < 0 or time.monotonic() > deadline:
                    report.note("", "not looked at completely: it holds too much")
                    ahead.clear()
                    break
                name = os.path.join(below, entry.name)
                if entry.path in closed or is_below(entry.path, excluded):
                    report.note(name, "not looked at: it is mounted there, of mountd, or excluded")
                    continue
                try:
                    look(entry, name, level)
                except OSError as error:
                    report.note(name, words(error))
    for name, target in links:
        if target in by_name:
            by_name[target].names.append(name)
    return list(found.values())


class OfSize:
    """What is wanted of one size: the sha256, by path and by the last part of it."""

    def __init__(self) -> None:
        self.sha256: set[str] = set()
        self.paths: dict[str, str] = {}
        self.names: dict[str, str] = {}

    def add(self, path: str, sha256: str) -> None:
        self.sha256.add(sha256)
        self.paths[path] = sha256
        self.names.setdefault(os.path.basename(path), sha256)


def index(wanted: list[Wanted]) -> dict[int, OfSize]:
    found: dict[int, OfSize] = {}
    for path, size, sha256 in wanted:
        found.setdefault(size, OfSize()).add(path, sha256)
    return found


def rank(names: list[str], wanted: OfSize) -> tuple[int, str | None]:
    """What speaks for a file of these names, most at 0, and the sha256 that is expected then.

    0 it is a blob of a Hugging Face cache, named by its sha256; 1 its path ends in a wanted one; 2 so does its name; 3
    only its size; 4 nothing: it is another blob.
    """
    best: tuple[int, str | None] = (3, None)
    for name in names:
        if blob := BLOB.fullmatch(name):
            return (0, blob[1]) if blob[1] in wanted.sha256 else (4, None)
        parts = name.split("/")
        paths = ("/".join(parts[at:]) for at in range(len(parts)))
        if (path := next((each for each in paths if each in wanted.paths), None)) is not None:
            best = min(best, (1, wanted.paths[path]))
        elif parts[-1] in wanted.names:
            best = min(best, (2, wanted.names[parts[-1]]))
    return best


def planned(files: list[FoundFile], wanted: list[Wanted]) -> list[tuple[FoundFile, str | None]]:
    """What is tried, in this order: the most probable first, and of those the largest; each with its expected sha256.

    Of each size as many as are wanted, and TRIES more.
    """
    by_size = index(wanted)
    ranked = [(*rank(file.names, by_size[file.size]), file) for file in files]
    ranked = sorted((each for each in ranked if each[0] < 4), key=lambda each: (each[0], -each[2].size, each[2].names))
    left = {size: len(each.sha256) + TRIES for size, each in by_size.items()}
    plan = []
    for _, expected, file in ranked:
        left[file.size] -= 1
        if left[file.size] >= 0:
            plan.append((file, expected))
    return plan


class Adopter:
    """Brings files into the directory `incoming`, each under its sha256."""

    def __init__(self, base: str, incoming: str, wanted: list[Wanted], report: Reporter) -> None:
        self._base, self._incoming, self._report = base, incoming, report
        self._into = os.open(incoming, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lacking = {size: each.sha256 for size, each in index(wanted).items()}

    def run(self, plan: list[tuple[FoundFile, str | None]]) -> None:
        """Raises OSError when the store has no room."""
        self._report.total = sum(file.size for file, _ in plan)
        for file, expected in plan:
            before, lacking = self._report.read, self._lacking[file.size]
            if lacking:
                self._adopt(file, expected if expected in lacking else None)
            self._report.total += self._report.read - before - file.size
            self._report.heartbeat()

    def _adopt(self, file: FoundFile, expected: str | None) -> None:
        try:
            found = self._try(file, expected)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
            self._report.line(failed=shown(file.names[0]), why=words(error), sha256=expected)
        else:
            if not found:
                self._report.line(failed=shown(file.names[0]), why="it has another sha256", sha256=expected)

    def _try(self, file: FoundFile, expected: str | None) -> bool:
        """Whether it is one of those that are lacking. Raises OSError."""
        lacking, source = self._lacking[file.size], self._open(file)
        try:
            # What is less probable is read first: its copy may be for nothing.
            aim = self._hash(source, file.size) if expected is None else expected
            if aim not in lacking:
                return False
            aside = f"{self._incoming}/{aim}.adopting"
            try:
                how, sha256 = self._bring(source, file, aside)
                if sha256 in lacking:
                    os.rename(aside, f"{self._incoming}/{sha256}")
                    lacking.discard(sha256)
                    self._report.line(took=sha256, how=how, source=shown(file.names[0]))
                    return True
            finally:
                _remove(aside)
            return False
        finally:
            os.close(source)

    def _open(self, file: FoundFile) -> int:
        """The very file that was found, and never a device or a pipe. Raises OSError."""
        path = os.path.join(self._base, file.names[0])
        found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            seen = os.fstat(found)
            if not stat.S_ISREG(seen.st_mode) or (seen.st_dev, seen.st_ino, seen.st_size) != (*file.inode, file.size):
                raise OSError(errno.ESTALE, "it changed meanwhile")
            return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(found)

    def _bring(self, source: int, file: FoundFile, aside: str) -> tuple[str, str]:
        """How it came to lie at `aside`, and the sha256 of what lies there. Raises OSError."""
        if (sha256 := self._reflink(source, aside, file.size)) is not None:
            return "reflink", sha256
        if is_safe_to_link(source, os.path.dirname(os.path.join(self._base, file.names[0]))):
            sha256 = self._hash(source, file.size)
            if self._link(source, aside) and has_no_writer(source):
                return "link", sha256
        return "copy", self._copy(source, aside, file.size)

    def _reflink(self, source: int, aside: str, size: int) -> str | None:
        with _created(aside) as target:
            try:
                fcntl.ioctl(target, FICLONE, source)
            except OSError as error:
                if error.errno not in NO_REFLINK:
                    raise
                return None
            return self._hash(target.fileno(), size)

    def _link(self, source: int, aside: str) -> bool:
        _remove(aside)
        try:
            os.link(f"/proc/self/fd/{source}", os.path.basename(aside), dst_dir_fd=self._into)
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            return False
        return True

    def _copy(self, source: int, aside: str, size: int) -> str:
        with _created(aside) as target:
            return self._hash(source, size, target.fileno())

    def _hash(self, source: int, size: int, target: int = -1) -> str:
        """sha256 of a file of so many bytes, another one if it has grown; what is hashed is written to `target`."""
        sha256, at, block = hashlib.sha256(), 0, memoryview(bytearray(BLOCK_BYTES))
        while count := os.preadv(source, [block[: size + 1 - at]], at):
            sha256.update(block[:count])
            written = 0
            while target >= 0 and written < count:
                written += os.pwrite(target, block[written:count], at + written)
            at += count
            self._report.heartbeat(count)
        return sha256.hexdigest()


def is_safe_to_link(fd: int, directory: str) -> bool:
    """Whether nobody can write the file as it is. Raises OSError."""
    seen, above, trusted = os.fstat(fd), os.stat(directory), (0, os.geteuid())
    return (
        seen.st_uid in trusted
        and stat.S_IMODE(seen.st_mode) == 0o444  # as an object has to be
        and above.st_uid in trusted
        and not above.st_mode & (stat.S_IWGRP | stat.S_IWOTH)  # of an access control list, the most it grants
        and has_no_writer(fd)
    )


def has_no_writer(fd: int) -> bool:
    """Whether the file is open for writing nowhere: only then the kernel grants a lease. False where it cannot say."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


def shown(path: str) -> str:
    return path if len(path) <= SHOWN else f"…{path[-SHOWN:]}"


def words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _created(path: str) -> io.FileIO:
    """A new file, for mountd alone. Raises OSError."""
    _remove(path)
    return io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "r+")


def _remove(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)


def main(path: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the daemon's to handle
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # somebody opens for writing what has a lease at this moment
    with open(path, encoding="utf-8") as file:
        order = json.load(file)
    _remove(path)
    report = Reporter()
    wanted = [(str(path), int(size), str(sha256)) for path, size, sha256 in order["wanted"]]
    directory, excluded = order["directory"], order["scan"]["excluded"]
    try:
        if is_below(directory, excluded) or is_below(base := base_of(directory), excluded):
            report.note("", "not looked at: it is of mountd, or excluded")
        else:
            files = scan(base, {size for _, size, _ in wanted}, report, **order["scan"])
            Adopter(base, order["incoming"], wanted, report).run(planned(files, wanted))
        report.line(end=True)
    except OSError as error:
        report.line(error=words(error), errno=error.errno)


if __name__ == "__main__":
    main(sys.argv[1])
