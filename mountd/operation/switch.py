"""Who may ask for a switch or rollback, what it becomes, and how it ended: one operation at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from mountd.app.app import App
from mountd.errors import Busy, MountdError, NotFound, UsageError
from mountd.journal.journal import Journal, Record
from mountd.model.model import Model
from mountd.operation.plan import Step, plan
from mountd.operation.runner import Job, Outcome, Runner
from mountd.settings.names import check_version
from mountd.status.board import Board

log = structlog.get_logger()

VERIFY_LIMIT_S = 600.0
"""Listing and loading a version's metadata, at the slowest that the mount's own deadlines allow."""


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what, and where the asking came from (`cli`, `api`, `config`)."""

    kind: str
    model: Model
    version: str
    operator: str
    source: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """An operation that was begun, or None because the version is live already."""

    record: Record | None
    limit_s: float


class Operations:
    def __init__(self, models: Mapping[str, Model], apps: Mapping[str, App], board: Board, journal: Journal) -> None:
        self._models = models
        self._apps = apps
        self._board = board
        self._journal = journal
        self._running: Record | None = None
        self._began = 0.0
        self._jobs: asyncio.Queue[Job] = asyncio.Queue(1)
        self._runner = Runner(board, journal)

    # -- asking ---------------------------------------------------------------------------------------------------

    def model(self, name: str | None) -> Model:
        """The model meant. Raises NotFound, or UsageError when several could be meant."""
        if name is None:
            if len(self._models) == 1:
                return next(iter(self._models.values()))
            if not self._models:
                raise NotFound("cannot find a model: none is configured", hint="add one under `models:`")
            raise UsageError(f"cannot choose a model: say which with --model: {', '.join(self._models)}")
        if name not in self._models:
            raise NotFound(f"cannot find the model {name}", hint=f"models: {', '.join(self._models) or 'none'}")
        return self._models[name]

    async def switch(self, name: str | None, version: str, *, operator: str, source: str, reason: str = "") -> Asked:
        """Raises BadVersionName, NotFound, UsageError, Busy."""
        check_version(version)
        return await self._begin(Request("switch", self.model(name), version, operator, source, reason))

    async def rollback(self, name: str | None, *, operator: str, source: str, reason: str = "") -> Asked:
        """Raises NotFound when nothing was live before, UsageError, Busy."""
        model = self.model(name)
        if model.previous is None:
            raise NotFound(
                f"cannot roll back {model.name}: no version was live before {model.current}",
                hint="`mountd versions` lists what can be switched to",
            )
        return await self._begin(Request("rollback", model, model.previous, operator, source, reason))

    async def _begin(self, request: Request) -> Asked:
        model = request.model
        apps = self._apps_of(model)
        if self._running is not None:
            raise self._busy(self._running)
        if self._is_live(model, request.version):
            if model.desired != request.version:
                await model.ask_for(request.version)
            return Asked(None, 0.0)
        steps = plan([app.name for app in apps])
        claim = Record(0, request.kind, model.name, None, request.version, request.operator, request.source, "", "", "")
        self._running, self._began = claim, time.monotonic()  # claimed before the first await: one at a time
        try:
            record = await self._journal.begin(
                kind=request.kind,
                model=model.name,
                from_version=model.current,
                to_version=request.version,
                operator=request.operator,
                source=request.source,
                reason=request.reason,
                step=steps[0],
            )
        except BaseException:
            self._running = None
            raise
        self._running = record
        self._runner.show(record)
        self._jobs.put_nowait(Job(record, model, apps, steps, declared=request.source == "config"))
        return Asked(record, self._limit_s(apps))

    def _is_live(self, model: Model, version: str) -> bool:
        status = self._board.snapshot.models[model.name]
        return status.linked and status.current == version

    def _busy(self, running: Record) -> Busy:
        age_s = time.monotonic() - self._began
        holder = f"{running.operator} ({running.kind} {running.model} to {running.to_version}, since {age_s:.0f} s)"
        hint = f"wait for it: mountd wait --for version={running.to_version}"
        return Busy(f"cannot begin: busy with {holder}", hint=hint, holder=holder)

    def _apps_of(self, model: Model) -> list[App]:
        return [
            app
            for app in self._apps.values()
            if model.name in app.settings.needs and "switch" in app.settings.restart.after
        ]

    def _limit_s(self, apps: Sequence[App]) -> float:
        """The sum of the operation's own limits, the undoing included."""
        ready_s = sum(app.settings.ready.timeout if app.settings.ready else 0.0 for app in apps)
        stop_s = sum(app.stop_limit_s for app in apps)
        return VERIFY_LIMIT_S + 2 * ready_s + 4 * stop_s

    # -- running --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled; a cancelled operation leaves the link at what is committed."""
        while True:
            job = await self._jobs.get()
            outcome = await self._runner.run(job)
            await self._finish(job.record, outcome)
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # it was told to end, and the runner has seen to it
                return

    async def _finish(self, record: Record, outcome: Outcome) -> None:
        duration_s = round(time.monotonic() - self._began, 3)
        failure = outcome.failure
        try:
            await self._journal.finish(
                record.id,
                result=outcome.result,
                cause=failure.text if failure else "",
                hint=failure.hint if failure else "",
                exit_code=failure.exit_code if failure else 0,
                duration_s=duration_s,
            )
        except MountdError as error:
            log.error("cannot journal the end of an operation", operation=record.id, cause=error.text, hint=error.hint)
        finally:
            self._running = None
            self._board.set_operation(None)
        log.info(
            "operation finished",
            operation=record.id,
            result=outcome.result,
            version=record.to_version,
            seconds=duration_s,
        )

    # -- looking --------------------------------------------------------------------------------------------------

    async def wait(self, id_: int, *, seen_step: str, timeout_s: float) -> Record:
        """The operation as soon as it is past `seen_step` or finished, at the latest after `timeout_s`.

        Raises NotFound.
        """

        def moved_on(_: object) -> bool:
            operation = self._board.snapshot.operation
            return operation is None or operation.id != id_ or operation.step != seen_step

        with contextlib.suppress(TimeoutError):
            await self._board.wait_until(moved_on, timeout_s)
        record = await self._journal.operation(id_)
        if record is None:
            raise NotFound(f"cannot find operation {id_}")
        return record

    async def close_interrupted(self) -> None:
        """At start: what a former life left unfinished is told as it is. What was committed last is live."""
        for record in await self._journal.unfinished():
            known = await self._journal.committed(record.model)
            if record.step == Step.COMMIT and known.current == record.to_version:
                await self._journal.finish(
                    record.id, result="committed", cause="", hint="", exit_code=0, duration_s=None
                )
                continue
            if record.source != "config" and known.desired == record.to_version and known.current is not None:
                await self._journal.commit(record.model, replace(known, desired=known.current))
            cause = f"mountd ended during {record.step}"
            await self._journal.finish(
                record.id, result="interrupted", cause=cause, hint="", exit_code=1, duration_s=None
            )
            log.warning("operation was interrupted", operation=record.id, step=record.step, version=record.to_version)
