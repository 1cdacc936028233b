"""What a version should hold and what the bucket holds → what is missing, what may not be sent, and why."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mountd.errors import Refused
from mountd.model import manifest

LONGEST_PART_BYTES = 255
"""A mount shows no longer name in a directory."""
_STAND_INS = "\u201b\uff0f\u2400"
_DOTS = ("\uff0e", "\uff0e\uff0e")
"""What rclone itself writes for characters that a store cannot hold: it reads them as those."""


@dataclass(frozen=True, slots=True)
class File:
    """Of the local directory; size in bytes, digests in hex."""

    size: int
    sha256: str
    md5: str


@dataclass(frozen=True, slots=True)
class Stored:
    """Of the bucket; `md5` is empty where the store reports none."""

    size: int
    md5: str = ""


@dataclass(frozen=True, slots=True)
class Bucket:
    """What the version's directory in the bucket holds now."""

    files: Mapping[str, Stored] = field(repr=False)
    manifest: bool
    markers: frozenset[str]

    @property
    def empty(self) -> bool:
        return not (self.files or self.manifest)


def place(remote: str, directory: str) -> str:
    """`remote:bucket/prefix` and a directory below it → where that is."""
    name, _, path = remote.partition(":")
    return f"{name}:" + "/".join(part for part in (path.rstrip("/"), directory) if part)


def key_prefix(remote: str, directory: str) -> str:
    """What the keys of objects in that directory begin with, without the bucket and the last slash."""
    return place(remote, directory).partition(":")[2].lstrip("/").partition("/")[2]


def bucket(entries: Iterable[Mapping[str, Any]]) -> Bucket:
    """From the entries of `rclone lsjson`."""
    found = {entry["Path"]: Stored(entry["Size"], (entry.get("Hashes") or {}).get("md5", "")) for entry in entries}
    markers = frozenset(path for path in found if manifest.is_marker(path))
    files = {path: stored for path, stored in found.items() if path not in markers and path != manifest.NAME}
    return Bucket(files, manifest.NAME in found, markers)


def copied(event: Mapping[str, Any]) -> str:
    """The path of the file that this record of rclone's log reports as sent; empty for other records.

    rclone 1.75: "Copied (new)", and "Multi-thread Copied (new)" from 256 MiB on.
    """
    return str(event.get("object", "")) if "Copied (" in str(event.get("msg", "")) else ""


def name_problem(path: str, prefix: str) -> str:
    """Why a file cannot become the object `prefix/path` under its own name; empty when it can."""
    try:
        key = f"{prefix}/{path}".encode()
    except UnicodeEncodeError:
        return f"{path!r} is not UTF-8"
    if any(unicodedata.category(character) == "Cc" for character in path):
        return f"{path!r} holds a line end or another control character"
    if any(character in path for character in _STAND_INS) or any(part in _DOTS for part in path.split("/")):
        return f"{path!r} holds a character that rclone uses as a stand-in for another"
    if len(key) > manifest.MAX_PATH_BYTES:
        return f"{path!r} is too long: with its directory {len(key)} bytes, of {manifest.MAX_PATH_BYTES} at most"
    if any(len(part.encode()) > LONGEST_PART_BYTES for part in path.split("/")):
        return f"{path!r} has a part of more than {LONGEST_PART_BYTES} bytes"
    if manifest.is_marker(path):
        return f"{path!r} is what mountd itself calls the mark of a version that is being published"
    return ""


def problems(wanted: Mapping[str, File], found: Mapping[str, Stored], sent: Mapping[str, str] | None) -> dict[str, str]:
    """Path → what is wrong with what the bucket holds there, in words; nothing for a file that it holds as wanted.

    Where the store reports no hash, `sent` decides: the sha256 of what this publisher has sent, by path. Without `sent`
    the size is enough there.
    """

    def problem(path: str, file: File) -> str:
        stored = found.get(path)
        if stored is None:
            return "is missing"
        if stored.size != file.size:
            return f"has {stored.size} bytes instead of {file.size}"
        if stored.md5:
            return "" if stored.md5 == file.md5 else f"has the MD5 {stored.md5} instead of {file.md5}"
        return "" if sent is None or sent.get(path) == file.sha256 else "may hold something else of the same size"

    described = {path: problem(path, file) for path, file in sorted(wanted.items())}
    return {path: text for path, text in described.items() if text}


def differences(data: bytes, version: str, wanted: Mapping[str, File]) -> list[str]:
    """How a manifest that is there already differs from what would be published, in words."""
    try:
        known = manifest.parse(data)
    except Refused as error:
        return [error.text]
    if known.version != version:
        return [f"{manifest.NAME} is of version {known.version}"]
    changes = [f"{path} is new" for path in sorted(wanted.keys() - known.files.keys())]
    changes += [f"{path} is gone" for path in sorted(known.files.keys() - wanted.keys())]
    return changes + [
        f"{path} {'differs' if path in known.sha256 else 'has no digest to compare with'}"
        for path, file in sorted(wanted.items())
        if path in known.files and (known.files[path], known.sha256.get(path)) != (file.size, file.sha256)
    ]
