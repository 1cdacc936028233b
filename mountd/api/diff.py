"""The route of `mountd diff`: wanted against live."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from mountd.api.documents import diff as documents
from mountd.api.documents.diff import DiffDocument
from mountd.api.documents.requests import DiffQuery
from mountd.api.history import answer
from mountd.api.roles import Route
from mountd.api.route import get
from mountd.operation.diff import FlagDifference, compare
from mountd.operation.switch import Operations
from mountd.status.board import Board

DifferingFlags = Callable[[str], Awaitable[Sequence[FlagDifference]]]
"""Of the rclone of this mount that runs."""


class DiffRoutes:
    def __init__(self, operations: Operations, board: Board, flags: DifferingFlags | None) -> None:
        """`flags` None: no rclone is asked."""
        self._operations = operations
        self._board = board
        self._flags = flags

    def reads(self) -> list[Route]:
        return [get("/api/v1/diff", self.diff, DiffQuery, {200: DiffDocument})]

    async def diff(self, _: web.Request, query: DiffQuery) -> web.Response:
        """What is wanted against what is live: versions, links, flags of rclone, processes."""
        wanted = query.get("model")
        names = [self._operations.model(wanted).name] if wanted is not None else list(self._board.snapshot.models)
        mounts = {self._board.snapshot.models[name].mount for name in names}
        flags = {mount: await self._flags(mount) for mount in mounts} if self._flags else {}
        snapshot = self._board.snapshot
        found = {name: compare(snapshot, name, flags) for name in names if name in snapshot.models}
        return answer(documents.diff({name: (snapshot.models[name].sync, each) for name, each in found.items()}))
