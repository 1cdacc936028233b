"""What is shown of data that are coming to this machine: how far they are, and what of that is worth an event."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from mountd.errors import MountdError
from mountd.status.load import LoadHistory, LoadStatus
from mountd.status.snapshot import size
from mountd.warm.results import WarmProgress

STUCK_S = 10.0
"""So long nothing must come before that is an event: a store that refuses some requests stops a load for moments."""


MOST_CAUSES = 3


class Loads:
    """Of one model, whose operations report what they load themselves; of all else there are events.

    A load begins once, however often it is tried. Each cause for which it waits is reported once, up to MOST_CAUSES: a
    cause names a file.
    """

    def __init__(self, show: Callable[[LoadStatus | None, LoadHistory], None]) -> None:
        self._show = show
        self._history = LoadHistory()
        self._now: dict[bool, LoadStatus] = {}
        """by whether an operation loads it"""
        self._begun = ""
        """what was reported to have begun, and is not done"""
        self._causes: set[str] = set()
        """those that were reported of that"""

    @contextlib.contextmanager
    def follow(self, version: str, level: str, *, by_operation: bool) -> Iterator[Callable[[WarmProgress], None]]:
        """Around a load; what it gives is called with how far that is. After a failure that is shown with its cause,
        until the next try or `forget`, unless an operation has failed."""
        what, load = f"{version} ({level})", LoadStatus(version, level)
        left: LoadStatus | None = None
        began = moved = time.monotonic()

        def hear(found: WarmProgress) -> None:
            nonlocal load, moved
            eta_s = None if found.eta_s is None else round(found.eta_s, 1)
            speed = round(found.bytes_per_s)
            load = LoadStatus(version, level, found.bytes_done, found.bytes_total, speed, eta_s, found.waits_for)
            now = time.monotonic()
            if not found.waits_for:
                moved = now
            if not by_operation:
                self._begin(what)
                if now - moved >= STUCK_S:
                    self._wait(what, found.waits_for)
            self._put(load, by_operation=by_operation)

        try:
            yield hear
            if not by_operation:
                self._end(f"{what}: {size(load.bytes_total)} in {time.monotonic() - began:.0f} s")
        except MountdError as error:
            if not by_operation:
                self._wait(what, error.text)
                left = replace(load, bytes_per_s=0.0, eta_s=None, waits_for=error.text)
            raise
        except asyncio.CancelledError:
            if not by_operation:
                self._begun = ""  # it is not wanted any more, or begins again on another mount
            raise
        finally:
            self._put(left, by_operation=by_operation)

    def forget(self) -> None:
        """What has failed is not tried again, or shown in another way."""
        self._put(None, by_operation=False)

    def _begin(self, what: str) -> None:
        if what != self._begun:
            self._begun, self._causes = what, set()
            self._history = replace(self._history, begun=self._history.begun + 1, what=what)

    def _wait(self, what: str, cause: str) -> None:
        if cause and cause not in self._causes and len(self._causes) < MOST_CAUSES:
            self._causes.add(cause)
            self._history = replace(self._history, waits=self._history.waits + 1, cause=f"{what} waits: {cause}")

    def _end(self, result: str) -> None:
        if not self._begun:  # nothing of it was lacking
            return
        self._begun = ""
        self._history = replace(self._history, done=self._history.done + 1, result=result)

    def _put(self, load: LoadStatus | None, *, by_operation: bool) -> None:
        """Shows what nobody else shows first: an operation shows its progress as well."""
        if load is None:
            self._now.pop(by_operation, None)
        else:
            self._now[by_operation] = load
        self._show(self._now.get(False) or self._now.get(True), self._history)
