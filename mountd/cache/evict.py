"""What of a directory of the mount lies in rclone's cache, who has it open, and how it leaves while rclone runs.

rclone offers no call for that: `vfs/forget` forgets listings alone. What was seen when its cache files were taken away
under it, with 1.60.1 and 1.75.2 [T]:

- A file that it has open goes on being read, from the file without a name. One that it has not open is missed at its
  next open ("detected external removal of cache file"), fetched again and right: 750 of 750 times.
- A file that is opened in that very moment, between rclone's look at it and its own open, gives an error (1.60.1) or
  128 KiB of zeros (1.75.2: 33 of 1,900 reads), once; the next open is right again.
- 1.75.2 keeps a file open for 5 s after its last close; a file that is mapped stays open. rclone goes on counting what
  is gone as used until its restart, and lets go of it first when its room ends: as without this, and never sooner.

So nothing may be opened meanwhile: rclone is stopped for a few milliseconds. A stopped rclone has read no question that
it has not answered when the kernel counts none as waiting, and no program waits for one when none has a file of that
directory open. The directories are then renamed, which takes no time, and deleted afterwards.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mountd.errors import Busy
from mountd.fuse.unmount import FUSE_CONNECTIONS

ASIDE = "pruned"
"""In the cache directory, beside what rclone takes for its own."""
STOPPING_S = 0.2
"""For all threads of rclone to stand still: one that waits for a disk does not until it has its answer."""
STOPPED_S = 0.5
"""It stands still no longer, or the mount's own health question goes unanswered."""
_STOPPED = frozenset("Tt")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Place:
    """One rclone and its cache: `data` and `meta` are where it keeps the mount's files, as it says itself.

    `pid` and `minor`, the device number of its mount, are those of now. `path` is the mount point.
    """

    cache: Path
    data: Path
    meta: Path
    path: str
    pid: int
    minor: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes on disk, and when a file of it was opened or closed last, in seconds since 1970."""

    bytes: int
    used_at: float


def names(place: Place, parent: str) -> list[str]:
    """What has a directory below `parent`, relative to the mount. Blocks."""
    try:
        with os.scandir(place.data / parent) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def usage(place: Place, directory: str) -> Usage:
    """Of all files below `directory`. Blocks, for some µs a file."""
    total, used_at = 0, 0.0
    for status in _files(place.data / directory):
        total += status.st_blocks * 512
    for status in _files(place.meta / directory):
        used_at = max(used_at, status.st_mtime)
    return Usage(total, used_at)


def _files(root: Path) -> Iterator[os.stat_result]:
    for parent, _, found in os.walk(root):
        for name in found:
            with contextlib.suppress(OSError):  # gone meanwhile
                yield os.lstat(os.path.join(parent, name))


def sweep(cache: Path) -> None:
    """What a former life had put aside and not deleted. Blocks."""
    shutil.rmtree(cache / ASIDE, ignore_errors=True)


def evict(place: Place, directory: str) -> None:
    """Takes all files of `directory` out of the cache. Blocks.

    Raises Busy when one is open or rclone does not rest now, OSError when the disk fails or rclone has ended.
    """
    check_not_open(place, directory)
    aside = place.cache / ASIDE / f"{os.getpid()}-{next(_numbers)}"
    os.makedirs(aside, mode=0o700)
    try:
        with _stopped(place.pid) as deadline:
            check_not_open(place, directory)
            _check_idle(place.minor)
            if time.monotonic() > deadline:
                raise Busy("it takes too long to see which files are open")
            os.rename(place.data / directory, aside / "data")
            with contextlib.suppress(FileNotFoundError):
                os.rename(place.meta / directory, aside / "meta")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[float]:
    """rclone stands still inside; until when it may, on the monotonic clock, is given. Raises Busy, OSError."""
    process = os.pidfd_open(pid)
    try:
        if _STOPPED & set(_states(pid)):
            raise Busy("rclone is stopped by somebody else")
        began = time.monotonic()
        signal.pidfd_send_signal(process, signal.SIGSTOP)
        try:
            while not set(_states(pid)) <= _STOPPED:
                if time.monotonic() - began > STOPPING_S:
                    raise Busy("rclone does not rest")
                time.sleep(0.0005)
            yield began + STOPPED_S
        finally:
            signal.pidfd_send_signal(process, signal.SIGCONT)
    finally:
        os.close(process)


def _states(pid: int) -> list[str]:
    found = []
    for tid in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{tid}/stat", "rb") as file:
            found.append(file.read(4096).rpartition(b")")[2].split()[0].decode())
    return found


def _check_idle(minor: int) -> None:
    """Raises Busy when questions wait for an answer; where fusectl is not mounted, as in containers, nobody can say."""
    try:
        with open(f"{FUSE_CONNECTIONS}/{minor}/waiting", encoding="ascii") as file:
            waiting = int(file.read())
    except (OSError, ValueError):
        return
    if waiting:
        raise Busy("the mount is being read")


def check_not_open(place: Place, directory: str) -> None:
    """Raises Busy, naming who has a file of `directory` open: rclone in its cache, or a program through the mount."""
    below = str(place.data / directory)
    if any(_is_below(target, below) for target in _targets(place.pid)):
        raise Busy("rclone has files of it open", holder=f"rclone ({place.pid})")
    own, seen = _namespace("self"), f"{place.path}/{directory}"
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        for target in _targets(int(name)):
            # In another container the same directory has another path in front.
            inside = _is_below(target, seen) or (
                f"/{directory}/" in f"{target}/"
                and not target.startswith(f"{place.cache}/")
                and _namespace(name) != own
            )
            if inside:
                raise Busy(f"process {name} has {target} open", holder=f"process {name}")


def _is_below(target: str, directory: str) -> bool:
    return target == directory or target.startswith(f"{directory}/")


def _targets(pid: int) -> Iterator[str]:
    """Names of what a process has open, and where it is; the kernel tells them without asking any file system."""
    try:
        opened = [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return
    for link in (*opened, f"/proc/{pid}/cwd"):
        with contextlib.suppress(OSError):
            yield os.readlink(link)


def _namespace(process: str) -> str:
    try:
        return os.readlink(f"/proc/{process}/ns/mnt")
    except OSError:
        return ""
