"""What a daemon shows at `/metrics`, as a person or Prometheus gets it."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.daemon import Daemon

SCRAPE_S = 30.0


@dataclass(frozen=True, slots=True)
class Scrape:
    text: str

    @property
    def families(self) -> list[Metric]:
        return list(text_string_to_metric_families(self.text))

    def samples(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """By labels: `(("mount", "storage"),)`."""
        return {
            tuple(sorted(each.labels.items())): each.value
            for family in self.families
            for each in family.samples
            if each.name == name
        }

    def value(self, name: str, **labels: str) -> float:
        """Of the one sample with exactly these labels. Raises KeyError."""
        return self.samples(name)[tuple(sorted(labels.items()))]


def scrape(daemon: Daemon) -> Scrape:
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.http_port}/metrics", timeout=SCRAPE_S) as answer:
        return Scrape(answer.read().decode())
