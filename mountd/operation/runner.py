"""Executes one switch, step by step, each journaled before it begins; undoes it when a step fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import structlog

from mountd.app.app import App
from mountd.errors import MountdError, RolledBack
from mountd.journal.journal import Journal, Record
from mountd.model.content import Content
from mountd.model.model import Model
from mountd.operation.plan import Step, Undo, changes, undo
from mountd.status.board import Board
from mountd.status.snapshot import Operation

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Job:
    """`declared`: the configuration asks for it, so that what is desired stays even when it fails."""

    record: Record
    model: Model
    apps: Sequence[App]
    steps: Sequence[Step]
    declared: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """`result` is committed, refused, rolled-back, failed or interrupted; `failure` is None only for the first."""

    result: str
    failure: MountdError | None = None


class Runner:
    def __init__(self, board: Board, journal: Journal) -> None:
        self._board = board
        self._journal = journal

    async def run(self, job: Job) -> Outcome:
        """To its end, whatever that is. Cancelled, it leaves the link at what is committed and says interrupted."""
        before, former_desired = job.model.live_content(), job.model.desired
        begun: list[Step] = []
        with job.model.held():
            try:
                return await self._carry_out(job, begun, before, former_desired)
            except asyncio.CancelledError:
                return await self._interrupt(job, begun, before, former_desired)

    async def _interrupt(
        self, job: Job, begun: Sequence[Step], before: Content | None, former_desired: str | None
    ) -> Outcome:
        """mountd stops, perhaps during an undo. What is committed decides at the next start: the link must agree."""
        if Step.COMMIT in begun:
            # Of a commit that was cancelled only the journal knows whether it took place.
            with _logged("see whether the commit took place"):
                if (await self._journal.committed(job.model.name)).current == job.record.to_version:
                    return Outcome("committed")
        if Step.FLIP in begun:
            with _logged("point the link back"):
                await job.model.flip(before)
        if former_desired is not None and not job.declared:
            with _logged("remember what was asked for"):
                await job.model.ask_for(former_desired)
        return Outcome("interrupted", MountdError("mountd was stopped"))

    async def _carry_out(
        self, job: Job, begun: list[Step], before: Content | None, former_desired: str | None
    ) -> Outcome:
        model, version = job.model, job.record.to_version
        try:
            await model.ask_for(version)
            content: Content | None = None
            for step in job.steps:
                begun.append(step)
                await self._journal.record_step(job.record.id, step)
                self.show(replace(job.record, step=step))
                content = await self._do(step, job, content)
        except MountdError as error:
            log.warning("operation failed", operation=job.record.id, step=begun[-1] if begun else "", cause=error.text)
            if former_desired is not None and not job.declared:
                with _logged("remember what was asked for"):
                    await model.ask_for(former_desired)
            return await self._undo(job, error, begun, before)
        return Outcome("committed")

    async def _do(self, step: Step, job: Job, content: Content | None) -> Content | None:
        match step:
            case Step.VERIFY:
                return await job.model.verify(job.record.to_version)
            case Step.STOP:
                await _stop(job.apps)
            case Step.FLIP:
                await job.model.flip(content)
            case Step.START:
                await _start(job.apps)
            case Step.COMMIT:
                await job.model.commit(job.record.to_version)
        return content

    async def _undo(self, job: Job, error: MountdError, begun: Sequence[Step], before: Content | None) -> Outcome:
        if not any(changes(step) for step in begun):
            return Outcome("refused" if error.exit_code in (2, 3, 7) else "failed", error)
        live = before.version if before else "nothing"
        try:
            for step in undo(begun):
                with _logged("journal a step of the undo"):  # never a reason not to undo
                    await self._journal.record_step(job.record.id, step)
                self.show(replace(job.record, step=step))
                match step:
                    case Undo.STOP_NEW:
                        await _stop(job.apps)
                    case Undo.FLIP_BACK:
                        await job.model.flip(before)
                    case Undo.START_OLD:
                        await _start(job.apps)
        except MountdError as worse:
            for app in job.apps:
                app.want()  # its supervisor goes on trying
            text = f"{error.text}; and then, going back to {live}: {worse.text}"
            return Outcome("failed", MountdError(text, hint=worse.hint or error.hint))
        text = f"cannot {job.record.kind} to {job.record.to_version}: {error.text}; {live} is live again"
        return Outcome("rolled-back", RolledBack(text, hint=error.hint))

    def show(self, record: Record) -> None:
        """On the board, and in the log."""
        log.info(
            "operation step", operation=record.id, kind=record.kind, step=str(record.step), version=record.to_version
        )
        self._board.set_operation(
            Operation(
                id=record.id,
                kind=record.kind,
                model=record.model,
                from_version=record.from_version,
                to_version=record.to_version,
                operator=record.operator,
                source=record.source,
                step=record.step,
                started=record.started,
            )
        )


async def _stop(apps: Sequence[App]) -> None:
    await asyncio.gather(*(app.stop() for app in apps))


async def _start(apps: Sequence[App]) -> None:
    """All of them, each to its end, so that none is left half started; then the first failure is raised."""
    results = await asyncio.gather(*(app.start_and_wait() for app in apps), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """For what must not end an undo: told, then passed over."""
    try:
        yield
    except MountdError as error:
        log.error(f"cannot {what}", cause=error.text, hint=error.hint)
