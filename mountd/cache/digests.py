"""The digests that manifests give, kept beside the cache: before a start no bucket can be asked for them."""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import heapq
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from mountd.cache.layout import GONE, raises

DIRECTORY = "digests"
MOST = 32
"""Versions; of more, those that were kept first are forgotten."""
MOST_BYTES = 64 * 1024 * 1024
MANIFEST = "MANIFEST.json"

Digests = Mapping[str, tuple[int, str]]
"""Size in bytes and sha256 in hex, by path."""


def keep(cache: Path, directory: str, document: Path) -> None:
    """A copy of the file `document`: `{"directory": …, "files": {path: [bytes, sha256], …}}`, of `directory` of the
    mount. Blocks. Raises OSError."""
    place = cache / DIRECTORY
    place.mkdir(mode=0o700, exist_ok=True)
    name = hashlib.sha256(directory.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    path = place / f"{name}.json"
    with contextlib.suppress(OSError):
        if filecmp.cmp(path, document, shallow=False):
            os.utime(path)
            return
    new = path.with_name(f"{path.name}.new")
    with open(document, "rb") as source, open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as to:
        shutil.copyfileobj(source, to)  # piece by piece: it may have 15 MB
    os.replace(new, path)
    for forgotten in _newest(place)[MOST:]:
        forgotten.unlink(missing_ok=True)


def read(cache: Path, unreadable: Callable[[OSError], None] = raises) -> dict[str, tuple[int, str]]:
    """All that are kept, by their path below the mount. What makes no sense is left out. Blocks.

    `unreadable` is called with an OSError, and raises it; else what cannot be read is left out.
    """
    found: dict[str, tuple[int, str]] = {}
    try:
        paths = _newest(cache / DIRECTORY)[:MOST]
    except OSError as error:
        unreadable(error)
        paths = []
    for path in reversed(paths):
        try:
            with open(path, "rb") as file:
                content = file.read(MOST_BYTES)
        except OSError as error:
            unreadable(error)
            continue
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            document = json.loads(content)
            for name, (size, sha256) in document["files"].items():
                found[f"{document['directory']}/{name}"] = (int(size), str(sha256))
    return found


def of_manifest(content: bytes, directory: str) -> dict[str, tuple[int, str]]:
    """What a manifest says of the files below `directory`, where it lies; nothing for one that makes no sense."""
    try:
        files = json.loads(content)["files"]
        return {f"{directory}/{each['path']}": (int(each["size"]), str(each["sha256"]).lower()) for each in files}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}


def of(digests: Digests, name: str, size: int) -> str:
    """The one of a cached file, whose path has the remote and the bucket in front; empty where there is none."""
    while name:
        known = digests.get(name)
        if known is not None and known[0] == size:
            return known[1]
        name = name.partition("/")[2]
    return ""


def _newest(place: Path) -> list[Path]:
    """Raises OSError."""
    aged = []
    with contextlib.suppress(*GONE), os.scandir(place) as entries:
        for entry in entries:
            with contextlib.suppress(*GONE):
                if entry.name.endswith(".json"):
                    aged.append((entry.stat().st_mtime_ns, Path(entry.path)))
    return [path for _, path in heapq.nlargest(2 * MOST, aged)]
