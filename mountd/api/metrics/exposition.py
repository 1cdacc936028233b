"""All metrics as text, in Prometheus' format."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from mountd.api.metrics.apps import AppCollector
from mountd.api.metrics.models import ModelCollector
from mountd.api.metrics.mounts import MountCollector
from mountd.api.metrics.notify import NotifyCollector
from mountd.api.metrics.operations import OperationCollector
from mountd.api.metrics.outbox import OutboxCollector
from mountd.api.metrics.process import OwnProcessCollector
from mountd.api.metrics.service import ServiceCollector
from mountd.errors import MountdError
from mountd.journal.journal import Journal
from mountd.status.board import Board

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
JOURNAL_S = 1.0
"""A scrape does not wait longer for a journal that another program holds."""


class Metrics:
    """One collector for each part; `more` are those of parts that only some configurations have."""

    def __init__(self, board: Board, journal: Journal, more: Sequence[Collector] = ()) -> None:
        self._journal = journal
        self._models = ModelCollector(board)
        self._process = OwnProcessCollector()
        self._registry = CollectorRegistry(auto_describe=False)
        for collector in (
            ServiceCollector(board, journal),
            MountCollector(board),
            self._models,
            AppCollector(board),
            OperationCollector(board),
            NotifyCollector(board),
            OutboxCollector(board),
            self._process,
            *more,
        ):
            self._registry.register(collector)

    async def render(self) -> bytes:
        await self._process.look()
        try:
            async with asyncio.timeout(JOURNAL_S):
                self._models.quarantined = await self._journal.quarantined_counts()
        except (MountdError, TimeoutError):
            self._models.quarantined = None
        return generate_latest(self._registry)
