"""What moved through the mounts in the last minutes, as a document."""

from __future__ import annotations

from collections.abc import Mapping

from typing_extensions import TypedDict

from mountd.api.documents import SCHEMA, Schema
from mountd.status.meters import TRAFFIC_INTERVAL_S, MountMeters
from mountd.status.snapshot import Snapshot


class MountTrafficDocument(TypedDict):
    """Oldest first, each of `interval_s` seconds, as many in each list; the last one is of now, the list is empty until
    the mount has run for the first time. Bytes from and to the bucket; `cache_limit_bytes` is null without a limit."""

    fetched_bytes_per_s: list[int]
    uploaded_bytes_per_s: list[int]
    cache_bytes: list[int]
    cache_limit_bytes: int | None


class TrafficDocument(Schema):
    """Of the last ten minutes."""

    interval_s: int
    mounts: dict[str, MountTrafficDocument]


def traffic(snapshot: Snapshot, meters: Mapping[str, MountMeters], now: float) -> TrafficDocument:
    """`now`: monotonic."""
    found = {}
    for name, mount in snapshot.mounts.items():
        samples = meters[name].traffic.last(now)
        found[name] = MountTrafficDocument(
            fetched_bytes_per_s=[round(each.fetched_bytes_per_s) for each in samples],
            uploaded_bytes_per_s=[round(each.uploaded_bytes_per_s) for each in samples],
            cache_bytes=[each.cache_bytes for each in samples],
            cache_limit_bytes=mount.cache.limit_bytes,
        )
    return TrafficDocument(schema=SCHEMA, interval_s=int(TRAFFIC_INTERVAL_S), mounts=found)
