"""Keys of a bucket that cannot be paths: objects that no mount can show as what they are. Decisions only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

LONGEST_NAME = 255
"""Bytes of one part of a path, by Linux."""
SHOWN = 10
EMPTY = "a part of its key is empty"
LONG = f"a part of its key has more than {LONGEST_NAME} bytes"
SHADOWS = "a directory has the same name"
EXCLUDED = ("//**", "**//**")
"""rclone lists a directory `/` for `/x`, and then the root cannot be read at all; `a//x` it shows as `a/a/x` (1.75.2).
The first pattern hides the directory, the second what is in one."""


@dataclass(frozen=True, slots=True)
class BucketEntry:
    """One entry of a listing; `path` is relative to what was listed, `size` is -1 for some directories."""

    path: str
    name: str
    size: int
    is_dir: bool


def unusable(items: Sequence[BucketEntry]) -> dict[str, str]:
    """Of a listing: each path that cannot be one, and why."""
    directories = {item.path for item in items if item.is_dir}
    found = ((item.path, _why(item, directories)) for item in items)  # one path may be listed twice, in any order
    return {path: why for path, why in found if why}


def _why(item: BucketEntry, directories: set[str]) -> str:
    parts = item.path.split("/")
    if "" in parts:
        return EMPTY
    if any(len(part.encode("utf-8", "surrogatepass")) > LONGEST_NAME for part in parts):
        return LONG
    return SHADOWS if not item.is_dir and item.path in directories else ""


def usable(items: Sequence[BucketEntry], found: Mapping[str, str]) -> list[BucketEntry]:
    """The listing without what `unusable` found in it; of a name that stands for both, the directory."""
    return [item for item in items if item.path not in found or (item.is_dir and found[item.path] == SHADOWS)]


def gone(known: Mapping[str, str], found: Mapping[str, str], directory: str, *, recursive: bool) -> list[str]:
    """Of what earlier listings found, the paths that are no longer in `found`, a new listing of `directory`."""
    above = f"{directory.strip('/')}/".lstrip("/")

    def is_listed(path: str) -> bool:
        return path.startswith(above) and (recursive or "/" not in path.removeprefix(above))

    return [path for path in known if path not in found and is_listed(path)]


def rules(found: Mapping[str, str]) -> list[str]:
    """What hides them from a mount: patterns for `--exclude`, besides EXCLUDED."""
    shadowed = (path for path, why in sorted(found.items()) if why == SHADOWS)
    return ["/" + re.sub(r"([*?\[\]{}\\])", r"\\\1", path) for path in shadowed]


def describe(found: Mapping[str, str]) -> list[str]:
    """Each with its reason, and how many more there are."""
    listed = [f"{path}{'…' if path.endswith('/') else ''}: {why}" for path, why in sorted(found.items())[:SHOWN]]
    return [*listed, f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else listed


def patterns(given: object) -> list[str]:
    """What a mount's option `exclude` holds."""
    if isinstance(given, str):
        return [given]
    return [str(each) for each in given] if isinstance(given, Iterable) else []
