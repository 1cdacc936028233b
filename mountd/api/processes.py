"""The routes of one process: a mount or an app is restarted, an app is stopped, started, and sent a signal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog
from aiohttp import web

from mountd.api.body import read_body
from mountd.api.documents import SCHEMA
from mountd.api.documents.operations import AppAskedDocument, RestartDocument, SignalDocument
from mountd.api.history import answer
from mountd.errors import NotFound, Refused
from mountd.journal.journal import Journal
from mountd.operation.apps import AppControl
from mountd.operation.results import report_event
from mountd.process.lifecycle import RestartAsked
from mountd.process.supervisor import Supervisor
from mountd.status import readiness
from mountd.status.board import Board
from mountd.text import did_you_mean

log = structlog.get_logger()

NAMED: Mapping[str, type] = {"name": str, "reason": str}


class ProcessRoutes:
    def __init__(
        self,
        board: Board,
        supervisors: Mapping[str, Supervisor],
        apps: AppControl,
        journal: Journal,
        operator: Callable[[], Awaitable[str]],
    ) -> None:
        self._board = board
        self._supervisors = supervisors
        self._apps = apps
        self._journal = journal
        self._operator = operator

    def writes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/v1/restart", self.restart),
            web.post("/api/v1/stop", self.stop),
            web.post("/api/v1/start", self.start),
            web.post("/api/v1/signal", self.signal),
        ]

    async def restart(self, request: web.Request) -> web.Response:
        """An app that a person has stopped is started, as `systemctl restart` does."""
        body = await read_body(request, {"name": str})
        name = body.get("name", "")
        supervisor = self._supervisors.get(name)
        if supervisor is None:
            hint = f"{did_you_mean(name, self._supervisors)}names: {', '.join(self._supervisors)}"
            raise NotFound(f"cannot restart {name!r}: no such mount or app", hint=hint)
        operator = await self._operator()
        if self._apps.is_stopped(name):
            await self._apps.start(name, operator=operator)
            return answer(RestartDocument(schema=SCHEMA, name=name), 202)
        if name in self._board.snapshot.apps:
            waits = readiness.blockers(self._board.snapshot, name)
            if waits:  # it would be stopped, and could not be started again
                raise Refused(
                    f"cannot restart {name}: {waits[0].text}", hint="see `mountd status` for what it waits for"
                )
        log.info("restart requested", name=name, operator=operator)
        asked = f"{operator} asked for a restart"
        supervisor.post(RestartAsked(asked))
        await report_event(self._journal, "restart-requested", name, f"{asked} of {name}")
        return answer(RestartDocument(schema=SCHEMA, name=name), 202)

    async def stop(self, request: web.Request) -> web.Response:
        """Answers at once; its state in the status says when it has stopped."""
        body = await read_body(request, NAMED)
        name, operator = body.get("name", ""), await self._operator()
        changed = await self._apps.stop(name, operator=operator, reason=body.get("reason", ""))
        return answer(AppAskedDocument(schema=SCHEMA, name=name, changed=changed), 202 if changed else 200)

    async def start(self, request: web.Request) -> web.Response:
        """Answers at once; its state in the status says when it runs."""
        body = await read_body(request, NAMED)
        name, operator = body.get("name", ""), await self._operator()
        changed = await self._apps.start(name, operator=operator, reason=body.get("reason", ""))
        return answer(AppAskedDocument(schema=SCHEMA, name=name, changed=changed), 202 if changed else 200)

    async def signal(self, request: web.Request) -> web.Response:
        body = await read_body(request, {**NAMED, "signal": str})
        name, operator = body.get("name", ""), await self._operator()
        sent, pid = await self._apps.signal(
            name, body.get("signal", ""), operator=operator, reason=body.get("reason", "")
        )
        return answer(SignalDocument(schema=SCHEMA, name=name, signal=sent, pid=pid))
