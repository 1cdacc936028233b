"""Metrics of outboxes."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mountd.api.documents.outbox import age_s
from mountd.api.metrics.families import counter, gauge
from mountd.status.board import Board
from mountd.status.snapshot import Health

OUTBOX = ("outbox",)


class OutboxCollector(Collector):
    """One sample for each outbox whose journal was read; no metric without an outbox."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        configured = self._board.snapshot.outbox
        if not configured:
            return
        # Before, its uploads would be 0, and a rate would take what the journal has of them for new ones.
        outboxes = {name: outbox for name, outbox in configured.items() if outbox.health is not Health.UNKNOWN}
        yield gauge(
            "mountd_outbox_pending_files",
            "Finished files that wait for their upload",
            OUTBOX,
            (((name,), outbox.pending) for name, outbox in outboxes.items()),
        )
        yield gauge(
            "mountd_outbox_pending_bytes",
            "Bytes of the files that wait for their upload",
            OUTBOX,
            (((name,), outbox.pending_bytes) for name, outbox in outboxes.items()),
        )
        yield counter(
            "mountd_outbox_uploaded_total",
            "Verified uploads since this journal exists",
            OUTBOX,
            (((name,), outbox.uploaded) for name, outbox in outboxes.items()),
        )
        yield counter(
            "mountd_outbox_failed_total",
            "Uploads that failed since mountd started; most are tried again",
            OUTBOX,
            (((name,), outbox.failures) for name, outbox in outboxes.items()),
        )
        yield gauge(
            "mountd_outbox_failed_files",
            "Files that cannot be uploaded as they are",
            OUTBOX,
            (((name,), outbox.failed) for name, outbox in outboxes.items()),
        )
        yield gauge(
            "mountd_outbox_oldest_seconds",
            "How long the first of the files that wait has waited, else 0",
            OUTBOX,
            (((name,), age_s(outbox.oldest) or 0.0) for name, outbox in outboxes.items()),
        )
