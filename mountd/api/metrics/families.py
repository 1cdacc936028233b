"""How a metric is made: its name, what it means, and its samples by label."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import Enum

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from mountd.status.meters import DurationCounts

Samples = Iterable[tuple[Sequence[str], float]]
"""The values of the labels, and the value."""


def gauge(name: str, means: str, labels: Sequence[str], samples: Samples) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, means, labels=labels)
    for values, value in samples:
        family.add_metric(values, float(value))
    return family


def flag(name: str, means: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    return GaugeMetricFamily(name, means, value=float(value))


def counter(name: str, means: str, labels: Sequence[str], samples: Samples) -> CounterMetricFamily:
    """`name` ends in `_total`."""
    family = CounterMetricFamily(name, means, labels=labels)
    for values, value in samples:
        family.add_metric(values, float(value))
    return family


def info(name: str, means: str, labels: Sequence[str], rows: Iterable[Sequence[str]]) -> GaugeMetricFamily:
    """Always 1: its labels say it. `name` ends in `_info`."""
    return gauge(name, means, labels, ((row, 1.0) for row in rows))


def states(name: str, means: str, label: str, kinds: type[Enum], rows: Iterable[tuple[str, Enum]]) -> GaugeMetricFamily:
    """Of each row (the value of `label`, and its state) one sample for each state there is: 1 for the present one."""
    samples = (((value, str(kind.value)), float(kind is present)) for value, present in rows for kind in kinds)
    return gauge(name, means, (label, "state"), samples)


def histogram(name: str, means: str, label: str, rows: Iterable[tuple[str, DurationCounts]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, means, labels=(label,))
    for value, durations in rows:
        buckets, sum_so_far = [], 0
        for bound, count in zip((*durations.bounds, math.inf), durations.counts, strict=True):
            sum_so_far += count
            buckets.append((str(bound) if bound < math.inf else "+Inf", float(sum_so_far)))
        family.add_metric((value,), buckets, durations.total_s)
    return family
