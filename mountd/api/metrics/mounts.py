"""Metrics of mounts, of their caches and of the buckets behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mountd.api.metrics.families import counter, gauge, histogram, states
from mountd.status.board import Board
from mountd.status.meters import MountMeters
from mountd.status.snapshot import Health, MountStatus, State

MOUNT = ("mount",)


class MountCollector(Collector):
    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        mounts, meters = self._board.snapshot.mounts, self._board.meters.mounts

        def of(value: Callable[[MountStatus], float | None]) -> Iterator[tuple[tuple[str], float]]:
            found = (((name,), value(mount)) for name, mount in mounts.items())
            return ((labels, each) for labels, each in found if each is not None)

        def counted(value: Callable[[MountMeters], float]) -> Iterator[tuple[tuple[str], float]]:
            return (((name,), value(meters[name])) for name in mounts)

        yield gauge("mountd_mount_up", "1 when the mount runs and reads were proven", MOUNT, of(lambda it: it.usable))
        yield states(
            "mountd_mount_state",
            "1 for the present state of the mount's rclone, 0 for the others",
            "mount",
            State,
            ((name, mount.state) for name, mount in mounts.items()),
        )
        yield gauge(
            "mountd_mount_healthy",
            "1 when nothing is wrong with the mount, 0 also while it starts",
            MOUNT,
            of(lambda it: it.health is Health.HEALTHY),
        )
        yield counter(
            "mountd_mount_restarts_total",
            "How often rclone was replaced although nobody had asked for it",
            MOUNT,
            counted(lambda it: it.restarts.total),
        )
        yield histogram(
            "mountd_mount_probe_duration_seconds",
            "How long the liveness probes took that the mount answered",
            "mount",
            ((name, meters[name].probe) for name in mounts),
        )
        yield counter(
            "mountd_mount_probes_missed_total",
            "Liveness probes that the mount did not answer in time",
            MOUNT,
            counted(lambda it: it.missed_probes),
        )
        yield from self._bucket()
        yield from self._cache()
        yield counter(
            "mountd_mount_fetched_bytes_total",
            "Bytes that came from the bucket",
            MOUNT,
            counted(lambda it: it.fetched),
        )
        yield counter(
            "mountd_mount_uploaded_bytes_total",
            "Bytes that went to the bucket, also those of uploads that failed",
            MOUNT,
            counted(lambda it: it.uploaded),
        )

    def _bucket(self) -> Iterator[Metric]:
        mounts, meters = self._board.snapshot.mounts, self._board.meters.mounts
        known = {name: mount.backend for name, mount in mounts.items() if mount.backend.health is not Health.UNKNOWN}
        yield gauge(
            "mountd_bucket_up",
            "1 when the bucket behind the mount answered the last probe, also slowly; absent while no rclone runs",
            MOUNT,
            (
                ((name,), float(each.reason is None or each.reason.code == "bucket-slow"))
                for name, each in known.items()
            ),
        )
        yield histogram(
            "mountd_bucket_probe_duration_seconds",
            "How long the probes of the bucket took, whatever it answered",
            "mount",
            ((name, meters[name].bucket_probe) for name in mounts),
        )
        yield counter(
            "mountd_bucket_probes_failed_total",
            "Probes of the bucket that it refused, or did not answer in time",
            MOUNT,
            (((name,), meters[name].failed_bucket_probes) for name in mounts),
        )

    def _cache(self) -> Iterator[Metric]:
        mounts = self._board.snapshot.mounts
        yield gauge(
            "mountd_cache_bytes",
            "What the mount's cache holds on disk",
            MOUNT,
            (((name,), mount.cache.bytes_used) for name, mount in mounts.items()),
        )
        yield gauge(
            "mountd_cache_files",
            "Files in the mount's cache, also partly cached ones",
            MOUNT,
            (((name,), mount.cache.files) for name, mount in mounts.items()),
        )
        yield gauge(
            "mountd_cache_limit_bytes",
            "What the cache may hold by `max_size`; absent when only the free room of its disk limits it",
            MOUNT,
            (
                ((name,), mount.cache.limit_bytes)
                for name, mount in mounts.items()
                if mount.cache.limit_bytes is not None
            ),
        )
        yield gauge(
            "mountd_cache_usable",
            "1 when the cache is used; 0 when its disk is gone or full, or mountd does without it",
            MOUNT,
            (((name,), not mount.cache_broken and not mount.cache_bypassed) for name, mount in mounts.items()),
        )
        yield gauge(
            "mountd_uploads_pending",
            "Files in the cache that wait for their upload or are being uploaded",
            MOUNT,
            (((name,), mount.cache.uploads_queued) for name, mount in mounts.items()),
        )
