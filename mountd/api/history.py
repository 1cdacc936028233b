"""The routes of the past: operations and events from the journal, events also as a server-sent stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from aiohttp import web

from mountd.api.body import number
from mountd.api.connections import streaming
from mountd.api.documents import history
from mountd.api.documents.history import EventsDocument, HistoryDocument, OperationDetailsDocument
from mountd.api.documents.requests import EventsQuery, HistoryQuery, NoQuery
from mountd.api.peer import STILL_ADMITTED
from mountd.api.roles import Route
from mountd.api.route import get
from mountd.errors import MountdError, NotFound
from mountd.journal.journal import EventRecord, Journal
from mountd.operation.results import ResultStore
from mountd.status.board import Board
from mountd.text import dumps

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
STREAM_PAGE = 200
"""How many events a stream holds in memory at once: a reader that is slow gets the others from the journal later."""
KEEP_ALIVE_S = 15.0
LOOK_S = 1.0
"""How soon a stream notices that mountd stops."""
WRITE_LIMIT_S = 30.0
"""A reader that reads nothing for this long is disconnected; it reconnects with the last id it has."""
EVENT_STREAM = "text/event-stream"
ANSWER_BYTES = 4 * 1024 * 1024
"""Of events or lines in one answer."""
Shown = TypeVar("Shown", bound=Mapping[str, object])


class HistoryRoutes:
    def __init__(self, journal: Journal, board: Board, results: ResultStore) -> None:
        self._journal = journal
        self._board = board
        self._results = results

    def reads(self) -> list[Route]:
        events = {"application/json": EventsDocument, EVENT_STREAM: str}
        return [
            get("/api/v1/history", self.history, HistoryQuery, {200: HistoryDocument}),
            get("/api/v1/history/{id}", self.operation, NoQuery, {200: OperationDetailsDocument}),
            get("/api/v1/events", self.events, EventsQuery, {200: events}),
        ]

    async def history(self, _: web.Request, query: HistoryQuery) -> web.Response:
        """Operations, newest first.

        `next` is the `before` of the next page, null on the last one.
        """
        limit = _limit(query)
        records = await self._results.history(
            query.get("model"),
            query.get("kind"),
            query.get("result"),
            limit=limit + 1,
            before=query.get("before"),
        )
        return answer(history.page(records[:limit], more=len(records) > limit))

    async def operation(self, request: web.Request, _: NoQuery) -> web.Response:
        """One operation with its steps, and what a drill measured."""
        id_ = operation_id(request)
        record = await self._results.operation(id_)
        if record is None:
            raise NotFound(f"cannot find operation {id_}", hint="`mountd history` lists the ids")
        steps = await self._journal.steps(record.id)
        measured = await self._journal.drill(record.id) if record.kind == "drill" else None
        return answer(history.operation_details(record, steps, measured))

    # -- events ---------------------------------------------------------------------------------------------------

    async def events(self, request: web.Request, query: EventsQuery) -> web.StreamResponse:
        """Events, oldest first: those after the id `after`, without it the last ones; with `before` only those with a
        smaller id.

        An answer has 4 MiB at most: of those after an id the first ones, else the last ones.

        With `follow`, or where a stream of server-sent events is accepted, continues with new ones; `after` may be
        given as Last-Event-ID too, as a browser does when it reconnects.
        """
        after, limit = query.get("after"), _limit(query)
        if query.get("follow") or EVENT_STREAM in request.headers.get("Accept", ""):
            with streaming(request):
                return await self._stream(request, query, last_seen(request, after), limit)
        found = history.events(await self._read(query, after, limit, query.get("before")))
        # Who has asked from an id on asks again from the last one on; nothing in between may be missing.
        found["events"] = fitting(found["events"]) if after is not None else fitting(found["events"][::-1])[::-1]
        return answer(found)

    async def _read(
        self, query: EventsQuery, after: int | None, limit: int, before: int | None = None
    ) -> Sequence[EventRecord]:
        code, object_ = query.get("code"), query.get("object")
        return await self._journal.events(after, limit=limit, before=before, code=code, object_=object_)

    async def _stream(
        self, request: web.Request, query: EventsQuery, after: int | None, limit: int
    ) -> web.StreamResponse:
        written = self._journal.event_written()
        newest = await self._journal.last_event()
        if after is not None and after > newest:
            after = 0  # of a journal that was lost: all of this one is new
        events = await self._read(query, after, limit if after is None else STREAM_PAGE)
        response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "Cache-Control": "no-store"})
        await response.prepare(request)
        await send(request, response, b"retry: 1000\n\n")
        self._board.meters.event_streams += 1
        try:
            seen = newest if after is None else after
            return await self._follow(request, response, query, events, written=written, seen=seen)
        finally:
            self._board.meters.event_streams -= 1

    async def _follow(
        self,
        request: web.Request,
        response: web.StreamResponse,
        query: EventsQuery,
        events: Sequence[EventRecord],
        *,
        written: asyncio.Future[None],
        seen: int,
    ) -> web.StreamResponse:
        sent = time.monotonic()
        while True:
            for event in events:
                await send(request, response, _encoded(event))
                seen, sent = event.id, time.monotonic()
            if self._board.snapshot.stopping or not STILL_ADMITTED.get()():
                return response
            if len(events) < STREAM_PAGE:
                await asyncio.wait([written], timeout=LOOK_S)  # which never cancels what others wait for too
            if time.monotonic() - sent >= KEEP_ALIVE_S:
                await send(request, response, b":\n\n")
                sent = time.monotonic()
            if written.done() or len(events) >= STREAM_PAGE:
                written = self._journal.event_written()
                try:
                    events = await self._read(query, seen, STREAM_PAGE)
                except MountdError:  # of the journal: the reader reconnects, and gets the error then
                    return response
            else:
                events = []


async def send(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Raises ConnectionResetError when the reader has taken nothing for WRITE_LIMIT_S."""
    try:
        async with asyncio.timeout(WRITE_LIMIT_S):
            await response.write(data)
    except TimeoutError:
        if request.transport is not None:  # an orderly close would wait for the reader again
            request.transport.abort()
        raise ConnectionResetError("the reader of a stream takes nothing") from None


def _encoded(event: EventRecord) -> bytes:
    # JSON has no line breaks of its own, so one `data:` line holds it.
    return f"id: {event.id}\ndata: {dumps(history.event(event))}\n\n".encode()


def operation_id(request: web.Request) -> int:
    """The id in the path. Raises UsageError."""
    word = request.match_info["id"]
    return number(word, f"{word!r} as the id of an operation")


def last_seen(request: web.Request, after: int | None) -> int | None:
    """The id of the last event that the reader has, by its header or else `after`. Raises UsageError."""
    word = request.headers.get("Last-Event-ID", "")
    return number(word, "the header Last-Event-ID: it is not the id of an event") if word else after


def _limit(query: HistoryQuery | EventsQuery) -> int:
    return min(query.get("limit", DEFAULT_LIMIT), MAX_LIMIT)


def fitting(documents: Iterable[Shown]) -> list[Shown]:
    """The first ones that fit into an answer, one at least."""
    found: list[Shown] = []
    size = 0
    for document in documents:
        size += len(dumps(document).encode()) + 2  # with what stands between them
        if found and size > ANSWER_BYTES:
            break
        found.append(document)
    return found


def answer(document: Mapping[str, object], code: int = 200) -> web.Response:
    return web.json_response(document, status=code, dumps=dumps)
