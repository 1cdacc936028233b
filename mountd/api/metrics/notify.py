"""Metrics of targets of notifications."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mountd.api.metrics.families import counter, gauge
from mountd.status.board import Board

TARGET = ("target",)


class NotifyCollector(Collector):
    """One sample for each target; none without targets."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        targets = self._board.snapshot.notify
        if not targets:
            return
        yield counter(
            "mountd_notify_messages_total",
            "Messages that were delivered to the target",
            TARGET,
            (((name,), target.messages) for name, target in targets.items()),
        )
        yield counter(
            "mountd_notify_failed_total",
            "Messages that were given up because the target refused them",
            TARGET,
            (((name,), target.failed) for name, target in targets.items()),
        )
        yield counter(
            "mountd_notify_dropped_total",
            "Events that left the journal before they were delivered",
            TARGET,
            (((name,), target.dropped) for name, target in targets.items()),
        )
        yield gauge(
            "mountd_notify_pending",
            "Events that wait to be sent to the target",
            TARGET,
            (((name,), target.pending) for name, target in targets.items()),
        )
        yield gauge(
            "mountd_notify_failing",
            "1 while messages do not reach the target",
            TARGET,
            (((name,), target.failing) for name, target in targets.items()),
        )
