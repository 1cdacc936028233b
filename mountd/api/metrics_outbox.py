"""The outboxes of the snapshot as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mountd.api.documents.outbox import age_s
from mountd.status.board import Board


class OutboxCollector(Collector):
    """Reads the board at each scrape; nothing without an outbox."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        outboxes = self._board.snapshot.outbox
        if not outboxes:
            return
        files = GaugeMetricFamily(
            "mountd_outbox_pending_files", "finished files that wait for their upload", labels=["outbox"]
        )
        size = GaugeMetricFamily("mountd_outbox_pending_bytes", "how many bytes these have", labels=["outbox"])
        uploaded = CounterMetricFamily(
            "mountd_outbox_uploaded_total", "verified uploads since there is this journal", labels=["outbox"]
        )
        failures = CounterMetricFamily(
            "mountd_outbox_failed_total",
            "uploads that failed since mountd has started; most are retried",
            labels=["outbox"],
        )
        failed = GaugeMetricFamily(
            "mountd_outbox_failed_files", "files that cannot be uploaded as they are", labels=["outbox"]
        )
        oldest = GaugeMetricFamily(
            "mountd_outbox_oldest_seconds",
            "how long the first of those that wait has waited, else 0",
            labels=["outbox"],
        )
        for name, outbox in outboxes.items():
            files.add_metric([name], outbox.pending)
            size.add_metric([name], outbox.pending_bytes)
            uploaded.add_metric([name], outbox.uploaded)
            failures.add_metric([name], outbox.failures)
            failed.add_metric([name], outbox.failed)
            oldest.add_metric([name], age_s(outbox.oldest) or 0.0)
        yield from (files, size, uploaded, failures, failed, oldest)
