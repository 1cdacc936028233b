"""Runs one switch or rollback at a time: verify → stop → flip → start until ready → commit, or everything back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from mountd.app.app import App
from mountd.errors import Busy, MountdError, NotFound, RolledBack, UsageError
from mountd.journal.journal import Journal, Record
from mountd.model.content import Content
from mountd.model.model import Model
from mountd.operation.plan import Step, Undo, changes, plan, undo
from mountd.settings.names import check_version
from mountd.status.board import Board
from mountd.status.snapshot import Operation

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
class _Job:
    record: Record
    request: Request
    apps: Sequence[App]
    steps: Sequence[Step]


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
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(1)

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
        self._show(record)
        self._jobs.put_nowait(_Job(record, request, apps, steps))
        return Asked(record, self._limit_s(apps))

    def _is_live(self, model: Model, version: str) -> bool:
        status = self._board.snapshot.models[model.name]
        return status.linked and status.current == version

    def _busy(self, running: Record) -> Busy:
        age_s = time.monotonic() - self._began
        holder = f"{running.operator} ({running.kind} {running.model} to {running.to_version}, since {age_s:.0f} s)"
        return Busy(f"cannot begin: busy with {holder}", hint="wait for it: mountd wait --for ready", holder=holder)

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
            await self._run(await self._jobs.get())

    async def _run(self, job: _Job) -> None:
        record, request, apps, steps = job.record, job.request, job.apps, job.steps
        model = request.model
        before = model.live_content()
        former_desired = model.desired
        begun: list[Step] = []
        result, failure = "committed", None
        try:
            await model.ask_for(request.version)
            content: Content | None = None
            for step in steps:
                begun.append(step)
                await self._enter(record, step)
                content = await self._do(step, model, request.version, content, apps)
        except MountdError as error:
            result, failure = await self._fail(job, error, begun, before)
            if former_desired is not None and request.source != "config":
                await model.ask_for(former_desired)
        except asyncio.CancelledError:
            # mountd stops. What is committed decides at the next start; the link must agree already now.
            if Step.FLIP in begun and Step.COMMIT not in begun:
                await model.flip(before)
            await self._finish(record, "interrupted", MountdError("mountd was stopped"))
            raise
        await self._finish(record, result, failure)

    async def _enter(self, record: Record, step: str) -> None:
        await self._journal.record_step(record.id, step)
        self._show(replace(record, step=step))
        log.info("operation step", operation=record.id, kind=record.kind, step=step, version=record.to_version)

    async def _do(
        self, step: Step, model: Model, version: str, content: Content | None, apps: Sequence[App]
    ) -> Content | None:
        match step:
            case Step.VERIFY:
                return await model.verify(version)
            case Step.STOP:
                await self._stop(apps)
            case Step.FLIP:
                await model.flip(content)
            case Step.START:
                await self._start(apps)
            case Step.COMMIT:
                await model.commit(version)
        return content

    async def _stop(self, apps: Sequence[App]) -> None:
        await asyncio.gather(*(app.stop() for app in apps))

    async def _start(self, apps: Sequence[App]) -> None:
        results = await asyncio.gather(*(app.start_and_wait() for app in apps), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _fail(
        self, job: _Job, error: MountdError, begun: Sequence[Step], before: Content | None
    ) -> tuple[str, MountdError]:
        """Undo what had begun; the result and the error that the caller is told."""
        record, model, apps = job.record, job.request.model, job.apps
        log.warning("operation failed", operation=record.id, step=begun[-1] if begun else "", cause=error.text)
        if not any(changes(step) for step in begun):
            return ("refused" if error.exit_code in (2, 3, 7) else "failed"), error
        live = before.version if before else "nothing"
        try:
            for step in undo(begun):
                await self._enter(record, step)
                match step:
                    case Undo.STOP_NEW:
                        await self._stop(apps)
                    case Undo.FLIP_BACK:
                        await model.flip(before)
                    case Undo.START_OLD:
                        await self._start(apps)
        except MountdError as worse:
            for app in apps:
                app.want()  # its supervisor goes on trying
            text = f"{error.text}; and then, going back to {live}: {worse.text}"
            return "failed", MountdError(text, hint=worse.hint or error.hint)
        text = f"cannot {record.kind} to {record.to_version}: {error.text}; {live} is live again"
        return "rolled-back", RolledBack(text, hint=error.hint)

    async def _finish(self, record: Record, result: str, failure: MountdError | None) -> None:
        duration_s = round(time.monotonic() - self._began, 3)
        try:
            await self._journal.finish(
                record.id,
                result=result,
                cause=failure.text if failure else "",
                hint=failure.hint if failure else "",
                exit_code=failure.exit_code if failure else 0,
                duration_s=duration_s,
            )
        finally:
            self._running = None
            self._board.set_operation(None)
        log.info(
            "operation finished", operation=record.id, result=result, version=record.to_version, seconds=duration_s
        )

    def _show(self, record: Record) -> None:
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
            cause = f"mountd ended during {record.step}"
            await self._journal.finish(
                record.id, result="interrupted", cause=cause, hint="", exit_code=1, duration_s=None
            )
            log.warning("operation was interrupted", operation=record.id, step=record.step, version=record.to_version)
