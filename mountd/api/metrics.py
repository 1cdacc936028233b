"""The snapshot as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from mountd.api.metrics_outbox import OutboxCollector
from mountd.status import readiness
from mountd.status.board import Board

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class SnapshotCollector(Collector):
    """Reads the board at each scrape, so a metric never lags behind the status."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[GaugeMetricFamily]:
        snapshot = self._board.snapshot
        yield GaugeMetricFamily(
            "mountd_ready", "1 when everything configured is ready", value=float(readiness.is_ready(snapshot))
        )
        up = GaugeMetricFamily("mountd_mount_up", "1 when the mount runs and reads were proven", labels=["mount"])
        for name, mount in snapshot.mounts.items():
            up.add_metric([name], float(mount.usable))
        yield up


def render(board: Board) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SnapshotCollector(board))
    registry.register(OutboxCollector(board))
    return generate_latest(registry)
