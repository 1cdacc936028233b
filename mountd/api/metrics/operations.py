"""Metrics of operations: what runs, how long they take, and how they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mountd.api.metrics.families import counter, flag, gauge, histogram
from mountd.status.board import Board
from mountd.status.meters import OPERATION_BUCKETS_S, DurationCounts

KINDS = ("switch", "rollback", "warm", "drill")
RESULTS = ("committed", "failed", "rolled-back", "refused", "cancelled", "interrupted")
"""Of a drill that succeeds `passed` instead of `committed`."""
SCHEDULED = tuple(("schedule", result) for result in ("done", "failed", "missed"))
"""Of switches for a later time those that became none: of the others the switch counts."""


class OperationCollector(Collector):
    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        snapshot, meters = self._board.snapshot, self._board.meters.operations
        running = Counter(each.kind for each in snapshot.operations)
        yield gauge(
            "mountd_operations_running",
            "Operations that run now",
            ("kind",),
            (((kind,), running[kind]) for kind in dict.fromkeys((*KINDS, *running))),
        )
        yield gauge(
            "mountd_operation_progress_ratio",
            "How far the data of an operation that runs are loaded, from 0 to 1; absent where that is not known",
            ("kind", "model"),
            (((each.kind, each.model), each.percent / 100) for each in snapshot.operations if each.percent is not None),
        )
        yield flag("mountd_switches_scheduled", "Switches that wait for their time", len(snapshot.scheduled))
        none = DurationCounts(OPERATION_BUCKETS_S)
        yield histogram(
            "mountd_operation_duration_seconds",
            "How long operations took, whatever came of them",
            "kind",
            ((kind, meters.durations.get(kind, none)) for kind in dict.fromkeys((*KINDS, *meters.durations))),
        )
        known = [
            (kind, "passed" if (kind, result) == ("drill", "committed") else result)
            for kind in KINDS
            for result in RESULTS
        ]
        yield counter(
            "mountd_operations_total",
            "Operations that have finished",
            ("kind", "result"),
            ((each, meters.results.get(each, 0)) for each in dict.fromkeys((*known, *SCHEDULED, *meters.results))),
        )
