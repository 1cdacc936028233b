"""What a complete version holds: `MANIFEST.json`, its digest, and how it compares with what is there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mountd.errors import Refused

NAME = "MANIFEST.json"
SCHEMA = 1
MAX_BYTES = 16 * 1024 * 1024
"""A line of about 150 bytes a file: room for 100,000 files."""
SHOWN = 3
MARKER = ".mountd-publishing-"
"""What an object at the root of a version is called, followed by an id, as long as the version is being published."""
_SHA256 = re.compile("[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """`files` maps each path below the version's directory to its size in bytes, `sha256` to its digest where given."""

    version: str
    files: Mapping[str, int]
    sha256: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


def parse(data: bytes) -> Manifest:
    """Raises Refused, in words, for anything that is not a whole manifest of schema 1."""
    try:
        document = json.loads(data)
        if type(document["schema"]) is not int or document["schema"] != SCHEMA:  # `true` equals 1 in Python
            raise Refused(f"cannot read {NAME}: schema {document['schema']!r} is not {SCHEMA}")
        files = {entry["path"]: entry["size"] for entry in document["files"]}
        digests = {entry["path"]: entry["sha256"] for entry in document["files"] if "sha256" in entry}
        version = document["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refused(f"cannot read {NAME}: it is truncated or not a manifest ({type(error).__name__})") from None
    if not isinstance(version, str):
        raise Refused(f"cannot read {NAME}: its version is {version!r}, not a text")
    if not all(isinstance(path, str) and path and type(size) is int and size >= 0 for path, size in files.items()):
        raise Refused(f"cannot read {NAME}: each file needs a path and a size")
    if not all(isinstance(each, str) and _SHA256.fullmatch(each) for each in digests.values()):
        raise Refused(f"cannot read {NAME}: a sha256 is 64 hexadecimal digits")
    return Manifest(version, files, {path: each.lower() for path, each in digests.items()})


def render(version: str, files: Iterable[tuple[str, int, str]], *, created: str, tool: str) -> bytes:
    """The bytes of a manifest: each file's path, size in bytes and sha256 in hex, sorted by path.

    The same content gives the same bytes, but for `created` and `tool`.
    """
    entries = [{"path": path, "size": size, "sha256": sha256} for path, size, sha256 in sorted(files)]
    document = {"schema": SCHEMA, "version": version, "created": created, "tool": tool, "files": entries}
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def is_marker(path: str) -> bool:
    """Whether this object says that its version is being published, or that this was interrupted."""
    return path.startswith(MARKER) and "/" not in path


def digest(data: bytes) -> str:
    """Digest of a version that has a manifest: sha256 of the manifest's bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def listing_digest(files: Mapping[str, int]) -> str:
    """Digest of a version without a manifest: sha256 of its sorted `path\\tsize\\n` lines. Shown as unverified."""
    lines = "".join(f"{path}\t{size}\n" for path, size in sorted(files.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def compare(wanted: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """What is wrong with `found` (path → bytes), in words; files beyond the manifest are nobody's business."""
    problems = [f"{path} is missing" for path in wanted if path not in found]
    problems += [
        f"{path} has {found[path]} bytes instead of {size}"
        for path, size in wanted.items()
        if path in found and found[path] != size
    ]
    return problems


def summary(problems: list[str]) -> str:
    more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more
