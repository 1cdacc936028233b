"""Counts that only grow, and the last minutes of traffic: other packages fill them in; metrics and `traffic` show them.

What is true now stands in the snapshot. Here is what has happened since mountd started. A member that is removed and
added again under the same name counts on.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from mountd.status.snapshot import AppStatus, ModelStatus, MountStatus

TRAFFIC_INTERVAL_S = 5.0
TRAFFIC_KEPT = 120
"""Ten minutes."""
PROBE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
BUCKET_PROBE_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 4.0, 5.0, 10.0, 30.0)
"""With 4 s, beyond which a bucket is called slow: between bounds a quantile is only guessed."""
OPERATION_BUCKETS_S = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


@dataclass(slots=True)
class Tally:
    """A total over several runs of what is counted: each run counts from 0 again."""

    total: int = 0
    _last: int = 0

    def seen(self, count: int, *, is_new: bool | None = None) -> int:
        """The count of the present run is this much now; by how much the total has grown.

        `is_new`: whether another run has begun since the last call; None: it has when the count is lower than before.
        A count that is lower within one run adds nothing.
        """
        if count < self._last and is_new is None:
            is_new = True
        grown = max(0, count - (0 if is_new else self._last))
        self._last = count
        self.total += grown
        return grown


@dataclass(slots=True)
class DurationCounts:
    """How often something took how long. `counts[i]`: more than `bounds[i - 1]` seconds, and `bounds[i]` at most; the
    last one: longer than all of them."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total_s: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_s += seconds


@dataclass(frozen=True, slots=True)
class TrafficSample:
    """Of TRAFFIC_INTERVAL_S seconds; `cache_bytes` at their end."""

    fetched_bytes_per_s: float = 0.0
    uploaded_bytes_per_s: float = 0.0
    cache_bytes: int = 0


@dataclass(slots=True)
class Traffic:
    """The last ten minutes of one mount. What is reported at other times than each TRAFFIC_INTERVAL_S seconds is spread
    evenly over the time since the last report."""

    _samples: deque[TrafficSample] = field(default_factory=lambda: deque(maxlen=TRAFFIC_KEPT))
    _fetched: int = 0
    _uploaded: int = 0
    _until: float | None = None
    """up to when there are samples, monotonic"""
    _cache_bytes: int = 0

    def add(self, now: float, *, fetched: int, uploaded: int, cache_bytes: int) -> None:
        """So many bytes since the last call."""
        self._fetched += fetched
        self._uploaded += uploaded
        self._cache_bytes = cache_bytes
        if self._until is None:
            self._until = now - TRAFFIC_INTERVAL_S
        elapsed_s = now - self._until
        count = round(elapsed_s / TRAFFIC_INTERVAL_S)
        if not count:
            return  # it goes with the next report
        sample = TrafficSample(self._fetched / elapsed_s, self._uploaded / elapsed_s, cache_bytes)
        self._samples.extend([sample] * min(count, TRAFFIC_KEPT))
        self._fetched, self._uploaded, self._until = 0, 0, now

    def last(self, now: float) -> Sequence[TrafficSample]:
        """Oldest first. While nothing is reported nothing moves: there is no rclone, or it does not answer."""
        if self._until is None:
            return ()
        # One report is always due, and one may be late.
        missing = max(0, math.floor((now - self._until) / TRAFFIC_INTERVAL_S) - 1)
        still = TrafficSample(cache_bytes=self._cache_bytes)
        return [*self._samples, *[still] * min(missing, TRAFFIC_KEPT)][-TRAFFIC_KEPT:]


@dataclass(slots=True, eq=False)
class MountMeters:
    """Of one mount. `fetched` and `uploaded` are bytes from and to the bucket."""

    restarts: Tally = field(default_factory=Tally)
    probe: DurationCounts = field(default_factory=lambda: DurationCounts(PROBE_BUCKETS_S))
    """liveness probes that were answered"""
    missed_probes: int = 0
    bucket_probe: DurationCounts = field(default_factory=lambda: DurationCounts(BUCKET_PROBE_BUCKETS_S))
    """whatever the answer was"""
    failed_bucket_probes: int = 0
    fetched: int = 0
    uploaded: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    cache_bytes: int = 0

    def moved(self, now: float, *, fetched: int, uploaded: int) -> None:
        """So many bytes since the last call."""
        self.fetched += fetched
        self.uploaded += uploaded
        self.traffic.add(now, fetched=fetched, uploaded=uploaded, cache_bytes=self.cache_bytes)


@dataclass(slots=True, eq=False)
class ModelMeters:
    drifts: Tally = field(default_factory=Tally)
    heals: Tally = field(default_factory=Tally)


@dataclass(slots=True, eq=False)
class AppMeters:
    restarts: Tally = field(default_factory=Tally)


@dataclass(slots=True, eq=False)
class OperationMeters:
    """Of the operations that have finished, by kind."""

    durations: dict[str, DurationCounts] = field(default_factory=dict)
    results: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    """by kind and result"""

    def finished(self, kind: str, result: str, seconds: float | None) -> None:
        """`seconds` is None for one of a previous run: how long it took is not known."""
        self.results[kind, result] += 1
        if seconds is not None:
            self.durations.setdefault(kind, DurationCounts(OPERATION_BUCKETS_S)).add(seconds)


@dataclass(slots=True, eq=False)
class Meters:
    """Of the whole daemon."""

    mounts: dict[str, MountMeters] = field(default_factory=lambda: defaultdict(MountMeters))
    models: dict[str, ModelMeters] = field(default_factory=lambda: defaultdict(ModelMeters))
    apps: dict[str, AppMeters] = field(default_factory=lambda: defaultdict(AppMeters))
    operations: OperationMeters = field(default_factory=OperationMeters)
    event_streams: int = 0
    """clients that follow events now"""
    rclone: str = ""
    """its version"""
    certificate_expires: float | None = None
    """that of the TCP port; seconds since 1970. None: it has none"""

    def saw_mount(self, name: str, status: MountStatus) -> None:
        meters = self.mounts[name]
        meters.restarts.seen(status.unasked)
        meters.cache_bytes = status.cache.bytes_used

    def saw_model(self, name: str, status: ModelStatus) -> None:
        meters = self.models[name]
        meters.drifts.seen(status.drift.times)
        meters.heals.seen(status.drift.heals)

    def saw_app(self, name: str, status: AppStatus) -> None:
        self.apps[name].restarts.seen(status.unasked)
