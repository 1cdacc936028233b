"""Accepts switches and rollbacks, runs them, and keeps their results: one operation at a time on one model or app."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, replace

import structlog

from mountd.errors import Busy, Exhausted, MountdError, NotFound, Refused, UsageError
from mountd.journal.journal import Journal, OperationRecord, action
from mountd.model.committed import DISK_LIMIT_S
from mountd.model.model import Model
from mountd.operation import desired, gates, past, recover, warm
from mountd.operation.desired import Request
from mountd.operation.plan import PlannedGate, SwitchPlan
from mountd.operation.results import ResultStore
from mountd.operation.runner import OperationOutcome, SwitchRun
from mountd.operation.running import ExclusiveTask, Running, busy
from mountd.operation.show import Display
from mountd.operation.steps import RestartableApp, Steps, affected, preflight
from mountd.operation.warm import WarmRun, WarmStep
from mountd.operation.window import check_by_hand
from mountd.process import resources
from mountd.settings.names import check_version
from mountd.status import readiness
from mountd.status.board import Board
from mountd.status.snapshot import WARM, Snapshot
from mountd.text import did_you_mean

log = structlog.get_logger()

QUIET_LOOK_S = 1.0
QUEUED = 100
GIVE_WAY_S = 10.0
"""For a warm to end; longer than it needs to kill what reads for it."""


@dataclass(frozen=True, slots=True)
class PlannedOperation:
    """`record` is None for a dry run, and when the version is live already: then there are no steps."""

    record: OperationRecord | None
    plan: SwitchPlan


class Operations:
    def __init__(
        self, models: Mapping[str, Model], apps: Mapping[str, RestartableApp], board: Board, journal: Journal
    ) -> None:
        self._models = models
        self._apps = apps
        self._board = board
        self._journal = journal
        self._running: list[Running] = []
        self._quiet = False
        self.results = ResultStore(journal, board.meters.operations)
        self._ended: dict[int, asyncio.Future[OperationOutcome]] = {}
        self._jobs: asyncio.Queue[Running] = asyncio.Queue(QUEUED)
        self._display = Display(board)

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
            near = did_you_mean(name, self._models)
            raise NotFound(f"cannot find the model {name}", hint=f"{near}models: {', '.join(self._models) or 'none'}")
        return self._models[name]

    async def switch(self, name: str | None, version: str, request: Request) -> PlannedOperation:
        """Raises BadVersionName, NotFound, UsageError, Busy; for a dry run also Refused, Unavailable."""
        check_version(version)
        return await self._ask("switch", self.model(name), version, request)

    async def switch_and_wait(self, name: str, version: str, request: Request) -> OperationOutcome | None:
        """The outcome of the switch; None: the version was live already. Raises as `switch` does."""
        planned = await self.switch(name, version, request)
        return await self.outcome(planned.record) if planned.record else None

    async def rollback(self, name: str | None, request: Request, to: int | None = None) -> PlannedOperation:
        """To what was live before, or after the operation `to` of the history.

        Raises NotFound when there is no such version or operation, Refused for an operation that was not committed,
        UsageError, Busy; for a dry run also Unavailable.
        """
        if to is None:
            model = self.model(name)
            return await self._ask("rollback", model, past.previous(model), request)
        record = await past.committed(self.results, to, name)
        why = replace(request, reason=request.reason or f"to what was live after operation {to}")
        return await self._ask("rollback", self.model(record.model), record.to_version, why)

    async def warm(self, name: str | None, version: str, level: str | None, request: Request) -> OperationRecord:
        """Loads a version ahead of a switch to it; without `level` as the model's switches do. The same one that runs
        already is meant as well.

        Raises BadVersionName, NotFound, UsageError, Busy.
        """
        check_version(version)
        model = self.model(name)
        wanted = warm.level_of(level) or model.settings.warm.level
        for running in self._running:
            job = running.job
            same = (running.model, running.wanted) == (model.name, version)
            if same and isinstance(job, WarmRun) and job.level == wanted and running.record is not None:
                return running.record
        self.check_may_begin(action(WARM, version), model=model.name)
        running = Running(WARM, model.name, version, request.operator, model=model.name)
        record = await self._claim(running, None, request, WarmStep.PREFLIGHT)
        running.job = WarmRun(record, model, wanted, self._journal, self._display)
        self._jobs.put_nowait(running)
        return record

    async def _give_way(self, model: str, operator: str) -> None:
        """Ends a warm of `model`, which only prepares: what it has loaded stays, and the switch goes on from there."""
        for running in [*self._running]:
            if running.model == model and running.record and isinstance(running.job, WarmRun):
                running.job.cancel(operator)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GIVE_WAY_S):
                        await self.outcome(running.record)

    def cancel(self, name: str | None, operator: str, id_: int | None = None) -> OperationRecord:
        """Undoes the running operation (of model `name`, or with this id); returns at once.

        Raises NotFound, UsageError, Busy when it is just being begun, Refused when it cannot be undone any more.
        """
        wanted = None if name is None else self.model(name).name
        found = [each for each in self._running if wanted is None or each.model in (wanted, "")]
        found = [each for each in found if id_ is None or (each.record is not None and each.record.id == id_)]
        if not found:
            what = "no operation runs" if id_ is None else f"operation {id_} does not run"
            raise NotFound(f"cannot cancel: {what}", hint="`mountd history` lists the last ones")
        if len(found) > 1:
            models = ", ".join(each.target for each in found)
            raise UsageError(f"cannot choose an operation: say which with --model: {models}")
        (running,) = found
        if not running.model:
            raise Refused(
                f"cannot cancel the {running.kind} of {running.target}: it undoes what it did by itself",
                hint="`mountd status` shows how far it is",
            )
        if running.record is None or not isinstance(running.job, SwitchRun | WarmRun):
            raise busy(running, "cancel", "it is just being begun: try again in a moment")
        running.job.cancel(operator)
        log.info("operation is cancelled", operation=running.record.id, operator=operator)
        return running.record

    @contextlib.asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """Waits until no operation runs; inside none begins: requests raise Busy."""
        while self._running:
            await self._board.changed(QUIET_LOOK_S)
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def check_free(self, wanted: str = "begin", *, model: str = "", apps: frozenset[str] = frozenset()) -> None:
        """Raises Busy, naming the operation that runs on `model` or one of `apps`; without these, any."""
        for running in self._running:
            if running.meets(model, apps):
                raise busy(running, wanted)

    def check_may_begin(self, wanted: str = "begin", *, model: str = "", apps: frozenset[str] = frozenset()) -> None:
        """Raises Busy, also while a reload lets no operation begin."""
        self.check_free(wanted, model=model, apps=apps)
        self.check_no_reload(wanted)

    def check_no_reload(self, wanted: str) -> None:
        """Raises Busy while a reload changes things."""
        if self._quiet:
            holder = "a reload of the configuration"
            raise Busy(f"cannot {wanted}: busy with {holder}", hint="try again in a moment", holder=holder)

    def check_app_free(self, wanted: str, app: str, needs: Collection[str]) -> None:
        """Raises Busy while an operation runs that changes a model of `needs`, or the app itself, or all."""
        for running in self._running:
            if running.kind != WARM and (not running.model or running.model in needs or app in running.apps):
                raise busy(running, wanted)

    async def _ask(self, kind: str, model: Model, version: str, request: Request) -> PlannedOperation:
        apps = self._apps_of(model)
        planned = self._plan(kind, model, version, apps, request)
        if planned.steps and request.by_hand:
            check_by_hand(model, action(kind, version))
        if request.dry_run:
            if planned.steps:
                await preflight(model, self._journal, planned, self._board.snapshot)
            return PlannedOperation(None, planned)
        names = frozenset(app.name for app in apps)
        if planned.steps:
            await self._give_way(model.name, request.operator)
            apps = self._apps_of(model)  # meanwhile a person may have stopped one
            planned = self._plan(kind, model, version, apps, request)
        self.check_may_begin(action(kind, version), model=model.name, apps=names)
        if not planned.steps:
            await desired.ask(model, version, request)
            return PlannedOperation(None, planned)
        running = Running(kind, model.name, version, request.operator, model=model.name, apps=names)
        record = await self._claim(running, model.committed.current, request, planned.steps[0])
        work = Steps(record.id, planned, model, apps, self._board, self._journal, self._display)
        running.job = SwitchRun(record, work)
        self._jobs.put_nowait(running)
        return PlannedOperation(record, planned)

    def _plan(self, kind: str, model: Model, version: str, apps: list[RestartableApp], request: Request) -> SwitchPlan:
        settings, stopped = model.settings, readiness.stopped_apps(self._board.snapshot, model.name)
        status = self._board.snapshot.models[model.name]
        is_there = status.linked and status.current == version
        # A person wants the link to be right; what is declared asks for a version, and heals nothing.
        is_right = status.drift.reason is None or not request.by_hand
        return SwitchPlan(
            kind=kind,
            model=model.name,
            from_version=model.committed.current,
            to_version=version,
            link=str(settings.link),
            target=model.versions.planned_target(version),
            apps=tuple(affected(app) for app in apps),
            gates=tuple(PlannedGate(gates.words(gate), gate.timeout) for gate in settings.gates if not stopped),
            watch_s=settings.watch.period,
            crashes=settings.watch.crashes,
            digests=request.digests,
            force=request.force,
            level=settings.warm.level,
            is_live=is_there and is_right,
            stopped=stopped,
            override=desired.override(model, version, request),
        )

    async def begin_exclusive(
        self,
        *,
        kind: str,
        target: str,
        wanted: str,
        request: Request,
        step: str,
        work: ExclusiveTask,
    ) -> OperationRecord:
        """An operation other than a switch, on `target`; nothing else runs meanwhile. Raises Busy."""
        self.check_may_begin(kind)
        running = Running(kind, target, wanted, request.operator, job=work)
        record = await self._claim(running, None, request, step)
        self._jobs.put_nowait(running)
        return record

    async def show_step(self, record: OperationRecord, step: str) -> None:
        """The step that an exclusive task begins, in the journal and on the board."""
        await self._journal.record_step(record.id, step)
        self._display.step(record, step)

    async def _claim(self, running: Running, from_version: str | None, request: Request, step: str) -> OperationRecord:
        self._running.append(running)  # before the first await: one at a time
        try:
            await self.results.flush()  # else the next start would take the former one for interrupted
            record = await self._begin(running, from_version, request, step)
        except BaseException:
            self._running.remove(running)
            raise
        running.record = record
        self._ended[record.id] = asyncio.get_running_loop().create_future()
        self._display.step(record, step)
        return record

    async def _begin(self, running: Running, from_version: str | None, request: Request, step: str) -> OperationRecord:
        beginning = asyncio.ensure_future(
            self._journal.begin(
                kind=running.kind,
                model=running.target,
                from_version=from_version,
                to_version=running.wanted,
                operator=request.operator,
                source=request.source,
                reason=request.reason,
                step=step,
                schedule=request.schedule,
                revision=request.revision,
            )
        )
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            # It is written all the same, and nobody would finish it before the next start of mountd.
            await asyncio.wait([beginning], timeout=DISK_LIMIT_S)
            if beginning.done() and beginning.exception() is None:
                cause = "mountd stopped waiting for it before it began"
                await self.results.finish(replace(beginning.result(), result="cancelled", cause=cause, exit_code=1))
            raise

    def _apps_of(self, model: Model) -> list[RestartableApp]:
        return [
            app
            for app in self._apps.values()
            if model.name in app.settings.needs
            and "switch" in app.settings.restart.after
            and app.name not in readiness.stopped_apps(self._board.snapshot, model.name)
        ]

    # -- running --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled; operations that run then leave the link at what is committed."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.results.run(), name="results of operations")
                while True:
                    running = await self._jobs.get()
                    group.create_task(self._carry_out(running), name=f"{running.kind} {running.target}")
        finally:
            with contextlib.suppress(MountdError):  # logged already
                await self.results.flush()

    async def _carry_out(self, running: Running) -> None:
        assert running.record is not None
        assert running.job is not None
        record, job = running.record, running.job
        try:
            with resources.as_exhausted():
                outcome = await (job.run() if isinstance(job, SwitchRun | WarmRun) else job(record))
        except Exhausted as error:
            outcome = OperationOutcome("failed", error)
        duration_s = round(time.monotonic() - running.began, 3)
        failure = outcome.failure
        try:
            await self.results.finish(
                replace(
                    record,
                    step=self._step_of(record),
                    result=outcome.result,
                    cause=failure.text if failure else "",
                    hint=failure.hint if failure else outcome.note,
                    exit_code=failure.exit_code if failure else 0,
                    duration_s=duration_s,
                )
            )
        finally:
            self._running.remove(running)
            self._ended.pop(record.id).set_result(outcome)
            self._display.end(record.id)
        log.info(
            "operation finished",
            operation=record.id,
            result=outcome.result,
            version=record.to_version,
            seconds=duration_s,
        )

    def _step_of(self, record: OperationRecord) -> str:
        """The present one."""
        steps = (each.step for each in self._board.snapshot.operations if each.id == record.id)
        return next(steps, record.step)

    # -- looking --------------------------------------------------------------------------------------------------

    async def outcome(self, record: OperationRecord) -> OperationOutcome | None:
        """Waits for the outcome of an operation of this run of mountd; None: it finished before."""
        ending = self._ended.get(record.id)
        return None if ending is None else await asyncio.shield(ending)

    async def wait(self, id_: int, *, seen_step: str, timeout_s: float) -> OperationRecord:
        """The operation once it is past `seen_step` or finished, at the latest after `timeout_s`. Raises NotFound."""

        def moved_on(now: Snapshot) -> bool:
            scheduled = [(each.id, each.step) for each in now.scheduled]
            return (id_, seen_step) not in [*((each.id, each.step) for each in now.operations), *scheduled]

        with contextlib.suppress(TimeoutError):
            await self._board.wait_until(moved_on, timeout_s)
        record = await self.results.operation(id_)
        if record is None:
            raise NotFound(f"cannot find operation {id_}")
        return record

    async def close_interrupted(self) -> None:
        """At a start, before the models are loaded: finishes or undoes what the previous run left unfinished."""
        await recover.recover(self._journal, self._models, self.results)
