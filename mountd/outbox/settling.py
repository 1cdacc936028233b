"""Which files of a directory are finished: those that have not changed for a while. And which belong to it at all.

Used in the worker's process: knows only the standard library.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

OWN_PREFIX = ".mountd-removing-"
"""Of a file that is being removed, see `own_name`; never uploaded."""


class FileLook(NamedTuple):
    """What the kernel says of a file; times in ns. When the content changes, so does size, mtime or inode."""

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int

    @property
    def content(self) -> tuple[int, int, int]:
        """Unchanged as long as nobody writes to the file or replaces it."""
        return self[:3]

    @property
    def stamp(self) -> str:
        """Everything but the size, as the journal has it: numbers of the kernel may be larger than SQLite's."""
        return f"{self.mtime_ns}.{self.inode}.{self.ctime_ns}"

    @classmethod
    def of(cls, size: int, stamp: str) -> FileLook:
        """From what the journal has."""
        mtime_ns, inode, ctime_ns = map(int, stamp.split("."))
        return cls(size, mtime_ns, inode, ctime_ns)


def own_name(look: FileLook) -> str:
    """What a file is called while it is removed: a file of this name that looks otherwise is another one."""
    return OWN_PREFIX + "-".join(map(str, look.content))


def belongs(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether the file at this path below the directory is to be uploaded."""
    *directories, name = path.split("/")
    if name.startswith(OWN_PREFIX) or not enters("/".join(directories), exclude) or _matches(path, name, exclude):
        return False
    return _matches(path, name, include)


def enters(path: str, exclude: Sequence[str]) -> bool:
    """Whether files may belong to it that lie in the directory at this path, "" for the whole."""
    parts = path.split("/") if path else []
    return not any(_matches("/".join(parts[: at + 1]), part, exclude) for at, part in enumerate(parts))


def _matches(path: str, name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in patterns)


class Settling:
    """Files of one directory. `now`: seconds of a clock that nobody sets."""

    def __init__(self, settle_s: float, most: int) -> None:
        """`most`: so many files that are not finished are taken at once, and so many finished ones remembered."""
        self._settle_s, self._most = settle_s, most
        self.is_full = False
        """a file was not taken: the next scan finds it"""
        self._is_forgetful = False
        self._moving: dict[str, tuple[FileLook, float]] = {}
        """not finished: what was seen of them, since when; what has been unchanged for longest comes first"""
        self._finished: dict[str, int] = {}
        """a number instead of the look"""

    def __len__(self) -> int:
        return len(self._moving) + len(self._finished)

    def __contains__(self, path: str) -> bool:
        return path in self._moving or path in self._finished

    @property
    def unfinished(self) -> int:
        return len(self._moving)

    def look(self, path: str, seen: FileLook, now: float) -> None:
        """A file as it is now."""
        if self._finished.get(path) == hash(seen):
            return
        known = self._moving.get(path)
        if known is None and len(self._moving) >= self._most:
            self.is_full = True
            return
        self._finished.pop(path, None)
        if known is None or known[0] != seen:
            self._moving.pop(path, None)
            self._moving[path] = seen, now

    def busy(self, path: str, now: float) -> None:
        """It would be finished, but a program has it open for writing."""
        if path in self._moving:
            seen, _ = self._moving.pop(path)
            self._moving[path] = seen, now

    def due(self, now: float, most: int) -> list[tuple[str, FileLook]]:
        """Files that have been still for long enough, at most so many."""
        found: list[tuple[str, FileLook]] = []
        for path, (seen, since) in self._moving.items():
            if len(found) == most or since + self._settle_s > now:
                break
            found.append((path, seen))
        return found

    def finish(self, path: str) -> None:
        """It was reported as finished."""
        seen, _ = self._moving.pop(path)
        self.remember(path, seen)

    def remember(self, path: str, seen: FileLook) -> None:
        """It is finished, and known to be: nothing has to be reported of it."""
        if path in self._moving:
            return
        if path in self._finished or len(self._finished) < self._most:
            self._finished[path] = hash(seen)
        else:
            self._is_forgetful = True

    def forget(self, path: str) -> bool:
        """It is gone; whether it may have been reported."""
        self._moving.pop(path, None)
        return self._finished.pop(path, None) is not None or self._is_forgetful

    def paths(self) -> set[str]:
        return {*self._moving, *self._finished}

    def next_due(self) -> float | None:
        """When the next one has been still for long enough; None: nothing moves."""
        first = next(iter(self._moving.values()), None)
        return None if first is None else first[1] + self._settle_s
