"""What a running rclone counts, of its mount (`vfs/stats`) and of all it does (`core/stats`): its JSON → types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from mountd.errors import Unavailable


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
    """`disk_cache` is None when rclone runs without one, whatever its flags ask for.

    `known_entries`: files and directories in its directory cache.
    """

    disk_cache: DiskCacheStats | None
    known_entries: int

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Self:
        """Of the process's only VFS. Raises Unavailable when something is missing or of another type."""
        known = _section(answer, "vfs/stats", "metadataCache")
        if "diskCache" not in answer:
            return cls(None, _number(known, "vfs/stats", "files"))
        disk = _section(answer, "vfs/stats", "diskCache")
        files, used_bytes, queued, begun = (
            _number(disk, "vfs/stats", name) for name in ("files", "bytesUsed", "uploadsQueued", "uploadsInProgress")
        )
        cache = DiskCacheStats(files, used_bytes, queued + begun, _text(disk, "vfs/stats", "pathMeta"))
        return cls(cache, _number(known, "vfs/stats", "files"))


@dataclass(frozen=True, slots=True)
class CoreStats:
    """Since rclone's start; `last_error` is empty when there was none."""

    moved_bytes: int
    errors: int
    last_error: str

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Self:
        """Raises Unavailable when something is missing or of another type."""
        error = _text(answer, "core/stats", "lastError") if "lastError" in answer else ""
        return cls(_number(answer, "core/stats", "bytes"), _number(answer, "core/stats", "errors"), error)


def _section(answer: Mapping[str, Any], method: str, name: str) -> Mapping[str, Any]:
    value = answer.get(name)
    if isinstance(value, dict):
        return value
    raise _malformed(method, name)


def _number(answer: Mapping[str, Any], method: str, name: str) -> int:
    value = answer.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _malformed(method, name)


def _text(answer: Mapping[str, Any], method: str, name: str) -> str:
    value = answer.get(name)
    if isinstance(value, str):
        return value
    raise _malformed(method, name)


def _malformed(method: str, name: str) -> Unavailable:
    return Unavailable(f"rclone does not answer: {method} has no valid {name}")
