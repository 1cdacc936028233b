"""Targets of notifications as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mountd.status.board import Board

_COUNTERS = {
    "messages": ("mountd_notify_messages", "Messages that were delivered to the target"),
    "failed": ("mountd_notify_failed", "Messages that were given up because the target refused them"),
    "dropped": ("mountd_notify_dropped", "Events that left the journal before they were delivered"),
}
_GAUGES = {
    "pending": ("mountd_notify_pending", "Events that wait to be sent to the target"),
    "failing": ("mountd_notify_failing", "1 while messages do not reach the target"),
}


class NotifyCollector(Collector):
    """One series for each target; none without targets."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        targets = self._board.snapshot.notify
        if not targets:
            return
        for field, (name, text) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=["target"])
            for target, status in targets.items():
                counter.add_metric([target], getattr(status, field))
            yield counter
        for field, (name, text) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=["target"])
            for target, status in targets.items():
                gauge.add_metric([target], float(getattr(status, field)))
            yield gauge
