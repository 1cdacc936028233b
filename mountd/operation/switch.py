"""Who may ask for a switch or rollback, what it becomes, and how it ended: one operation at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
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
QUIET_LOOK_S = 1.0


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


@dataclass(frozen=True, slots=True)
class Errand:
    """An operation that is no switch: `work` returns how it ended, also when it is cancelled."""

    record: Record
    work: Callable[[Record], Awaitable[Outcome]]


class Operations:
    def __init__(self, models: Mapping[str, Model], apps: Mapping[str, App], board: Board, journal: Journal) -> None:
        self._models = models
        self._apps = apps
        self._board = board
        self._journal = journal
        self._running: Record | None = None
        self._quiet = False
        self._began = 0.0
        self._jobs: asyncio.Queue[Job | Errand] = asyncio.Queue(1)
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

    @contextlib.asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """Waits until no operation runs; inside none begins, whoever asks is told Busy."""
        while self._running is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUIET_LOOK_S):
                    await self._board.changed()
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def check_free(self, wanted: str = "begin") -> None:
        """Raises Busy, naming the operation that runs."""
        if self._running is not None:
            raise self._busy(self._running, wanted)

    def check_may_begin(self, wanted: str = "begin") -> None:
        """Raises Busy, also while a reload lets no operation begin."""
        self.check_free(wanted)
        if self._quiet:
            holder = "a reload of the configuration"
            raise Busy(f"cannot {wanted}: busy with {holder}", hint="try again in a moment", holder=holder)

    async def _begin(self, request: Request) -> Asked:
        model = request.model
        apps = self._apps_of(model)
        self.check_may_begin()
        if self._is_live(model, request.version):
            if model.desired != request.version:
                await model.ask_for(request.version)
            return Asked(None, 0.0)
        steps = plan([app.name for app in apps])
        record = await self._claim(
            kind=request.kind,
            model=model.name,
            from_version=model.current,
            to_version=request.version,
            operator=request.operator,
            source=request.source,
            reason=request.reason,
            step=steps[0],
        )
        self._jobs.put_nowait(Job(record, model, apps, steps, declared=request.source == "config"))
        return Asked(record, self._limit_s(apps))

    async def begin_errand(
        self,
        *,
        kind: str,
        target: str,
        wanted: str,
        operator: str,
        source: str,
        reason: str,
        step: str,
        work: Callable[[Record], Awaitable[Outcome]],
    ) -> Record:
        """An operation other than a switch, on `target`. Raises Busy."""
        self.check_may_begin(kind)
        record = await self._claim(
            kind=kind,
            model=target,
            from_version=None,
            to_version=wanted,
            operator=operator,
            source=source,
            reason=reason,
            step=step,
        )
        self._jobs.put_nowait(Errand(record, work))
        return record

    async def show_step(self, record: Record, step: str) -> None:
        """The step that an errand begins, in the journal and on the board."""
        await self._journal.record_step(record.id, step)
        self._runner.show(replace(record, step=step))

    async def _claim(
        self,
        *,
        kind: str,
        model: str,
        from_version: str | None,
        to_version: str,
        operator: str,
        source: str,
        reason: str,
        step: str,
    ) -> Record:
        claim = Record(0, kind, model, None, to_version, operator, source, "", "", "")
        self._running, self._began = claim, time.monotonic()  # claimed before the first await: one at a time
        try:
            record = await self._journal.begin(
                kind=kind,
                model=model,
                from_version=from_version,
                to_version=to_version,
                operator=operator,
                source=source,
                reason=reason,
                step=step,
            )
        except BaseException:
            self._running = None
            raise
        self._running = record
        self._runner.show(record)
        return record

    def _is_live(self, model: Model, version: str) -> bool:
        status = self._board.snapshot.models[model.name]
        return status.linked and status.current == version

    def _busy(self, running: Record, wanted: str) -> Busy:
        age_s = time.monotonic() - self._began
        if running.kind == "drill":
            holder = f"{running.operator} (drill {running.to_version} of {running.model}, since {age_s:.0f} s)"
            hint = "it ends by itself; `mountd status` shows how far it is"
            return Busy(f"cannot {wanted}: busy with {holder}", hint=hint, holder=holder)
        holder = f"{running.operator} ({running.kind} {running.model} to {running.to_version}, since {age_s:.0f} s)"
        hint = f"wait for it: mountd wait --for version={running.to_version}"
        return Busy(f"cannot {wanted}: busy with {holder}", hint=hint, holder=holder)

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
            outcome = await (job.work(job.record) if isinstance(job, Errand) else self._runner.run(job))
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
