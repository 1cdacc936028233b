"""The targets of notifications, each with its task; nothing of that is imported before one is configured."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import structlog

from mountd.daemon.secret_files import SecretFiles
from mountd.daemon.tasks import Tasks
from mountd.errors import MountdError, NotFound
from mountd.journal.journal import Journal
from mountd.process.instance import Instance
from mountd.settings.notify import NotifySettings
from mountd.status.board import Board
from mountd.status.explain import explain

if TYPE_CHECKING:
    from mountd.notify.target import NotifyTarget, TargetDeps

log = structlog.get_logger()

END_S = 5.0
"""How long a target that is removed may take to stop."""


class Notifying:
    """`own_mounts`: our present mount points; no secret is read from them."""

    def __init__(
        self,
        *,
        journal: Journal,
        board: Board,
        tasks: Tasks,
        instance: Instance,
        own_mounts: Callable[[], Collection[str]],
    ) -> None:
        self._journal = journal
        self._board = board
        self._tasks = tasks
        self._instance = instance
        self._secrets = SecretFiles(own_mounts)
        self._targets: dict[str, NotifyTarget] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._has_begun = False

    async def begin(self, configured: Mapping[str, NotifySettings]) -> None:
        """At the start of mountd. A reload may have been faster: its settings are newer."""
        async with self._turn:
            if not self._has_begun:
                await self._apply(configured)

    async def apply(self, wanted: Mapping[str, NotifySettings]) -> None:
        """Notifies these targets from now on: stops all others; new ones begin with the next event."""
        async with self._turn:
            await self._apply(wanted)

    async def _apply(self, wanted: Mapping[str, NotifySettings]) -> None:
        at_start, self._has_begun = not self._has_begun, True
        for name in [name for name in self._targets if name not in wanted]:
            await self._remove(name)
        try:
            await self._journal.forget_notify_cursors(wanted)
        except MountdError as error:
            log.warning("cannot forget targets of notifications", cause=error.text, hint=error.hint)
        for name, settings in wanted.items():
            known = self._targets.get(name)
            if known is None:
                self._add(name, settings, at_start=at_start)
            else:
                known.reconfigure(settings)

    def cancel(self) -> None:
        """At the stop: what is not delivered is delivered by the next run."""
        for task in self._running.values():
            task.cancel()

    async def test(self, name: str, operator: str) -> None:
        """Sends a message to that target at once. Raises NotFound, MountdError."""
        target = self._targets.get(name)
        if target is None:
            there = ", ".join(self._targets) or "none is configured"
            raise NotFound(f"cannot notify {name!r}: no such target", hint=f"targets under `notify:`: {there}")
        await target.test(f"{operator} sends a test: notifications of mountd reach you")

    def _add(self, name: str, settings: NotifySettings, *, at_start: bool) -> None:
        from mountd.notify.target import NotifyTarget

        target = self._targets[name] = NotifyTarget(name, settings, self._deps(), at_start=at_start)
        self._running[name] = self._tasks.keep(target.run, f"notify {name}")

    async def _remove(self, name: str) -> None:
        task = self._running.pop(name)
        del self._targets[name]
        task.cancel()
        await asyncio.wait([task], timeout=END_S)
        self._board.set_notify(name, None)

    def _deps(self) -> TargetDeps:
        from mountd.notify.cloudevent import source_of
        from mountd.notify.delivery import Advice, SenderDeps
        from mountd.notify.language import in_language
        from mountd.notify.target import TargetDeps

        async def advise(language: str | None) -> Advice | None:
            translate = await in_language(language)
            root = explain(self._board.snapshot, translate=translate).root
            return Advice(root.text, root.hint, root.command) if root is not None else None

        host = socket.gethostname()
        return TargetDeps(
            self._journal,
            SenderDeps(host, self._secrets.read, self._instance.marks),
            source_of(host, self._instance.id),
            self._board.set_notify,
            advise,
        )
