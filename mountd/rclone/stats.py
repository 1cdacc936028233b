"""What a running rclone counts, of its mount (`vfs/stats`) and of all it does (`core/stats`): its JSON → types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from mountd.errors import Unavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DiskCacheStats:
    """rclone's cache on disk. `metadata` is the directory of its records; `uploads`: files that wait for their upload
    or are being uploaded."""

    files: int
    used_bytes: int
    uploads: int
    metadata: str


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
        return cls(DiskCacheStats(files, used_bytes, queued + begun, _field(disk, "vfs/stats", "pathMeta", str)))


@dataclass(frozen=True, slots=True)
class CoreStats:
    """Since rclone's start; `last_error` is empty when there was none. `listed`: entries that listings have given, 0
    also of an rclone that does not count them."""

    moved_bytes: int
    errors: int
    last_error: str
    listed: int = 0

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Self:
        """Raises Unavailable when something is missing or of another type."""
        error = _field(answer, "core/stats", "lastError", str) if "lastError" in answer else ""
        listed = _field(answer, "core/stats", "listed", int) if "listed" in answer else 0
        moved, errors = (_field(answer, "core/stats", name, int) for name in ("bytes", "errors"))
        return cls(moved, errors, error, listed)


def _field(answer: Mapping[str, Any], method: str, name: str, kind: type[T]) -> T:
    value = answer.get(name)
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise Unavailable(f"rclone does not answer: {method} has no valid {name}")
