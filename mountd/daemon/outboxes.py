"""The outboxes of the settings, each with its task: made, changed and removed by name.

Without one nothing of their package is imported.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from mountd.codes import CODES
from mountd.daemon.tasks import Tasks
from mountd.errors import MountdError
from mountd.journal.journal import Journal
from mountd.process.instance import Instance
from mountd.rclone.binary import Binary
from mountd.rclone.conf_file import ConfFile
from mountd.settings.schema import Settings
from mountd.status.board import Board
from mountd.status.results import OutboxStatus
from mountd.status.snapshot import Health, Reason

if TYPE_CHECKING:
    from mountd.outbox.outbox import Outbox

log = structlog.get_logger()

RECOVERED = "outbox-recovered"
ALARMS = tuple(code for code, each in CODES.items() if RECOVERED in each.healed_by)


class Outboxes:
    def __init__(
        self, *, instance: Instance, board: Board, journal: Journal, binary: Binary, conf: ConfFile, tasks: Tasks
    ) -> None:
        self._instance, self._board, self._journal = instance, board, journal
        self._binary, self._conf, self._tasks = binary, conf, tasks
        self._running: dict[str, tuple[Outbox, asyncio.Task[None]]] = {}

    async def recall(self, settings: Settings) -> None:
        """At the start of mountd: what was wrong when the last run ended.

        Each outbox finds out whether it still is: that it is over is then news, also to who was notified of it.
        """
        for name, outbox in settings.outbox.items():
            try:
                last = await self._journal.last_of(*ALARMS, RECOVERED, object_=name)
            except MountdError as error:
                log.warning("cannot read what was wrong with an outbox", outbox=name, cause=error.text)
                continue
            if last is not None and last.code != RECOVERED:
                reason = Reason(last.code, last.text, "outbox", name)
                self._board.set_outbox(
                    name, OutboxStatus(str(outbox.directory), outbox.remote, Health.DEGRADED, reason=reason)
                )

    def tasks(self) -> list[asyncio.Task[None]]:
        return [task for _, task in self._running.values()]

    async def apply(self, settings: Settings) -> None:
        """Starts, replaces and stops what differs from these settings; the others read their secrets again.

        What is being uploaded by one that is stopped is continued by the next: results are on disk.
        """
        for name in [*self._running]:
            outbox, task = self._running[name]
            if settings.outbox.get(name) == outbox.settings and outbox.uploader.goes_to_the_same(settings):
                outbox.reconfigure(settings)
                continue
            task.cancel()
            await asyncio.wait([task])
            del self._running[name]
            if name not in settings.outbox:
                self._board.remove("outbox", name)
                log.info("outbox removed, its files stay", outbox=name, directory=str(outbox.settings.directory))
        self.begin(settings)

    def begin(self, settings: Settings) -> None:
        """Starts those of the settings that do not run."""
        for name in settings.outbox:
            if name not in self._running:
                self._begin(name, settings)

    def _begin(self, name: str, settings: Settings) -> None:
        from mountd.outbox.outbox import Outbox

        outbox = Outbox(
            name,
            settings,
            instance=self._instance,
            board=self._board,
            journal=self._journal,
            binary=self._binary,
            conf=self._conf,
        )
        self._running[name] = outbox, self._tasks.keep(outbox.run, f"outbox {name}")
