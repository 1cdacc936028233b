"""The HTTP routes: documents out, requests in, errors as documents with the right status."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from mountd import __version__
from mountd.api.access import ProfileRoutes
from mountd.api.body import wait_s
from mountd.api.diff import DifferingFlags, DiffRoutes
from mountd.api.documents import SCHEMA, failures, history, operations, status
from mountd.api.documents.history import FollowedOperationDocument
from mountd.api.documents.operations import (
    CancelDocument,
    DrillDocument,
    PauseDocument,
    ReloadDocument,
    ScheduledDocument,
    SwitchDocument,
    SwitchPlannedDocument,
    WarmDocument,
)
from mountd.api.documents.requests import (
    CancelBody,
    DrillBody,
    ModelQuery,
    NoBody,
    NoQuery,
    OperationQuery,
    PauseBody,
    RollbackBody,
    StatusQuery,
    SwitchBody,
    WarmBody,
)
from mountd.api.documents.status import AliveDocument, ReadyDocument, StatusDocument, VersionsDocument
from mountd.api.explain import ExplainRoutes
from mountd.api.history import HistoryRoutes, answer, operation_id
from mountd.api.live import LiveRoutes
from mountd.api.login import LoginRoutes
from mountd.api.logs import LogRoutes
from mountd.api.metrics.exposition import CONTENT_TYPE, Metrics
from mountd.api.notify import NotifyRoutes, SendTest
from mountd.api.openapi_route import OpenApiRoutes
from mountd.api.pages import Pages
from mountd.api.peer import CALLER, TokenHolder, UserNames
from mountd.api.processes import ProcessRoutes
from mountd.api.roles import Handler, Route, RouteAccess
from mountd.api.route import get, post
from mountd.api.sessions import Sessions
from mountd.api.traffic import TrafficRoutes
from mountd.api.waits import condition
from mountd.api.webhook import Webhooks
from mountd.errors import MountdError, NotFound, Unavailable, UsageError
from mountd.journal.journal import Journal
from mountd.model import audit
from mountd.operation.apps import AppControl
from mountd.operation.desired import Request
from mountd.operation.drill import Drills
from mountd.operation.results import report_event
from mountd.operation.schedule import Schedules
from mountd.operation.switch import Operations, PlannedOperation
from mountd.operation.sync import Paused, Syncing
from mountd.operation.warm import LIMIT_S
from mountd.process.child import Ring
from mountd.process.resources import SYSTEM_ERROR, of_the_machine
from mountd.process.supervisor import Supervisor
from mountd.rclone import keys
from mountd.status.board import Board
from mountd.warm.profiles import Profiles

log = structlog.get_logger()

MAX_BODY_BYTES = 64 * 1024
HTTP_OF_EXIT = {1: 503, 2: 400, 3: 404, 6: 409, 7: 422}
Reload = Callable[[str], Awaitable[ReloadDocument]]
"""operator → what the reload did; raises ConfigError, Busy"""


@dataclass(frozen=True, slots=True)
class ApiDeps:
    """What the routes use."""

    board: Board
    operations: Operations
    supervisors: Mapping[str, Supervisor]
    rings: Mapping[str, Ring]
    reload: Reload
    drills: Drills
    journal: Journal
    syncing: Syncing
    schedules: Schedules
    apps: AppControl
    profiles: Profiles
    started: float
    webhooks: Webhooks | None = None
    """None: nothing takes any"""
    flags: DifferingFlags | None = None
    """None: no rclone is asked"""
    notify: SendTest | None = None
    """None: nobody is notified"""


@web.middleware
async def errors_as_documents(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except MountdError as error:
        return answer(failures.error(error), HTTP_OF_EXIT.get(error.exit_code, 500))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        text = f"cannot answer {request.method} {request.path}: {error.reason.lower()}"
        found = answer(failures.error(NotFound(text) if error.status == 404 else UsageError(text)), error.status)
        if "Allow" in error.headers:
            found.headers["Allow"] = error.headers["Allow"]
        return found
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:
        if (lack := of_the_machine(error)) is not None:
            # What the system refuses may be the consequence of a bug, whose place only the traceback shows.
            where = error if lack.code == SYSTEM_ERROR else None
            log.warning("request failed", path=request.path, cause=lack.text, exc_info=where)
            return answer(failures.error(lack), HTTP_OF_EXIT[lack.exit_code])
        log.exception("request failed", path=request.path)
        return answer(failures.bug(), 500)


class Routes:
    def __init__(self, deps: ApiDeps) -> None:
        self._deps = deps
        self._history = HistoryRoutes(deps.journal, deps.board, deps.operations.results)
        self._metrics = Metrics(deps.board, deps.journal)
        self._traffic = TrafficRoutes(deps.board)
        self._logs = LogRoutes(deps.board, deps.rings)
        results = deps.operations.results
        self._explain = ExplainRoutes(deps.board, deps.journal, results, deps.rings, deps.started)
        self._names = UserNames()
        self._profiles = ProfileRoutes(deps.operations, deps.profiles, deps.journal, self._operator)
        self._processes = ProcessRoutes(deps.board, deps.supervisors, deps.apps, deps.journal, self._operator)
        self._diff = DiffRoutes(deps.operations, deps.board, deps.flags)
        self._openapi = OpenApiRoutes(self.table)
        self._notify = NotifyRoutes(deps.notify, self._operator)
        self._pages = Pages()
        self.sessions = Sessions()
        self._login = LoginRoutes(self.sessions)
        self._live = LiveRoutes(deps.board, deps.journal, self._status)

    def table(self) -> list[Route]:
        """All of them, with what each asks of those who come over TCP, reads and answers."""
        open_ = [*self.probes(), *self._pages.routes(), *self._login.logins()]
        return [*open_, *self.reads(), *self.writes(), *self.webhooks()]

    def probes(self) -> list[Route]:
        """For everything that reaches the address."""
        ready = {200: ReadyDocument, 503: ReadyDocument}
        text = {200: {"text/plain": str}}
        return [
            get("/healthz", self.healthz, NoQuery, {200: AliveDocument}, RouteAccess.OPEN),
            get("/readyz", self.readyz, NoQuery, ready, RouteAccess.OPEN),
            get("/metrics", self.metrics, NoQuery, text, RouteAccess.OPEN),
        ]

    def webhooks(self) -> list[Route]:
        """For everybody who knows the secret of one."""
        return self._deps.webhooks.routes() if self._deps.webhooks else []

    def reads(self) -> list[Route]:
        return [
            *self._openapi.reads(),
            get("/api/v1/status", self.status, StatusQuery, {200: StatusDocument}),
            get("/api/v1/versions", self.versions, ModelQuery, {200: VersionsDocument}),
            get("/api/v1/operations/{id}", self.operation, OperationQuery, {200: FollowedOperationDocument}),
            *self._logs.reads(),
            *self._traffic.reads(),
            *self._history.reads(),
            *self._diff.reads(),
            *self._explain.reads(),
            *self._live.reads(),
            *self._login.reads(),
            *self._profiles.reads(),
        ]

    def writes(self) -> list[Route]:
        switched = {200: SwitchPlannedDocument | SwitchDocument, 202: SwitchDocument}
        scheduled = {**switched, 202: SwitchDocument | ScheduledDocument}
        return [
            post("/api/v1/switch", self.switch, SwitchBody, scheduled),
            post("/api/v1/rollback", self.rollback, RollbackBody, switched),
            post("/api/v1/warm", self.warm, WarmBody, {202: WarmDocument}),
            post("/api/v1/cancel", self.cancel, CancelBody, {202: CancelDocument}),
            post("/api/v1/reload", self.reload, NoBody, {200: ReloadDocument}),
            post("/api/v1/drill", self.drill, DrillBody, {200: DrillDocument, 202: DrillDocument}),
            post("/api/v1/pause", self.pause, PauseBody, {200: PauseDocument}),
            post("/api/v1/resume", self.resume, PauseBody, {200: PauseDocument}),
            *self._profiles.writes(),
            *self._processes.writes(),
            *self._notify.writes(),
        ]

    # -- probes ---------------------------------------------------------------------------------------------------

    async def healthz(self, _: web.Request, __: NoQuery) -> web.Response:
        """Whether mountd answers."""
        return answer(AliveDocument(schema=SCHEMA, alive=True))

    async def readyz(self, _: web.Request, __: NoQuery) -> web.Response:
        """Whether everything configured is ready: 200, else 503 with the reasons."""
        document = status.ready(self._deps.board.snapshot)
        return answer(document, 200 if document["ready"] else 503)

    async def metrics(self, _: web.Request, __: NoQuery) -> web.Response:
        """The metrics, as Prometheus reads them."""
        return web.Response(body=await self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    # -- reads ----------------------------------------------------------------------------------------------------

    async def status(self, _: web.Request, query: StatusQuery) -> web.Response:
        """What is true now of remotes, mounts, models, apps and operations.

        With `wait` and `for` it answers as soon as that holds, at the latest after the wait; for a version also when an
        operation of the model has ended.
        """
        board = self._deps.board
        if "for" in query:
            holds = condition(query["for"], lambda: self._deps.operations.model(query.get("model")).name)
            with contextlib.suppress(TimeoutError):
                await board.wait_until(holds, wait_s(query.get("wait", 0.0)))
        return answer(self._status())

    def _status(self) -> StatusDocument:
        deps, uptime_s = self._deps, time.monotonic() - self._deps.started
        return status.status(deps.board.snapshot, deps.rings, version=__version__, pid=os.getpid(), uptime_s=uptime_s)

    async def versions(self, _: web.Request, query: ModelQuery) -> web.Response:
        """The versions of a model that are in the bucket or pinned.

        While the bucket cannot be listed, only the pinned ones: they can be switched to. 503 when there are none.
        """
        model = self._deps.operations.model(query.get("model"))
        contents, unlisted = [], None
        try:
            contents = await model.versions.all()
        except Unavailable as error:
            if not model.versions.all_pinned():
                raise
            unlisted = error.text
        quarantined = await self._deps.journal.quarantined(model.name)
        document = status.versions(
            model.name,
            contents,
            self._deps.board.snapshot.models[model.name],
            levels={content.version: model.levels.shown(content) for content in contents},
            pinned=model.versions.all_pinned(),
            quarantined=quarantined,
            changed=await audit.changed(self._deps.journal, model.name, contents),
            ignored=keys.describe(model.versions.disk.ignored),
            unlisted=unlisted,
        )
        return answer(document)

    async def operation(self, request: web.Request, query: OperationQuery) -> web.Response:
        """One operation, with its progress while it runs.

        With `wait` and `step` it answers as soon as the operation is at another step, at the latest after the wait.
        """
        id_, timeout_s = operation_id(request), wait_s(query.get("wait", 0.0))
        record = await self._deps.operations.wait(id_, seen_step=query.get("step", ""), timeout_s=timeout_s)
        document: dict[str, object] = {**operations.operation(record)}
        for running in self._deps.board.snapshot.operations:
            if running.id == record.id and running.step == record.step:
                now = time.monotonic()
                document |= operations.progress(running, self._deps.board.snapshot, self._deps.rings, now)
        if record.kind == "drill":
            measured = await self._deps.journal.drill(record.id)
            document["drill"] = history.drilled(measured) if measured else None
        return answer(document)

    # -- writes ---------------------------------------------------------------------------------------------------

    async def switch(self, request: web.Request, body: SwitchBody) -> web.Response:
        """Switches a model to a version.

        202 with the operation, which can be followed; 200 when nothing had to be done, or with the plan of a dry run,
        which shows what it would do now. With `at` the switch is scheduled.
        """
        asking = await self._asking(request, body)
        if "at" in body and not asking.dry_run:
            record = await self._deps.schedules.ask(body.get("model"), body["version"], body["at"], asking)
            return answer(ScheduledDocument(schema=SCHEMA, operation=operations.operation(record)), 202)
        asked = await self._deps.operations.switch(body.get("model"), body["version"], asking)
        return _asked(asked, dry_run=asking.dry_run)

    async def rollback(self, request: web.Request, body: RollbackBody) -> web.Response:
        """Switches a model back to its previous version, or to what was live after an operation of the history."""
        asking = await self._asking(request, body)
        asked = await self._deps.operations.rollback(body.get("model"), asking, body.get("to"))
        return _asked(asked, dry_run=asking.dry_run)

    async def warm(self, request: web.Request, body: WarmBody) -> web.Response:
        """Loads a version ahead of a switch."""
        asking = await self._asking(request, body)
        record = await self._deps.operations.warm(body.get("model"), body["version"], body.get("level"), asking)
        return answer(WarmDocument(schema=SCHEMA, operation=operations.operation(record), timeout_s=LIMIT_S), 202)

    async def cancel(self, _: web.Request, body: CancelBody) -> web.Response:
        """Undoes the operation that runs, or drops a scheduled switch.

        Answers at once; the undo can be followed like the operation itself.
        """
        record = await self._deps.schedules.cancel(body.get("model"), await self._operator(), body.get("id"))
        return answer(CancelDocument(schema=SCHEMA, operation=operations.operation(record)), 202)

    async def reload(self, _: web.Request, __: NoBody) -> web.Response:
        """Reads the configuration again and carries out what has changed."""
        operator = await self._operator()
        await report_event(self._deps.journal, "reload-requested", "mountd", f"{operator} asked for a reload")
        return answer(await self._deps.reload(operator))

    async def pause(self, _: web.Request, body: PauseBody) -> web.Response:
        """Suspends automatic changes of models."""
        return await self._pause(body, self._deps.syncing.pause)

    async def resume(self, _: web.Request, body: PauseBody) -> web.Response:
        """Allows automatic changes of models again."""
        return await self._pause(body, self._deps.syncing.resume)

    async def _pause(self, body: PauseBody, work: Callable[..., Awaitable[list[Paused]]]) -> web.Response:
        operator = await self._operator()
        paused = await work(body.get("model"), operator=operator, reason=body.get("reason", ""))
        return answer(operations.pause(paused))

    async def drill(self, request: web.Request, body: DrillBody) -> web.Response:
        """Rehearses a fault of a mount, and measures how long the recovery takes; with `dry_run` only the plan."""
        asking = await self._asking(request, body)
        begun = await self._deps.drills.ask(body["kind"], body.get("mount"), body.get("for"), asking)
        return answer(operations.drill(begun), 202 if begun.record else 200)

    async def _operator(self) -> str:
        caller = CALLER.get()
        assert caller is not None  # no route for writing is without one
        return await self._names.operator(caller)

    async def _asking(self, request: web.Request, body: Mapping[str, Any]) -> Request:
        return Request(
            await self._operator(),
            _source(request),
            body.get("reason", ""),
            dry_run=body.get("dry_run", False),
            force=body.get("force", False),
            digests=body.get("digests", False),
        )


def _asked(asked: PlannedOperation, *, dry_run: bool) -> web.Response:
    return answer(operations.switch(asked, dry_run=dry_run), 200 if dry_run or asked.record is None else 202)


def _source(request: web.Request) -> str:
    if isinstance(CALLER.get(), TokenHolder):
        return "api"  # what else it says of itself is not proven
    return "cli" if request.headers.get("User-Agent", "").startswith("mountd/") else "api"
