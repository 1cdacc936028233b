"""Notices a change of the configuration file or of a secret: the files themselves decide, inotify says when to check.

So a change is seen however it was made: written in place, renamed over it, or by a link above it that now points
elsewhere, as Kubernetes changes a ConfigMap (`mountd.yaml → ..data/mountd.yaml`, `..data → ..2026_01_01`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import structlog
from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from mountd.errors import cause_of
from mountd.process.slow_disk import SlowDisk

log = structlog.get_logger()

UNSEEN: tuple[object, ...] = ()
MAX_LINKS = 40
"""The kernel's limit."""
QUIET_S = 0.3
"""Several files are replaced, or one is written in pieces: done when nothing has changed for this long."""
RESTLESS_S = 3.0
"""A file that keeps changing is read after this time."""
LOOK_S = 5.0
"""Limit of one check: a file may lie on a disk that does not answer."""
POLL_S = 5.0
"""For what inotify cannot see: a network file system, a directory that was moved away, permissions, no free watches."""
# Without modifications: a log beside the file would wake us with each line.
EVENTS: list[type[FileSystemEvent]] = [
    FileClosedEvent, FileCreatedEvent, FileDeletedEvent, FileMovedEvent,
    DirCreatedEvent, DirDeletedEvent, DirMovedEvent,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Directory:
    """With its identity: a new one with the same name needs a new watch."""

    path: str
    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Trail:
    """The path to a file, each link followed by hand.

    `seen` says what is there and changes when it does; `directories` are those to watch, without links in their path;
    `mount` is the mount of ours that the path leads onto, where it stops: nothing below it is touched.
    """

    seen: tuple[object, ...]
    directories: frozenset[Directory]
    mount: str = ""


def trail(path: PurePath, mounts: Collection[str]) -> Trail:
    """The trail of an absolute `path`; `mounts` are our mount points, none of which is touched."""
    waiting = list(reversed(path.parts[1:]))
    at, links = "/", 0
    seen: list[object] = []
    directories: list[str] = []
    mount = ""
    while waiting:
        part = waiting.pop()
        if part == "..":
            at = os.path.dirname(at)
            continue
        here = os.path.join(at, part)
        if here in mounts:
            mount = here
            break
        try:
            found = os.lstat(here)
            target = os.readlink(here) if stat.S_ISLNK(found.st_mode) else None
        except OSError as error:
            seen.append((here, error.errno))
            directories.append(at)  # what appears there is a change
            break
        if target is not None:
            seen.append((here, target))
            directories.append(at)
            links += 1
            if links > MAX_LINKS:
                break
            if target.startswith("/"):
                at = "/"
            waiting += [each for each in reversed(target.split("/")) if each not in ("", ".")]
        elif waiting:
            at = here
        else:
            directories.append(at)
            # ctime too: a file of the same size may be written within one tick of the clock that mtime goes by.
            seen.append((here, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
    return Trail((*seen, mount), frozenset(_identified(directories)), mount)


def _identified(directories: Iterable[str]) -> Iterator[Directory]:
    for path in directories:
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            yield Directory(path, found.st_dev, found.st_ino)


class FileWatch:
    """Watches what `follow` was given; `own_mounts` are our present mount points."""

    def __init__(self, own_mounts: Callable[[], Collection[str]]) -> None:
        self._own_mounts = own_mounts
        self._seen: dict[Path, tuple[object, ...]] = {}
        self._event = asyncio.Event()
        self._turn = asyncio.Lock()
        self._observer: BaseObserver | None = None
        self._watches: dict[Directory, ObservedWatch] = {}
        self._complained = False
        self._disk = SlowDisk()

    async def follow(self, paths: Iterable[Path]) -> None:
        """Watches these from now on; those that were watched before keep their last state. Raises TimeoutError."""
        async with self._turn:
            self._seen = {path: self._seen.get(path, UNSEEN) for path in paths}
            now = await self._look(self._seen)
            self._seen = {path: now[path] if seen == UNSEEN else seen for path, seen in self._seen.items()}

    def doubt(self) -> None:
        """What was seen may differ from what was read: the next check finds a change."""
        self._seen = dict.fromkeys(self._seen, UNSEEN)

    async def changed(self) -> None:
        """Returns once something has changed, and has stopped changing."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._event.wait()
            self._event.clear()
            with contextlib.suppress(TimeoutError):
                if await self._is_changed():
                    return

    async def _is_changed(self) -> bool:
        async with self._turn:
            restless = time.monotonic() + RESTLESS_S
            now = await self._look(self._seen)
            if now == self._seen:
                return False
            before: dict[Path, tuple[object, ...]] = {}
            while before != now and time.monotonic() < restless:
                await asyncio.sleep(QUIET_S)
                before, now = now, await self._look(now)
            self._seen = now
            return True

    async def _look(self, paths: Iterable[Path]) -> dict[Path, tuple[object, ...]]:
        # In a thread: the files may lie on a network.
        mounts, loop = self._own_mounts(), asyncio.get_running_loop()
        wanted = tuple(paths)
        return await self._disk.run(lambda: self._look_now(wanted, mounts, loop), LOOK_S)

    # -- inotify, in a thread -------------------------------------------------------------------------------------

    def _look_now(
        self, paths: tuple[Path, ...], mounts: Collection[str], loop: asyncio.AbstractEventLoop
    ) -> dict[Path, tuple[object, ...]]:
        trails = {path: trail(path, mounts) for path in paths}
        wanted = {directory for each in trails.values() for directory in each.directories}
        if wanted == self._watches.keys():
            return {path: each.seen for path, each in trails.items()}
        self._watch(wanted, loop)
        # Again: what changed before its directory was watched.
        return {path: trail(path, mounts).seen for path in paths}

    def _watch(self, wanted: set[Directory], loop: asyncio.AbstractEventLoop) -> None:
        """Watches exactly these directories, as far as the kernel has watches left."""
        if self._observer is None:
            try:
                observer = Observer(timeout=POLL_S)
                observer.daemon = True
                observer.start()
            except OSError as error:
                self._complain(error)
                return
            self._observer = observer
        handler = _ChangeHandler(loop, self._event)
        for directory in self._watches.keys() - wanted:
            watch = self._watches.pop(directory)
            with contextlib.suppress(OSError, KeyError):
                self._observer.unschedule(watch)
        for directory in wanted - self._watches.keys():
            try:
                self._watches[directory] = self._observer.schedule(handler, directory.path, event_filter=EVENTS)
            except FileNotFoundError:
                continue  # gone meanwhile: the next check sees it
            except OSError as error:
                self._complain(error)

    def _complain(self, error: OSError) -> None:
        """Once; polling continues."""
        if not self._complained:
            self._complained = True
            cause = cause_of(error)
            log.warning("cannot watch the configuration: checking it every few seconds", cause=cause, every_s=POLL_S)

    def close(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer = None
            self._watches.clear()


class _ChangeHandler(FileSystemEventHandler):
    """Called in a thread of watchdog's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
        self._loop = loop
        self._event = event

    def on_any_event(self, event: FileSystemEvent) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._event.set)
