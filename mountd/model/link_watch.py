"""Wakes the guard of a link when its name changes: inotify on its directory and on the one above.

That is only a hint: the guard looks itself, and every few seconds anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import structlog
from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from mountd.errors import cause_of

log = structlog.get_logger()

POLL_S = 10.0
"""How often watchdog's own threads wake up without an event."""
# Names that come and go, not what is written into files.
EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent, FileDeletedEvent, FileMovedEvent, DirCreatedEvent, DirDeletedEvent, DirMovedEvent,
]  # fmt: skip
Identity = tuple[str, int, int]
"""path, device and inode: another directory of the same name needs another watch"""


def places(link: Path) -> dict[Identity, frozenset[str]]:
    """The directories to watch, with the names that matter: the link's, and that of its directory in the one above.

    Of directories that are not there, the nearest one above that is. All are on local disk, above the link.
    """
    found: dict[Identity, frozenset[str]] = {}
    name, directory = link.name, link.parent
    while len(found) < 2:
        # watchdog makes inotify not follow links, and the directory may be one.
        real = os.path.realpath(directory)
        with contextlib.suppress(OSError):
            stat = os.stat(real)
            identity = (real, stat.st_dev, stat.st_ino)
            found[identity] = found.get(identity, frozenset()) | {name}
        if directory == directory.parent:
            break
        name, directory = directory.name, directory.parent
    return found


class LinkWatch:
    """`changed` is called in the event loop."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._observer: BaseObserver | None = None
        self._watches: dict[tuple[Identity, frozenset[str]], ObservedWatch] = {}
        self._lost: set[str] = set()
        """directories that were removed: another one may have come with the same number"""
        self._warned = False
        self._turn = threading.Lock()
        self._closed = False

    async def follow(self, link: Path) -> None:
        """From now on what there is of the way to `link` is watched; what changed before is for the caller to see."""
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._follow_alone, link, loop)

    def _follow_alone(self, link: Path, loop: asyncio.AbstractEventLoop) -> None:
        with self._turn:
            self._follow(link, loop)
            if self._closed:  # meanwhile: the caller was cancelled
                self._stop()

    def _follow(self, link: Path, loop: asyncio.AbstractEventLoop) -> None:
        while self._lost:  # one by one: a thread of watchdog's may add to it
            lost = self._lost.pop()
            for gone in [each for each in self._watches if each[0][0] == lost]:
                self._unwatch(gone)
        wanted = set(places(link).items())
        if wanted == self._watches.keys():
            return
        if self._observer is None:
            try:
                observer = Observer(timeout=POLL_S)
                observer.daemon = True
                observer.start()
            except OSError as error:
                self._warn(error)
                return
            self._observer = observer
        for gone in self._watches.keys() - wanted:
            self._unwatch(gone)
        for identity, names in wanted - self._watches.keys():
            handler = _LinkHandler(self, loop, identity[0], names)
            try:
                watch = self._observer.schedule(handler, identity[0], event_filter=EVENTS)
            except FileNotFoundError:
                continue  # gone meanwhile: the next look sees it
            except OSError as error:
                self._warn(error)
                continue
            self._watches[identity, names] = watch

    def _unwatch(self, gone: tuple[Identity, frozenset[str]]) -> None:
        watch = self._watches.pop(gone)
        if self._observer is not None:
            with contextlib.suppress(OSError, KeyError):
                self._observer.unschedule(watch)

    def notify(self, loop: asyncio.AbstractEventLoop, removed: str = "") -> None:
        """From a thread of watchdog's; `removed` is a watched directory that is no more."""
        if removed:
            self._lost.add(removed)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._changed)

    def _warn(self, error: OSError) -> None:
        """Once: the guard goes on without it, only slower."""
        if not self._warned:
            self._warned = True
            cause = cause_of(error)
            log.warning("cannot watch the link: looking each few seconds", cause=cause, every_s=POLL_S)

    def close(self) -> None:
        """At once, also while a thread of `follow` is still at it: then that one cleans up."""
        self._closed = True
        if self._turn.acquire(blocking=False):
            try:
                self._stop()
            finally:
                self._turn.release()

    def _stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer = None
            self._watches.clear()


class _LinkHandler(FileSystemEventHandler):
    """Called in a thread of watchdog's."""

    def __init__(
        self, watch: LinkWatch, loop: asyncio.AbstractEventLoop, directory: str, names: frozenset[str]
    ) -> None:
        self._watch = watch
        self._loop = loop
        self._directory = directory
        self._paths = {os.path.join(directory, name) for name in names}

    def on_any_event(self, event: FileSystemEvent) -> None:
        source = os.fsdecode(event.src_path)
        if source == self._directory:
            self._watch.notify(self._loop, removed=source)
        elif {source, os.fsdecode(event.dest_path)} & self._paths:
            self._watch.notify(self._loop)
