"""The stream of the dashboard: the status at each change and the events of the journal, on one connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from aiohttp import web

from mountd.api.connections import streaming
from mountd.api.documents import history
from mountd.api.documents.requests import StreamQuery
from mountd.api.documents.status import StatusDocument
from mountd.api.history import EVENT_STREAM, LOOK_S, STREAM_PAGE, last_seen, send
from mountd.api.peer import STILL_ADMITTED
from mountd.api.roles import Route
from mountd.api.route import get
from mountd.errors import MountdError
from mountd.journal.journal import EventRecord, Journal
from mountd.status.board import Board
from mountd.status.snapshot import Snapshot
from mountd.text import dumps

EACH_S = 0.5
"""Changes that come closer together are sent as one."""
AGAIN_S = 5.0
"""Seconds after which a journal that could not be read is asked again."""
ALIVE_S = 10.0
"""So often at least the status is sent: a page that gets nothing for longer knows that its data are old."""


class NewEvents:
    """Events after the id `after`, without it from now on; when the journal was replaced since, all of the new one.

    A journal that cannot be read has no events for now: the status says so, and is sent all the same.
    """

    def __init__(self, journal: Journal, after: int | None) -> None:
        self._journal = journal
        self._after = after
        self._seen: int | None = None
        self._read_at = 0.0
        self._failed = False
        self.written = journal.event_written()
        self.has_more = True

    async def read(self, now: float) -> Sequence[EventRecord]:
        """The next ones, STREAM_PAGE at most; `now`: monotonic, in seconds."""
        if not (self.has_more or self.written.done() or (self._failed and now - self._read_at >= AGAIN_S)):
            return ()
        self.written, self._read_at = self._journal.event_written(), now
        try:
            if self._seen is None:
                newest = await self._journal.last_event()
                self._seen = newest if self._after is None else self._after if self._after <= newest else 0
            found = await self._journal.events(self._seen, limit=STREAM_PAGE)
        except MountdError:
            self._failed, self.has_more = True, False
            return ()
        self._failed = False
        self._seen = found[-1].id if found else self._seen
        self.has_more = len(found) >= STREAM_PAGE
        return found


class LiveRoutes:
    """`status`: the document of the present snapshot."""

    def __init__(self, board: Board, journal: Journal, status: Callable[[], StatusDocument]) -> None:
        self._board = board
        self._journal = journal
        self._status = status
        self._made: tuple[Snapshot, float, bytes] | None = None
        """of which snapshot, when (monotonic, in seconds), as it is sent"""

    def reads(self) -> list[Route]:
        return [get("/api/v1/stream", self.stream, StreamQuery, {200: {EVENT_STREAM: str}})]

    async def stream(self, request: web.Request, query: StreamQuery) -> web.StreamResponse:
        """The status at each change and the events of the journal, as server-sent events.

        `status`: a status document, now, after each change, and every 10 seconds; `event`: those of the journal after
        the id `after`, without it only new ones. It ends when mountd stops, when the reader may not read any more, or
        reads nothing for 30 seconds.
        """
        with streaming(request):
            self._board.meters.event_streams += 1
            try:
                return await self._follow(request, NewEvents(self._journal, last_seen(request, query.get("after"))))
            finally:
                self._board.meters.event_streams -= 1

    async def _follow(self, request: web.Request, new: NewEvents) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "Cache-Control": "no-store"})
        await response.prepare(request)
        await send(request, response, b"retry: 1000\n\n")
        sent: Snapshot | None = None
        sent_at = 0.0
        while STILL_ADMITTED.get()():
            changed, now, data = self._board.change(), time.monotonic(), b""
            is_changed = self._board.snapshot is not sent and now - sent_at >= EACH_S
            if is_changed or now - sent_at >= ALIVE_S:
                sent = self._board.snapshot
                data = self._encoded(sent, now)
            # Each by itself: of a reader that is slow little more than one is held.
            for piece in (data, *map(_encoded, await new.read(now))):
                if piece:
                    await send(request, response, piece)
                    sent_at = now
            if self._board.snapshot.stopping:
                return response
            if self._board.snapshot is not sent:
                await asyncio.sleep(max(0.0, sent_at + EACH_S - time.monotonic()))
            elif not new.has_more:
                await asyncio.wait([changed, new.written], timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        return response

    def _encoded(self, snapshot: Snapshot, now: float) -> bytes:
        """Made once for all who read at about the same time: ages, and what processes print, change by themselves."""
        if self._made is None or self._made[0] is not snapshot or now - self._made[1] >= EACH_S:
            self._made = snapshot, now, f"event: status\ndata: {dumps(self._status())}\n\n".encode()
        return self._made[2]


def _encoded(event: EventRecord) -> bytes:
    return f"event: event\nid: {event.id}\ndata: {dumps(history.event(event))}\n\n".encode()
