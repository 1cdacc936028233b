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
from mountd.api import metrics
from mountd.api.access import ProfileRoutes
from mountd.api.body import read_body as _body
from mountd.api.body import seconds
from mountd.api.diff import DifferingFlags, DiffRoutes
from mountd.api.documents import SCHEMA, failures, history, operations, status
from mountd.api.documents.operations import CancelDocument, ReloadDocument, ScheduledDocument, WarmDocument
from mountd.api.documents.status import StatusDocument
from mountd.api.history import HistoryRoutes, answer, operation_id
from mountd.api.live import LiveRoutes
from mountd.api.login import LoginRoutes
from mountd.api.logs import LogRoutes
from mountd.api.pages import Pages
from mountd.api.peer import CALLER, TokenHolder, UserNames
from mountd.api.processes import ProcessRoutes
from mountd.api.roles import Handler, Route, RouteAccess
from mountd.api.sessions import Sessions
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

ASKING: Mapping[str, type] = {"reason": str, "dry_run": bool, "force": bool, "digests": bool}
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
        return answer(failures.error(NotFound(text) if error.status == 404 else UsageError(text)), error.status)
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
        self._logs = LogRoutes(deps.board, deps.rings)
        self._names = UserNames()
        self._profiles = ProfileRoutes(deps.operations, deps.profiles, deps.journal, self._operator)
        self._processes = ProcessRoutes(deps.board, deps.supervisors, deps.apps, deps.journal, self._operator)
        self._diff = DiffRoutes(deps.operations, deps.board, deps.flags)
        self._pages = Pages()
        self.sessions = Sessions()
        self._login = LoginRoutes(self.sessions)
        self._live = LiveRoutes(deps.board, deps.journal, self._status)

    def table(self) -> list[Route]:
        """All of them, and what each asks of those who come over TCP."""
        return [
            *(Route(each, RouteAccess.OPEN) for each in self.probes()),
            *(Route(each, RouteAccess.READ) for each in self.reads()),
            *(Route(each, RouteAccess.WRITE) for each in self.writes()),
            *(Route(each, RouteAccess.SIGNED) for each in self.webhooks()),
            *(Route(each, RouteAccess.OPEN) for each in self._pages.routes()),
            *(Route(each, RouteAccess.LOGIN) for each in self._login.logins()),
        ]

    def probes(self) -> list[web.RouteDef]:
        """For everything that reaches the address."""
        return [web.get("/healthz", self.healthz), web.get("/readyz", self.readyz), web.get("/metrics", self.metrics)]

    def webhooks(self) -> list[web.RouteDef]:
        """For everybody who knows the secret of one."""
        return self._deps.webhooks.routes() if self._deps.webhooks else []

    def reads(self) -> list[web.RouteDef]:
        return [
            web.get("/api/v1/status", self.status),
            web.get("/api/v1/versions", self.versions),
            web.get("/api/v1/operations/{id}", self.operation),
            *self._logs.reads(),
            *self._history.reads(),
            *self._diff.reads(),
            *self._live.reads(),
            *self._login.reads(),
            *self._profiles.reads(),
        ]

    def writes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/v1/switch", self.switch),
            web.post("/api/v1/rollback", self.rollback),
            web.post("/api/v1/warm", self.warm),
            web.post("/api/v1/cancel", self.cancel),
            web.post("/api/v1/reload", self.reload),
            web.post("/api/v1/drill", self.drill),
            web.post("/api/v1/pause", self.pause),
            web.post("/api/v1/resume", self.resume),
            *self._profiles.writes(),
            *self._processes.writes(),
        ]

    # -- probes ---------------------------------------------------------------------------------------------------

    async def healthz(self, _: web.Request) -> web.Response:
        return answer({"schema": SCHEMA, "alive": True})

    async def readyz(self, _: web.Request) -> web.Response:
        document = status.ready(self._deps.board.snapshot)
        return answer(document, 200 if document["ready"] else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=metrics.render(self._deps.board), headers={"Content-Type": metrics.CONTENT_TYPE})

    # -- reads ----------------------------------------------------------------------------------------------------

    async def status(self, request: web.Request) -> web.Response:
        """With `wait=SECONDS&for=ready|version=V` answers as soon as that holds, at the latest after the wait; for a
        version also when an operation of the model has ended."""
        board = self._deps.board
        if "for" in request.query:
            model = request.query.get("model")
            holds = condition(request.query["for"], lambda: self._deps.operations.model(model).name)
            with contextlib.suppress(TimeoutError):
                await board.wait_until(holds, seconds(request, "wait"))
        return answer(self._status())

    def _status(self) -> StatusDocument:
        deps, uptime_s = self._deps, time.monotonic() - self._deps.started
        return status.status(deps.board.snapshot, deps.rings, version=__version__, pid=os.getpid(), uptime_s=uptime_s)

    async def versions(self, request: web.Request) -> web.Response:
        """While the bucket cannot be listed, the pinned ones: they can be switched to. Raises Unavailable when there
        are none."""
        model = self._deps.operations.model(request.query.get("model"))
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

    async def operation(self, request: web.Request) -> web.Response:
        id_ = operation_id(request)
        seen = request.query.get("step", "")
        record = await self._deps.operations.wait(id_, seen_step=seen, timeout_s=seconds(request, "wait"))
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

    async def switch(self, request: web.Request) -> web.Response:
        """With `at` it is scheduled; a dry run shows what it would do now."""
        body = await _body(request, {"version": str, "model": str, "at": str, **ASKING})
        if "version" not in body:
            raise UsageError("cannot switch: no version given")
        asking = await self._asking(request, body)
        if "at" in body and not asking.dry_run:
            record = await self._deps.schedules.ask(body.get("model"), body["version"], body["at"], asking)
            return answer(ScheduledDocument(schema=SCHEMA, operation=operations.operation(record)), 202)
        asked = await self._deps.operations.switch(body.get("model"), body["version"], asking)
        return _asked(asked, dry_run=asking.dry_run)

    async def rollback(self, request: web.Request) -> web.Response:
        """With `to` to what was live after that operation of the history."""
        body = await _body(request, {"model": str, "to": int, **ASKING})
        asking = await self._asking(request, body)
        asked = await self._deps.operations.rollback(body.get("model"), asking, body.get("to"))
        return _asked(asked, dry_run=asking.dry_run)

    async def warm(self, request: web.Request) -> web.Response:
        body = await _body(request, {"version": str, "model": str, "level": str, "reason": str})
        if "version" not in body:
            raise UsageError("cannot warm: no version given")
        asking = await self._asking(request, body)
        record = await self._deps.operations.warm(body.get("model"), body["version"], body.get("level"), asking)
        return answer(WarmDocument(schema=SCHEMA, operation=operations.operation(record), timeout_s=LIMIT_S), 202)

    async def cancel(self, request: web.Request) -> web.Response:
        """Answers at once; the undo can be followed like the operation itself."""
        body = await _body(request, {"model": str, "id": int})
        record = await self._deps.schedules.cancel(body.get("model"), await self._operator(), body.get("id"))
        return answer(CancelDocument(schema=SCHEMA, operation=operations.operation(record)), 202)

    async def reload(self, request: web.Request) -> web.Response:
        await _body(request, {})
        operator = await self._operator()
        await report_event(self._deps.journal, "reload-requested", "mountd", f"{operator} asked for a reload")
        return answer(await self._deps.reload(operator))

    async def pause(self, request: web.Request) -> web.Response:
        """Automatic changes of `model`, without it of all."""
        return await self._pause(request, self._deps.syncing.pause)

    async def resume(self, request: web.Request) -> web.Response:
        return await self._pause(request, self._deps.syncing.resume)

    async def _pause(self, request: web.Request, work: Callable[..., Awaitable[list[Paused]]]) -> web.Response:
        body = await _body(request, {"model": str, "reason": str})
        operator = await self._operator()
        paused = await work(body.get("model"), operator=operator, reason=body.get("reason", ""))
        return answer(operations.pause(paused))

    async def drill(self, request: web.Request) -> web.Response:
        body = await _body(request, {"kind": str, "mount": str, "for": str, "reason": str, "dry_run": bool})
        begun = await self._deps.drills.ask(
            body.get("kind", ""),
            body.get("mount"),
            body.get("for"),
            await self._asking(request, body),
        )
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
