"""The route of what moved through the mounts in the last minutes."""

from __future__ import annotations

import time

from aiohttp import web

from mountd.api.documents import traffic
from mountd.api.documents.requests import NoQuery
from mountd.api.documents.traffic import TrafficDocument
from mountd.api.history import answer
from mountd.api.roles import Route
from mountd.api.route import get
from mountd.status.board import Board


class TrafficRoutes:
    def __init__(self, board: Board) -> None:
        self._board = board

    def reads(self) -> list[Route]:
        return [get("/api/v1/traffic", self.traffic, NoQuery, {200: TrafficDocument})]

    async def traffic(self, _: web.Request, __: NoQuery) -> web.Response:
        """What moved through each mount, and what its cache holds, in the last ten minutes."""
        # It costs no question to any rclone: the probes of the mounts fill it in.
        board = self._board
        return answer(traffic.traffic(board.snapshot, board.meters.mounts, time.monotonic()))
