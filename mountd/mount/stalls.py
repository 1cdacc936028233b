"""Stalled reads, which no liveness probe sees: threads of our apps that wait for a mount and do not advance.

Reads only what the kernel answers without asking any file system: `stat`, `status`, `wchan`, `syscall` and `children`
in /proc, and the names (not the targets) of open files. Nothing that takes a stuck process's memory lock, as `cmdline`
and `maps` do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from enum import Enum, auto

from mountd.errors import DiskError, MountdError
from mountd.files.client import Files
from mountd.fuse.unmount import unanswered
from mountd.mount.bucket import NOOP_S, BucketProbe
from mountd.mount.engine import Engine
from mountd.mount.health import Report, Stall
from mountd.mount.traffic import TrafficCount
from mountd.process.pace import pause
from mountd.rclone.stats import CoreStats
from mountd.status.snapshot import Health

INTERVAL_S = 5.0
FAILING_INTERVAL_S = 2.0
"""While reads have begun to fail: a few more of them, and it is reported."""
LOOK_LIMIT_S = 10.0
OF_A_READ = "vfs reader: "
"""In what rclone counts as errors: those of uploads are reported by `Uploads`."""
MAX_PROCESSES = 256
MAX_THREADS = 4096
_SWITCHES = re.compile(r"^(?:non)?voluntary_ctxt_switches:\s+(\d+)$", re.MULTILINE)
_PAGE = ("folio_", "page_bit", "lock_page", "fuse_direct_IO")
"""Where the kernel waits for the content of a file, in the names of all kernels since 4.18."""
_FAULT = "-1"
"""Instead of a system call: it has run into a page of what it has mapped."""
_NO_FILE = os.O_DIRECTORY | os.O_PATH
_CALLS_SINCE = (5, 7)
"""Before it, who asks for a system call waits for an `execve` under way, and that may wait for the mount."""


class Wait(Enum):
    """What a thread waits for, as far as the kernel shows."""

    NOTHING = auto()
    """at least nothing of a FUSE file system"""
    CONTENT = auto()
    """of a file of a mount"""
    ANSWER = auto()
    """to open, lookup, readdir: that may be a listing, which takes its time"""
    PAGE = auto()
    """of a file, but of which is not known: another slow disk looks the same"""
    UNKNOWN = auto()
    """the kernel does not say, and a driver looks the same"""


@dataclass(frozen=True, slots=True)
class StalledReads:
    """`pid/tid/switches` of each thread that waits. The same key at two looks: it has not run in between."""

    content: frozenset[str] = frozenset()
    answer: frozenset[str] = frozenset()
    page: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.content or self.answer or self.page or self.unknown)

    def given(self, unanswered: int | None) -> StalledReads:
        """With the number of requests that rclone has not answered, as the kernel counts them. 0: no thread waits for
        rclone. More: what waits in D does. None: not known here, so that a page gets the patience of a listing.
        """
        if unanswered is None:
            return StalledReads(self.content, self.answer | self.page, unknown=self.unknown)
        if not unanswered:
            return StalledReads()
        return StalledReads(self.content | self.page | self.unknown, self.answer)


@dataclass(slots=True, eq=False)
class StallProbe:
    """Looks at the apps that use the mount at `path`, and lists its root itself: that can stall, too.

    `files`: a worker of its own. `pids`: of the apps. `minor`: of the FUSE device, when it is known. `traffic` counts
    what rclone says that it has moved.
    """

    path: str
    engine: Engine
    bucket: BucketProbe
    files: Files
    pids: Callable[[], Iterable[int]]
    minor: Callable[[], int | None]
    traffic: TrafficCount

    async def run(self, report: Report) -> None:
        """Until cancelled."""
        looking: asyncio.Task[None] | None = None
        looked = time.monotonic()
        before = report()
        await self._look(report)  # errors that are counted from here on happened while it runs
        report(stall=before.stall, listing=before.listing, possible_stall=before.possible_stall)
        try:
            while True:
                await pause(FAILING_INTERVAL_S if report().failed_reads.have_begun else INTERVAL_S)
                interval_s = self.engine.mount.health.backend
                if looking is None or (looking.done() and time.monotonic() - looked >= interval_s):
                    looked, looking = time.monotonic(), asyncio.create_task(self._list_root())
                await self._look(report)
        finally:
            if looking is not None:
                looking.cancel()

    async def _list_root(self) -> None:
        """A directory that rclone knows already: no request to the bucket, no file opened."""
        if not self.files.stuck:
            with contextlib.suppress(DiskError):
                await self.files.list(self.path, limit=1, timeout_s=LOOK_LIMIT_S)

    async def _look(self, report: Report) -> None:
        """One more look."""
        found = await asyncio.to_thread(stalled_reads, list(self.pids()), self.path)
        if found:
            found = found.given(await unanswered(self.minor(), NOOP_S))
        listing = set(found.answer)
        if self.files.stuck:
            listing.add(f"look/{self.files.pid}")
        if found or listing:
            self.bucket.hurry()
        quick = self.bucket.status.health is Health.HEALTHY
        stats: CoreStats | None = None
        with contextlib.suppress(MountdError):
            stats = await self.engine.rc.core_stats(timeout_s=self.engine.mount.health.timeout)
        if stats is not None:
            await self.traffic.count(stats)
        if not quick:
            stats = None  # what it says of reads is of no use: they may wait for the bucket
        now = time.monotonic()
        moved_bytes, errors, cause = (stats.moved_bytes, stats.errors, stats.last_error) if stats else (-1, -1, "")
        facts = report()

        def look(stall: Stall, reads: Set[str]) -> Stall:
            return stall.look(now, reads, moved_bytes=moved_bytes, errors=errors, bucket_quick=quick)

        report(
            stall=look(facts.stall, found.content),
            listing=look(facts.listing, listing),
            possible_stall=look(facts.possible_stall, found.unknown),
            failed_reads=facts.failed_reads.look(
                now,
                moved_bytes=moved_bytes,
                errors=errors,
                cause=cause if OF_A_READ in cause else "",
                bucket_quick=quick and stats is not None,
            ),
        )


def stalled_reads(roots: Iterable[int], path: str) -> StalledReads:
    """Those of the processes `roots` and their descendants that have a file below `path` open."""
    found: dict[Wait, set[str]] = {wait: set() for wait in Wait}
    for pid in _tree(roots):
        stuck = [each for tid in _threads(pid) if (each := _look(pid, tid, path))]
        if stuck and _uses(pid, path):
            for wait, key in stuck:
                found[wait].add(key)
    kinds = (Wait.CONTENT, Wait.ANSWER, Wait.PAGE, Wait.UNKNOWN)
    return StalledReads(*(frozenset(found[wait]) for wait in kinds))


def wait_of(state: str, where: str, *, fault: bool, on_file: bool) -> Wait:
    """`state` and `where` as /proc shows them. `on_file`: its system call is about an open file of our mount.

    FUSE waits for a page in D, for an answer in S; for one that a signal has called off in D (Linux 6.18).
    """
    if "request_wait_answer" in where:
        return Wait.CONTENT if fault or on_file else Wait.ANSWER
    if state != "D":
        return Wait.NOTHING
    if any(word in where for word in _PAGE):
        return Wait.CONTENT if on_file else Wait.PAGE
    if where.startswith("fuse_"):
        return Wait.ANSWER  # behind one that waits for it
    return Wait.UNKNOWN if where in ("", "0") else Wait.NOTHING


def _tree(roots: Iterable[int]) -> Iterator[int]:
    queue, seen = [*roots], set[int]()
    while queue and len(seen) < MAX_PROCESSES:
        pid = queue.pop()
        if pid in seen:
            continue
        seen.add(pid)
        yield pid
        for tid in _threads(pid):
            with contextlib.suppress(OSError):
                queue += map(int, _read(f"/proc/{pid}/task/{tid}/children").split())


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")][:MAX_THREADS]
    except OSError:
        return []  # gone meanwhile


def _look(pid: int, tid: int, path: str) -> tuple[Wait, str] | None:
    base = f"/proc/{pid}/task/{tid}"
    try:
        state = _read(f"{base}/stat").rpartition(")")[2].split()[0]
        if state not in "DS":
            return None
        where = _read(f"{base}/wchan").strip()
        if state == "S" and "request_wait_answer" not in where:
            return None  # nearly all: what follows costs more
        call = _call(base)
        on_file = len(call) > 1 and _is_file_below(pid, call[1], path)
        wait = wait_of(state, where, fault=call[:1] == [_FAULT], on_file=on_file)
        if wait is Wait.NOTHING:
            return None
        switches = sum(map(int, _SWITCHES.findall(_read(f"{base}/status"))))
    except (OSError, IndexError):
        return None
    return wait, f"{pid}/{tid}/{switches}"


def _call(base: str) -> list[str]:
    """The number of its system call and the arguments; empty where that may not be known."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if release is None or (int(release[1]), int(release[2])) < _CALLS_SINCE:
        return []
    try:
        return _read(f"{base}/syscall").split()
    except OSError:
        return []


def _is_file_below(pid: int, argument: str, path: str) -> bool:
    """Whether the argument of a system call is an open file below `path`. Whatever is no such number is none."""
    try:
        number = int(argument, 16)
        if not os.readlink(f"/proc/{pid}/fd/{number}").startswith(f"{path}/"):
            return False
        flags = re.search(r"^flags:\s*([0-7]+)$", _read(f"/proc/{pid}/fdinfo/{number}"), re.MULTILINE)
    except (OSError, ValueError):
        return False
    return flags is not None and not int(flags[1], 8) & _NO_FILE


def _uses(pid: int, path: str) -> bool:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for name in names:
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/{name}").startswith(f"{path}/"):
                return True
    return False


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read(65536)
