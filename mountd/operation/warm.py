"""Loads a version, mostly ahead of a switch to it: its names and sizes, or all of its data. What is live stays live."""

from __future__ import annotations

import asyncio
from enum import StrEnum

from mountd.errors import MountdError, NotFound, UsageError
from mountd.journal.journal import Journal, OperationRecord
from mountd.model.model import Model
from mountd.operation.results import logged
from mountd.operation.runner import OperationOutcome
from mountd.operation.show import Display
from mountd.process import resources
from mountd.settings.schema import LEVELS, Level
from mountd.text import did_you_mean
from mountd.warm.results import WarmProgress

LIMIT_S = 24 * 3600.0
"""All the data of a version, however slow the bucket is."""


class WarmStep(StrEnum):
    """Named like the steps of a switch that do the same."""

    PREFLIGHT = "preflight"
    WARM = "warm"


def level_of(name: str | None) -> Level | None:
    """Raises UsageError."""
    found: Level | None = next((each for each in LEVELS if each == name), None)
    if name is not None and found is None:
        raise UsageError(
            f"cannot warm to the level {name!r}: no such level",
            hint=f"{did_you_mean(name, LEVELS)}levels: {', '.join(LEVELS)}",
        )
    return found


class WarmRun:
    """One such operation: `run` it once."""

    def __init__(self, record: OperationRecord, model: Model, level: Level, journal: Journal, display: Display) -> None:
        self._record = record
        self._model = model
        self.level = level
        self._journal = journal
        self._display = display
        self._step = WarmStep.PREFLIGHT
        self._work: asyncio.Task[None] | None = None
        self._cancelled_by = ""

    def cancel(self, operator: str) -> None:
        """What has been loaded stays."""
        self._cancelled_by = self._cancelled_by or operator
        if self._work is not None:
            self._work.cancel()

    async def run(self) -> OperationOutcome:
        """Returns its outcome, also when it is cancelled."""
        what = f"cannot {self._record.action}"
        self._work = asyncio.create_task(self._load())
        if self._cancelled_by:  # before its first step
            self._work.cancel()
        try:
            await self._work
        except asyncio.CancelledError:
            if not self._cancelled_by:
                self._work.cancel()
                return await self._end("interrupted", MountdError(f"{what}: mountd was stopped"))
            return await self._end("cancelled", MountdError(f"{what}: cancelled by {self._cancelled_by}"))
        except MountdError as error:
            return await self._end("refused" if error.exit_code in (2, 3, 7) else "failed", error)
        await self._end_step("done")
        return OperationOutcome("done")

    async def _load(self) -> None:
        versions = self._model.versions
        await self._begin_step(WarmStep.PREFLIGHT)
        with resources.as_exhausted():
            versions.check_mount(self._record.to_version)
            try:
                content = await versions.inspect(self._record.to_version)
            except NotFound as error:
                raise await versions.named_near(error, self._record.to_version) from None
        await self._end_step("done")
        await self._begin_step(WarmStep.WARM)
        with resources.as_exhausted():
            await self._model.levels.reach(content, self.level, self._progress)
            await self._model.loaded(content)

    def _progress(self, found: WarmProgress) -> None:
        self._display.progress(self._record.id, found.bytes_done, found.bytes_total, round(found.bytes_per_s))

    async def _begin_step(self, step: WarmStep) -> None:
        self._step = step
        await self._journal.begin_step(self._record.id, step)
        self._display.step(self._record, step)

    async def _end_step(self, outcome: str, cause: str = "") -> None:
        with logged("journal the result of a step"):
            await self._journal.end_step(self._record.id, self._step, outcome, cause=cause)

    async def _end(self, result: str, error: MountdError) -> OperationOutcome:
        await self._end_step("failed" if result == "refused" else result, error.text)
        return OperationOutcome(result, error)
