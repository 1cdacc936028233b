"""The route of what mounts and apps print: the last lines, and new ones as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from aiohttp import web

from mountd.api.connections import streaming
from mountd.api.documents import SCHEMA, history
from mountd.api.documents.history import LineDocument, LogsDocument
from mountd.api.documents.requests import LogsQuery
from mountd.api.history import answer, fitting, send
from mountd.api.peer import STILL_ADMITTED
from mountd.api.roles import Route
from mountd.api.route import get
from mountd.errors import NotFound, UsageError
from mountd.process.child import RING_LINES, Line, Ring
from mountd.status.board import Board
from mountd.text import did_you_mean, dumps

MAX_SINCE_S = 1e9
FOLLOW_LINES = 1000
DEFAULT_LINES = 100
JSON_LINES = "application/x-ndjson"


class LogRoutes:
    def __init__(self, board: Board, rings: Mapping[str, Ring]) -> None:
        self._board = board
        self._rings = rings

    def reads(self) -> list[Route]:
        found = {"application/json": LogsDocument, JSON_LINES: LineDocument}
        return [get("/api/v1/logs", self.logs, LogsQuery, {200: found})]

    async def logs(self, request: web.Request, query: LogsQuery) -> web.StreamResponse:
        """The last lines that mounts and apps printed, oldest first, 4 MiB at most.

        With `follow` a stream: one JSON object a line, until the client closes it or mountd stops.
        """
        rings = self._rings
        name = query.get("name")
        if name is not None and name not in rings:
            raise NotFound(f"cannot find {name}", hint=f"{did_you_mean(name, rings)}names: {', '.join(rings)}")
        chosen = {name: rings[name]} if name is not None else rings
        since_s = min(MAX_SINCE_S, query["since"]) if "since" in query else None
        previous, follow = query.get("previous", False), query.get("follow", False)
        # --since means all of that time
        count = min(RING_LINES, query.get("lines", DEFAULT_LINES if since_s is None else RING_LINES))
        if previous:
            _check_previous(name, chosen, follow=follow)
        found = (
            (owner, line)
            for owner, ring in chosen.items()
            for line in (ring.previous if previous else ring.last)(count, since_s)
        )
        # Not by the time that is shown: that clock may have been set back.
        lines = [history.line(*each) for each in sorted(found, key=lambda each: each[1].at)[-count:]]
        if not follow:
            return answer(LogsDocument(schema=SCHEMA, logs=fitting(reversed(lines))[::-1]))
        with streaming(request):
            return await self._follow(request, chosen, lines)

    async def _follow(
        self, request: web.Request, chosen: Mapping[str, Ring], lines: list[LineDocument]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": JSON_LINES})
        await response.prepare(request)
        queue: asyncio.Queue[LineDocument] = asyncio.Queue(FOLLOW_LINES)

        def keep(owner: str, line: Line) -> None:
            if queue.full():  # a reader that is too slow loses the oldest, not the daemon its memory
                queue.get_nowait()
            queue.put_nowait(history.line(owner, line))

        stops = [ring.follow(partial(keep, owner)) for owner, ring in chosen.items()]
        try:
            for line in lines:
                await send(request, response, _encoded(line))
            while not self._board.snapshot.stopping and STILL_ADMITTED.get()():
                try:
                    async with asyncio.timeout(1.0):
                        line = await queue.get()
                except TimeoutError:
                    continue
                await send(request, response, _encoded(line))
        finally:
            for stop in stops:
                stop()
        return response


def _check_previous(name: str | None, chosen: Mapping[str, Ring], *, follow: bool) -> None:
    """Raises UsageError, NotFound."""
    if follow:
        raise UsageError(
            "cannot follow the output of a process that has exited", hint="leave out --previous or --follow"
        )
    if name is not None and chosen[name].life < 2:
        raise NotFound(
            f"cannot find a previous process of {name}: mountd has started {chosen[name].life or 'none'}",
            hint=f"`mountd logs {name}` shows what there is; what was before mountd itself started stands in its log",
        )


def _encoded(line: Mapping[str, object]) -> bytes:
    return dumps(line).encode() + b"\n"
