"""Evicts versions beyond `keep` from rclone's cache while no rclone runs.

A running one may have any file open or mapped, and keeps its own account of what is cached: its own limit (`max_size`)
makes room.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from mountd.cache.layout import DATA, GONE, META, is_dirty, records
from mountd.cache.retention import CacheClaim, CachedVersion, plan
from mountd.errors import cause_of


def old_versions(
    cache: Path, remote: str, claims: Sequence[CacheClaim], now: float
) -> list[tuple[CachedVersion, str | None]]:
    """Evicts what no model on the mount of `remote` (`NAME:PATH`) keeps; `now` in seconds since 1970.

    Returns each version that is to go, with the cause for which it stays (files of it wait for upload, or the disk
    refuses), None when it is gone. Blocks, for some µs a file of the models' versions. Raises OSError when the cache
    cannot be listed.
    """
    done = []
    for root in _roots(cache, remote):
        cached = {claim.model: list(_versions(cache, root, claim)) for claim in claims}
        done += [(each, _evict(cache, f"{root}/{each.directory}")) for each in plan(cached, claims, now)]
    return done


def _roots(cache: Path, remote: str) -> list[str]:
    """Where rclone keeps the files of `remote`, below DATA and META: `NAME{HASH OF ITS FLAGS}/PATH`. Raises OSError."""
    name, _, path = remote.partition(":")
    found = []
    with contextlib.suppress(*GONE), os.scandir(cache / DATA) as entries:
        found = [each.name for each in entries if each.name == name or each.name.startswith(f"{name}{{")]
    return [os.path.join(each, path.strip("/")).rstrip("/") for each in sorted(found)]


def _versions(cache: Path, root: str, claim: CacheClaim) -> Iterator[CachedVersion]:
    """Raises OSError."""
    names: list[str] = []
    with contextlib.suppress(*GONE), os.scandir(cache / DATA / root / claim.layout.parent) as entries:
        names = [each.name for each in entries if each.is_dir(follow_symlinks=False)]
    for version in filter(None, map(claim.layout.version_of, names)):
        directory = claim.layout.directory(version)
        size = sum(each.st_blocks * 512 for each in _files(cache / DATA / root / directory))
        used_at = max((each.st_mtime for each in _files(cache / META / root / directory)), default=0.0)
        if size:
            yield CachedVersion(version, directory, size, used_at)


def _files(root: Path) -> Iterator[os.stat_result]:
    for parent, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(*GONE):
                yield os.lstat(os.path.join(parent, name))


def _evict(cache: Path, directory: str) -> str | None:
    """The cause for which it stays; None when it is gone."""
    data, meta = cache / DATA / directory, cache / META / directory
    try:
        if any(record is None or is_dirty(record) for _, record, _ in records(cache, meta)):
            return "files of it wait for upload"
        shutil.rmtree(data)
        with contextlib.suppress(*GONE):
            shutil.rmtree(meta)
    except OSError as error:
        return cause_of(error)
    return None
