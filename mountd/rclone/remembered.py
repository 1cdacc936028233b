"""What an rclone said that it can do, kept in mountd's cache directory: asking takes four starts of it, 0.3 s of CPU.

Only for a program itself: a script may run another rclone tomorrow and look the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mountd import __version__
from mountd.errors import MountdError
from mountd.rclone import private_file
from mountd.settings.load import places

T = TypeVar("T")
Version = tuple[int, int, int]
FileId = tuple[int, ...]

NAME = "rclone.json"
MOST = 4
"""rclones that are remembered."""
LIMIT_S = 1.0
"""For the disk of the cache directory, which may not answer: then rclone is asked."""
MOST_BYTES = 1024 * 1024
"""One rclone takes 60 kB."""
DOUBTFUL = (OSError, MountdError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What may come of a file that holds anything."""


@dataclass(frozen=True, slots=True)
class RcloneFeatures:
    """`flags` of a mount; options, and those of them that are passwords, by the `type` of a remote."""

    version: Version
    flags: frozenset[str] = frozenset()
    passwords: Mapping[str, frozenset[str]] = field(default_factory=dict)
    options: Mapping[str, frozenset[str]] = field(default_factory=dict)


def recall(path: Path, same: FileId) -> RcloneFeatures | None:
    """What the program at `path` said, if it is the `same` file still."""
    return _in_time(lambda: _parse(_read().get(str(path), {}), same))


def keep(path: Path, same: FileId, features: RcloneFeatures) -> None:
    """As far as the cache directory is there and its disk takes it."""
    _in_time(lambda: _keep(path, same, features))


def _in_time(work: Callable[[], T]) -> T | None:
    found: list[T] = []

    def run() -> None:
        # Whatever stands there: rclone itself knows better.
        with contextlib.suppress(*DOUBTFUL):
            found.append(work())

    thread = threading.Thread(target=run, daemon=True)
    with contextlib.suppress(RuntimeError):  # no thread is to be had
        thread.start()
        thread.join(LIMIT_S)
    return found[0] if found else None


def _directory() -> Path:
    return places(os.geteuid(), os.environ).cache


def _is_ours() -> bool:
    """Raises OSError."""
    status = os.lstat(_directory())
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _read() -> dict[str, Any]:
    """By path. Raises OSError, ValueError."""
    if not _is_ours():
        raise ValueError("somebody else may have put it there")
    with open(os.open(_directory() / NAME, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & 0o022 or status.st_size > MOST_BYTES:
            raise ValueError("somebody else may have written it")
        document = json.load(file)
    entries = document["programs"] if document["mountd"] == __version__ else {}
    return dict(entries)


def _keep(path: Path, same: FileId, features: RcloneFeatures) -> None:
    with open(path, "rb") as file:
        is_program = file.read(4) == b"\x7fELF"
    # A directory that is not there yet is made by whom it belongs to.
    if not is_program or not _is_ours():
        return
    entries: dict[str, Any] = {}
    with contextlib.suppress(*DOUBTFUL):
        entries = _read()
    entries.pop(str(path), None)
    kept = dict([*entries.items()][1 - MOST :])
    document = {"mountd": __version__, "programs": {**kept, str(path): _as_json(same, features)}}
    private_file.replace(_directory() / NAME, json.dumps(document))


def _as_json(same: FileId, features: RcloneFeatures) -> dict[str, Any]:
    named = {"passwords": features.passwords, "options": features.options}
    return {
        "same": same,
        "version": features.version,
        "flags": sorted(features.flags),
        **{key: {name: sorted(each) for name, each in known.items()} for key, known in named.items()},
    }


def _parse(entry: Mapping[str, Any], same: FileId) -> RcloneFeatures:
    """Raises ValueError, KeyError, TypeError, AttributeError."""
    if tuple(entry["same"]) != same:
        raise ValueError("it is another file by now")
    major, minor, patch = entry["version"]
    passwords, options = (
        {name: frozenset(each) for name, each in entry[key].items()} for key in ("passwords", "options")
    )
    return RcloneFeatures((int(major), int(minor), int(patch)), frozenset(entry["flags"]), passwords, options)
