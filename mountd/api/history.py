"""The routes of the past: operations and events from the journal, events also as a server-sent stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from aiohttp import web

from mountd.api.documents import history
from mountd.api.peer import STILL_ADMITTED
from mountd.errors import MountdError, NotFound, UsageError
from mountd.journal.journal import EventRecord, Journal
from mountd.operation.results import ResultStore
from mountd.status.board import Board
from mountd.text import dumps

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
MAX_ID = 2**63 - 1
"""What SQLite can compare with."""
STREAM_PAGE = 200
"""How many events a stream holds in memory at once: a reader that is slow gets the others from the journal later."""
KEEP_ALIVE_S = 15.0
LOOK_S = 1.0
"""How soon a stream notices that mountd stops."""
WRITE_LIMIT_S = 30.0
"""A reader that reads nothing for this long is disconnected; it reconnects with the last id it has."""
EVENT_STREAM = "text/event-stream"


class HistoryRoutes:
    def __init__(self, journal: Journal, board: Board, results: ResultStore) -> None:
        self._journal = journal
        self._board = board
        self._results = results

    def reads(self) -> list[web.RouteDef]:
        return [
            web.get("/api/v1/history", self.history),
            web.get("/api/v1/history/{id}", self.operation),
            web.get("/api/v1/events", self.events),
        ]

    async def history(self, request: web.Request) -> web.Response:
        """Newest first; `next` is the `before` of the next page, null on the last one."""
        query, limit = request.query, _limit(request)
        records = await self._results.history(
            query.get("model"),
            query.get("kind"),
            query.get("result"),
            limit=limit + 1,
            before=given(request, "before"),
        )
        return answer(history.page(records[:limit], more=len(records) > limit))

    async def operation(self, request: web.Request) -> web.Response:
        """One operation with its steps, and what a drill measured."""
        id_ = operation_id(request)
        record = await self._results.operation(id_)
        if record is None:
            raise NotFound(f"cannot find operation {id_}", hint="`mountd history` lists the ids")
        steps = await self._journal.steps(record.id)
        measured = await self._journal.drill(record.id) if record.kind == "drill" else None
        return answer(history.operation_details(record, steps, measured))

    # -- events ---------------------------------------------------------------------------------------------------

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Oldest first: those after the id `after`, without it the last ones; with `before` only those with a lower id.

        With `follow=1`, or where a stream of server-sent events is accepted, continues with new ones; `after` may be
        given as Last-Event-ID too, as a browser does when it reconnects.
        """
        after, limit = given(request, "after"), _limit(request)
        if request.query.get("follow") == "1" or EVENT_STREAM in request.headers.get("Accept", ""):
            return await self._stream(request, last_seen(request, after), limit)
        return answer(history.events(await self._read(request, after, limit, given(request, "before"))))

    async def _read(
        self, request: web.Request, after: int | None, limit: int, before: int | None = None
    ) -> Sequence[EventRecord]:
        code, object_ = request.query.get("code"), request.query.get("object")
        return await self._journal.events(after, limit=limit, before=before, code=code, object_=object_)

    async def _stream(self, request: web.Request, after: int | None, limit: int) -> web.StreamResponse:
        written = self._journal.event_written()
        newest = await self._journal.last_event()
        if after is not None and after > newest:
            after = 0  # of a journal that was lost: all of this one is new
        events = await self._read(request, after, limit if after is None else STREAM_PAGE)
        response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "Cache-Control": "no-store"})
        await response.prepare(request)
        await send(request, response, b"retry: 1000\n\n")
        seen, sent = newest if after is None else after, time.monotonic()
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
                    events = await self._read(request, seen, STREAM_PAGE)
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
    return _number(word, f"{word!r} as the id of an operation")


def last_seen(request: web.Request, after: int | None) -> int | None:
    """The id of the last event that the reader has, by its header or else `after`. Raises UsageError."""
    word = request.headers.get("Last-Event-ID", "")
    return _number(word, "the header Last-Event-ID: it is not the id of an event") if word else after


def _limit(request: web.Request) -> int:
    limit = given(request, "limit")
    return DEFAULT_LIMIT if limit is None else min(limit, MAX_LIMIT)


def given(request: web.Request, key: str) -> int | None:
    """A number of the query, None without it. Raises UsageError."""
    word = request.query.get(key)
    return None if word is None else _number(word, f"`{key}`: it is not a number from 0 on")


def _number(word: str, what: str) -> int:
    """Raises UsageError, "cannot use `what`"."""
    if not (word.isascii() and word.isdigit() and len(word) < 20 and int(word) <= MAX_ID):
        raise UsageError(f"cannot use {what}")
    return int(word)


def answer(document: Mapping[str, object], code: int = 200) -> web.Response:
    return web.json_response(document, status=code, dumps=dumps)
