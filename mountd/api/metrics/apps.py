"""Metrics of apps."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mountd.api.metrics.families import counter, gauge, states
from mountd.status.board import Board
from mountd.status.snapshot import State

APP = ("app",)


class AppCollector(Collector):
    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        apps, meters = self._board.snapshot.apps, self._board.meters.apps
        yield gauge(
            "mountd_app_up",
            "1 when the app runs and has become ready",
            APP,
            (((name,), app.state is State.RUNNING) for name, app in apps.items()),
        )
        yield states(
            "mountd_app_state",
            "1 for the present state of the app, 0 for the others",
            "app",
            State,
            ((name, app.state) for name, app in apps.items()),
        )
        yield gauge(
            "mountd_app_stopped_by_hand",
            "1 when a person has stopped the app: mountd does not start it again",
            APP,
            (((name,), app.stopped is not None) for name, app in apps.items()),
        )
        yield counter(
            "mountd_app_restarts_total",
            "How often the app came back although nobody had asked for a restart",
            APP,
            (((name,), meters[name].restarts.total) for name in apps),
        )
