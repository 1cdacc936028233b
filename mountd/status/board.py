"""The latest snapshot, in one place: each package writes its part, and each change wakes those that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from mountd.status.meters import Meters
from mountd.status.notify import NotifyStatus
from mountd.status.results import OutboxStatus
from mountd.status.snapshot import (
    AppStatus,
    ConfigStatus,
    ModelStatus,
    MountStatus,
    Operation,
    Reason,
    ScheduledSwitch,
    Snapshot,
)

Section = Literal["mounts", "models", "apps", "outbox"]
"""Of the settings, and of the snapshot."""
PublishMount = Callable[[Callable[[MountStatus], MountStatus]], None]
"""Puts a mount's status on the board as its argument changes it."""


class Board:
    """Written and read by tasks of one event loop only. `meters`: what has happened since mountd started."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.snapshot = snapshot or Snapshot()
        self.meters = Meters()
        self._next: asyncio.Future[None] | None = None

    def set_mount(self, name: str, status: MountStatus) -> None:
        self.meters.saw_mount(name, status)
        self._put(replace(self.snapshot, mounts={**self.snapshot.mounts, name: status}))

    def set_model(self, name: str, status: ModelStatus) -> None:
        self.meters.saw_model(name, status)
        self._put(replace(self.snapshot, models={**self.snapshot.models, name: status}))

    def set_app(self, name: str, status: AppStatus) -> None:
        self.meters.saw_app(name, status)
        self._put(replace(self.snapshot, apps={**self.snapshot.apps, name: status}))

    def set_outbox(self, name: str, status: OutboxStatus) -> None:
        self._put(replace(self.snapshot, outbox={**self.snapshot.outbox, name: status}))

    def set_operations(self, *operations: Operation) -> None:
        """All that run, in the order of their start."""
        first = operations[0] if operations else None
        self._put(replace(self.snapshot, operation=first, operations=operations))

    def set_scheduled(self, *scheduled: ScheduledSwitch) -> None:
        self._put(replace(self.snapshot, scheduled=scheduled))

    def set_config(self, config: ConfigStatus) -> None:
        self._put(replace(self.snapshot, config=config))

    def set_journal(self, reason: Reason | None) -> None:
        self._put(replace(self.snapshot, journal=reason))

    def set_lack(self, part: str, reason: Reason | None) -> None:
        others = {key: value for key, value in self.snapshot.lacks.items() if key != part}
        self._put(replace(self.snapshot, lacks={**others, part: reason} if reason else others))

    def set_notify(self, target: str, status: NotifyStatus | None) -> None:
        """None: the target is removed."""
        others = {key: value for key, value in self.snapshot.notify.items() if key != target}
        self._put(replace(self.snapshot, notify={**others, target: status} if status else others))

    def remove(self, section: Section, name: str) -> None:
        """Of another section something may have the same name already, which stays, with what it lacks."""
        now = self.snapshot
        shown: dict[Section, Mapping[str, object]] = {
            "mounts": now.mounts,
            "models": now.models,
            "apps": now.apps,
            "outbox": now.outbox,
        }
        left = {key: value for key, value in shown[section].items() if key != name}
        lacks = now.lacks
        if not any(name in others for each, others in shown.items() if each != section):
            lacks = {part: reason for part, reason in lacks.items() if reason.object != name}
        self._put(replace(now, **{section: left}, lacks=lacks))  # type: ignore[arg-type]

    def set_stopping(self) -> None:
        self._put(replace(self.snapshot, stopping=True))

    def _put(self, snapshot: Snapshot) -> None:
        if snapshot == self.snapshot:
            return
        self.snapshot = snapshot
        if self._next is not None:
            self._next.set_result(None)
            self._next = None

    def change(self) -> asyncio.Future[None]:
        """Done at the next change; take it before looking at the snapshot, so that none comes in between."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return self._next

    async def changed(self, limit_s: float | None = None) -> Snapshot:
        """The snapshot after the next change, or that of `limit_s` seconds later."""
        await asyncio.wait([self.change()], timeout=limit_s)  # which never cancels what others wait for too
        return self.snapshot

    async def wait_until(self, condition: Callable[[Snapshot], bool], timeout_s: float | None = None) -> Snapshot:
        """The first snapshot for which `condition` holds. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition(self.snapshot):
                await self.changed()
            return self.snapshot
