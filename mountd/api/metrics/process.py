"""Metrics of the daemon's own process, as every program exports them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector


class OwnProcessCollector(Collector):
    """`look` reads them in a thread, from /proc, before each scrape."""

    def __init__(self) -> None:
        self._process: ProcessCollector | None = None
        self._found: Sequence[Metric] = ()

    async def look(self) -> None:
        self._found = await asyncio.to_thread(self._read)

    def _read(self) -> Sequence[Metric]:
        self._process = self._process or ProcessCollector(registry=None)
        return [*self._process.collect()]

    def collect(self) -> Sequence[Metric]:
        return self._found
