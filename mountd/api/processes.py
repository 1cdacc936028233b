"""The routes of one process: a mount or an app is restarted, an app is stopped, started, and sent a signal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog
from aiohttp import web

from mountd.api.documents import SCHEMA
from mountd.api.documents.operations import AppAskedDocument, RestartDocument, SignalDocument
from mountd.api.documents.requests import AppBody, RestartBody, SignalBody
from mountd.api.history import answer
from mountd.api.roles import Route
from mountd.api.route import post
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

    def writes(self) -> list[Route]:
        changed = {200: AppAskedDocument, 202: AppAskedDocument}
        return [
            post("/api/v1/restart", self.restart, RestartBody, {202: RestartDocument}),
            post("/api/v1/stop", self.stop, AppBody, changed),
            post("/api/v1/start", self.start, AppBody, changed),
            post("/api/v1/signal", self.signal, SignalBody, {200: SignalDocument}),
        ]

    async def restart(self, _: web.Request, body: RestartBody) -> web.Response:
        """Restarts a mount or an app.

        An app that a person has stopped is started, as `systemctl restart` does.
        """
        name = body["name"]
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

    async def stop(self, _: web.Request, body: AppBody) -> web.Response:
        """Stops an app until it is started again.

        Answers at once: 202, or 200 where it was stopped already. Its state in the status says when it has stopped.
        """
        name, operator = body["name"], await self._operator()
        changed = await self._apps.stop(name, operator=operator, reason=body.get("reason", ""))
        return answer(AppAskedDocument(schema=SCHEMA, name=name, changed=changed), 202 if changed else 200)

    async def start(self, _: web.Request, body: AppBody) -> web.Response:
        """Starts an app that was stopped.

        Answers at once: 202, or 200 where it was not stopped. Its state in the status says when it runs.
        """
        name, operator = body["name"], await self._operator()
        changed = await self._apps.start(name, operator=operator, reason=body.get("reason", ""))
        return answer(AppAskedDocument(schema=SCHEMA, name=name, changed=changed), 202 if changed else 200)

    async def signal(self, _: web.Request, body: SignalBody) -> web.Response:
        """Sends a signal to the main process of an app."""
        name, operator = body["name"], await self._operator()
        sent, pid = await self._apps.signal(name, body["signal"], operator=operator, reason=body.get("reason", ""))
        return answer(SignalDocument(schema=SCHEMA, name=name, signal=sent, pid=pid))
