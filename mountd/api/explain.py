"""The route of `mountd explain`: why mountd is not ready, Degraded or OutOfSync, and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping

from aiohttp import web

from mountd import codes
from mountd.api.documents import explain as documents
from mountd.api.documents.explain import ExplainDocument
from mountd.api.documents.requests import ExplainQuery
from mountd.api.documents.status import said
from mountd.api.history import answer
from mountd.api.roles import Route
from mountd.api.route import get
from mountd.clock import now, parse
from mountd.errors import MountdError
from mountd.i18n import ENGLISH, translation
from mountd.journal.journal import Journal, OperationRecord
from mountd.journal.records import CRASHED, STARTED, EventRecord
from mountd.operation.plan import HARMLESS
from mountd.operation.results import ResultStore
from mountd.process.child import Ring
from mountd.status import readiness
from mountd.status.board import Board
from mountd.status.explain import explain
from mountd.status.grounds import Background, FailedChange
from mountd.status.snapshot import CHANGES, Reason, Snapshot
from mountd.text import object_of

JOURNAL_S = 2.0
"""A journal that answers later than that is left out: the explanation lacks times, not its cause."""
LATELY_S = 24 * 3600.0
"""An operation that failed is of interest for so long, or until the next one."""
CRASH_S = 600.0
"""After a start of mountd."""
APP_BEGINS = ("app-running", "app-start-asked", "restart-requested")
"""Events of an app after which its next start has a reason of its own."""
ASKED = 8
"""Reasons whose beginning is looked up."""
OPERATIONS = 20
FAILED = frozenset({"rolled-back", "failed", "interrupted"})
SWITCH_FAILED = "switch-failed"
ENDS = 20
"""Events that may each be the end of a reason."""


class ExplainRoutes:
    def __init__(
        self, board: Board, journal: Journal, results: ResultStore, rings: Mapping[str, Ring], started: float
    ) -> None:
        """`started`: of the daemon, monotonic."""
        self._board = board
        self._journal = journal
        self._results = results
        self._rings = rings
        self._started = started

    def reads(self) -> list[Route]:
        return [get("/api/v1/explain", self.explain, ExplainQuery, {200: ExplainDocument})]

    async def explain(self, _: web.Request, query: ExplainQuery) -> web.Response:
        """The root cause of what is wrong, the chain that leads to it, and the next command."""
        language = translation(query.get("lang", ENGLISH))
        translate = language.text if language.language != ENGLISH else str
        background = await self._background(self._board.snapshot)
        return answer(documents.explain(explain(self._board.snapshot, background, translate)))

    async def _background(self, snapshot: Snapshot) -> Background:
        since: dict[tuple[str, str], str] = {}
        failed: list[FailedChange] = []
        crash, restarted = "", frozenset[str]()
        with contextlib.suppress(TimeoutError, MountdError):  # of the journal, which the status reports
            async with asyncio.timeout(JOURNAL_S):
                crash, restarted = await self._crash(snapshot)
                failed = [each async for each in self._failed(snapshot)]
                for reason in readiness.reasons(snapshot)[:ASKED]:
                    if began := await self._since(reason):
                        since[reason.code, reason.object] = began
        return Background(dict(self._said(snapshot)), since, failed, crash, restarted)

    def _said(self, snapshot: Snapshot) -> Iterator[tuple[str, list[str]]]:
        for things in (snapshot.mounts, snapshot.apps):
            for name, thing in things.items():
                yield name, [line["text"] for line in said(thing, self._rings.get(name))]

    async def _since(self, reason: Reason) -> str:
        """When it began; empty where the journal does not say, or only of an incident that is over."""
        if reason.layer in ("mount", "app") or reason.code == SWITCH_FAILED:
            return ""  # events with such a code are of states, whose time the facts have, and of operations
        known = codes.CODES.get(reason.code)
        for event in await self._journal.events(limit=1, code=reason.code, object_=reason.object):
            for over in known.healed_by if known else ():
                ends = await self._journal.events(event.id, limit=ENDS, code=over, object_=reason.object)
                if any(object_of(each.data).get(codes.OF, reason.code) == reason.code for each in ends):
                    return ""
            return event.time
        return ""

    async def _crash(self, snapshot: Snapshot) -> tuple[str, frozenset[str]]:
        """What the journal says of the end of the previous run, soon after a start; and the apps whose start does not
        follow from it."""
        nothing = "", frozenset[str]()
        if time.monotonic() - self._started > CRASH_S:
            return nothing
        crashed, started = await self._journal.last_of(CRASHED), await self._journal.last_of(STARTED)
        # It is written just before the start.
        if crashed is None or started is None or not 0 < started.id - crashed.id <= ASKED:
            return nothing
        return crashed.text, frozenset([name async for name in self._restarted(snapshot, started)])

    async def _restarted(self, snapshot: Snapshot, started: EventRecord) -> AsyncIterator[str]:
        """Apps that have run since `started`, or that a person or an operation has started or restarted."""
        changed = {name for name in snapshot.models if await self._has_changed(name, started)}
        for name, app in snapshot.apps.items():
            last = await self._journal.last_of(*APP_BEGINS, object_=name)
            if (last is not None and last.id > started.id) or not changed.isdisjoint(app.needs):
                yield name

    async def _has_changed(self, model: str, started: EventRecord) -> bool:
        """Whether an operation that was begun since then has touched the apps of the model."""
        return any(
            each.kind in CHANGES and each.step not in HARMLESS and parse(each.started) >= parse(started.time)
            for each in await self._results.history(model, limit=OPERATIONS)
        )

    async def _failed(self, snapshot: Snapshot) -> AsyncIterator[FailedChange]:
        for name in snapshot.models:
            found = await self._results.history(name, limit=OPERATIONS)
            last = next((each for each in found if each.kind in CHANGES and each.finished), None)
            if last is not None and last.result in FAILED and _is_recent(last):
                yield _failed_change(last)


def _is_recent(record: OperationRecord) -> bool:
    return record.finished is not None and (now() - parse(record.finished)).total_seconds() < LATELY_S


def _failed_change(record: OperationRecord) -> FailedChange:
    return FailedChange(
        record.id,
        record.model,
        record.to_version,
        str(record.result),
        record.cause,
        record.hint,
        record.operator,
        str(record.finished),
    )
