"""The route of what moved through the mounts in the last minutes."""

from __future__ import annotations

import time

from aiohttp import web

from mountd.api.documents import traffic
from mountd.api.history import answer
from mountd.status.board import Board


class TrafficRoutes:
    def __init__(self, board: Board) -> None:
        self._board = board

    def reads(self) -> list[web.RouteDef]:
        return [web.get("/api/v1/traffic", self.traffic)]

    async def traffic(self, _: web.Request) -> web.Response:
        """Costs no question to any rclone: the probes of the mounts fill it in."""
        board = self._board
        return answer(traffic.traffic(board.snapshot, board.meters.mounts, time.monotonic()))
