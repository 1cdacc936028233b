"""What a running rclone counts, of its mount (`vfs/stats`) and of all it does (`core/stats`): its JSON → types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from mountd.errors import Unavailable

T = TypeVar("T")

TRANSFERS_KEPT = 100
"""Of those that have ended."""


@dataclass(frozen=True, slots=True)
class DiskCacheStats:
    """rclone's cache on disk. `metadata` is the directory of its records; `uploads`: files that wait for their upload
    or are being uploaded. `limit_bytes` is None without one."""

    files: int
    used_bytes: int
    uploads: int
    metadata: str
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class VfsStats:
    """`disk_cache` is None when rclone runs without one, whatever its flags ask for."""

    disk_cache: DiskCacheStats | None

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Self:
        """Of the process's only VFS. Raises Unavailable when something is missing or of another type."""
        _field(answer, "vfs/stats", "metadataCache", dict)  # an answer without it says nothing of a cache either
        if "diskCache" not in answer:
            return cls(None)
        disk = _field(answer, "vfs/stats", "diskCache", dict)
        names = ("files", "bytesUsed", "uploadsQueued", "uploadsInProgress")
        files, used_bytes, queued, begun = (_field(disk, "vfs/stats", name, int) for name in names)
        metadata = _field(disk, "vfs/stats", "pathMeta", str)
        return cls(DiskCacheStats(files, used_bytes, queued + begun, metadata, _limit(answer)))


@dataclass(frozen=True, slots=True)
class CoreStats:
    """Since rclone's start, which was `age_s` seconds ago; `last_error` is empty when there was none. `listed`: entries
    that listings have given, 0 also of an rclone that does not count them. `moved_bytes`: fetched and uploaded.
    `uploading`: bytes so far of each upload under way, by its name.
    """

    moved_bytes: int
    errors: int
    last_error: str
    listed: int = 0
    age_s: float = 0.0
    uploading: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Self:
        """Raises Unavailable when something is missing or of another type."""
        error = _field(answer, "core/stats", "lastError", str) if "lastError" in answer else ""
        listed = _field(answer, "core/stats", "listed", int) if "listed" in answer else 0
        moved, errors = (_field(answer, "core/stats", name, int) for name in ("bytes", "errors"))
        age_s = answer.get("elapsedTime")
        running = _transfers(answer.get("transferring"))
        return cls(
            *(moved, errors, error, listed),
            age_s=float(age_s) if isinstance(age_s, int | float) else 0.0,
            uploading={each.name: each.moved_bytes for each in running if each.is_upload},
        )


@dataclass(frozen=True, slots=True)
class Transferred:
    """A transfer that has ended, or one under way; `begun` tells two of one file apart, and is empty while it runs."""

    name: str
    begun: str
    moved_bytes: int
    is_upload: bool


def transferred(answer: Mapping[str, Any]) -> list[Transferred]:
    """The last TRANSFERS_KEPT that have ended, as `core/transferred` shows them; what is no transfer is left out."""
    return _transfers(answer.get("transferred"))


def _transfers(found: object) -> list[Transferred]:
    rows = found if isinstance(found, list) else []
    return [
        Transferred(
            str(each.get("name", "")),
            str(each.get("started_at", "")),
            moved if isinstance(moved := each.get("bytes"), int) else 0,
            # What is read has no destination. rclone uploads from its cache: `:local{Dn7qA}:/var/cache/…` or a path.
            bool(each.get("dstFs")) and str(each.get("srcFs", "")).startswith((":local", "/")),
        )
        for each in rows
        if isinstance(each, dict)
    ]


def _limit(answer: Mapping[str, Any]) -> int | None:
    options = answer.get("opt")
    limit = options.get("CacheMaxSize") if isinstance(options, dict) else None
    return limit if isinstance(limit, int) and limit > 0 else None


def _field(answer: Mapping[str, Any], method: str, name: str, kind: type[T]) -> T:
    value = answer.get(name)
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise Unavailable(f"rclone does not answer: {method} has no valid {name}")
