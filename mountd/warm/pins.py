"""Pinned versions as values: what can be pinned, the list and the record of a tree, and what fits on the disk."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mountd.errors import Refused
from mountd.settings import names
from mountd.status.snapshot import size as in_words
from mountd.text import printable, storable
from mountd.warm.plan import WantedFile

SCHEMA = 1
SHA256 = re.compile("[0-9a-f]{64}")
MAX_PATH_BYTES = 1024
"""The longest key of S3."""
MAX_NAME_BYTES = 255
"""The longest name that a file can have on Linux."""
SHOWN_CHARACTERS = 200
LIST, RECORD = "files", "json"
"""Kinds of what lies beside a tree."""
_PLAIN_PATH = re.compile(r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._+-]{1,255}(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._+-]{1,255})*")


@dataclass(frozen=True, slots=True)
class PinRecord:
    """Says that a tree is complete. `digest` is that of the version as its manifest has it, `list_sha256` that of the
    list of files beside the tree; `bytes` of all files together, what is shared with other versions included."""

    digest: str
    list_sha256: str
    bytes: int
    files: int
    pinned_at: str
    """UTC, ISO 8601"""


@dataclass(frozen=True, slots=True)
class PinUsage:
    """`bytes` of `objects` files, each once, and what is on disk of those being fetched; of each tree its record, by
    model and version; `free_bytes` and `total_bytes` of the file system."""

    objects: int
    bytes: int
    incoming_bytes: int
    free_bytes: int
    total_bytes: int
    trees: Mapping[tuple[str, str], PinRecord] = field(default_factory=dict)


class PinFit(StrEnum):
    FITS = "fits"
    AFTER_SWEEP = "after-sweep"
    """when what no version keeps is removed"""
    NO_ROOM = "no-room"


def check_names(model: str, version: str) -> None:
    """Raises Refused for what cannot name a directory of the store."""
    if not names.NAME.fullmatch(model):
        raise Refused(f"cannot pin {_shown(version)}: {_shown(model)} cannot be the name of a model")
    if not names.VERSION.fullmatch(version) or ".." in version:
        raise Refused(f"cannot pin {_shown(version)}: it cannot be the name of a version")


def beside(version: str, kind: str) -> str:
    """The name of what lies beside the tree of a version. No version begins with a dot, so it is never a tree."""
    return f".{version}.{kind}"


def version_beside(name: str) -> str | None:
    """The version whose list or record has this name; None for anything else."""
    version, _, kind = name.removeprefix(".").rpartition(".")
    is_one = name.startswith(".") and kind in (LIST, RECORD) and names.VERSION.fullmatch(version)
    return version if is_one else None


def needed(files: Iterable[WantedFile]) -> dict[str, int]:
    """The size of each object by its sha256, in the order of the files. Raises Refused for a file without one."""
    found: dict[str, int] = {}
    for each in files:
        if each.sha256 is None or not SHA256.fullmatch(each.sha256):
            raise _cannot(each.path, "its manifest does not give its sha256")
        if each.size < 0 or found.setdefault(each.sha256, each.size) != each.size:
            raise _cannot(each.path, f"it cannot have {each.size} bytes")
    return found


def checked(files: Iterable[WantedFile]) -> list[WantedFile]:
    """Sorted by path. Raises Refused when one of them would not lie below its tree, or two in the same place."""
    found = sorted(files, key=lambda each: each.path)
    if not found:
        raise Refused("cannot pin a version without files")
    needed(found)
    paths = {each.path for each in found}
    for before, each in zip([None, *found], found, strict=False):
        if problem := path_problem(each.path):
            raise _cannot(each.path, problem)
        if before is not None and before.path == each.path:
            raise _cannot(each.path, "it is named twice")
        above = each.path.rpartition("/")[0]
        while above:
            if above in paths:
                raise _cannot(each.path, f"{_shown(above)} is a file")
            above = above.rpartition("/")[0]
    return found


def path_problem(path: str) -> str:
    """Why this cannot be the path of a file below a tree; empty when it can."""
    if len(path) <= MAX_PATH_BYTES and _PLAIN_PATH.fullmatch(path):
        return ""  # nearly all of them, at once
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        return "its path is not text"
    if len(raw) > MAX_PATH_BYTES:
        return f"its path is longer than {MAX_PATH_BYTES} bytes"
    parts = raw.split(b"/")
    if any(part in (b"", b".", b"..") for part in parts):
        return "its path has an empty part, a . or a .."
    if any(len(part) > MAX_NAME_BYTES for part in parts):
        return f"a part of its path is longer than {MAX_NAME_BYTES} bytes"
    if any(character in path for character in "\0\n\r"):
        return "its path holds a line end or NUL"
    return ""


def listing(files: Iterable[WantedFile]) -> bytes:
    """A line `path\\tsize\\tsha256` each, as the digest of a version is made of: with all files of a manifest, and no
    other, its sha256 is that digest."""
    return "".join(f"{each.path}\t{each.size}\t{each.sha256}\n" for each in files).encode()


def parse_line(line: bytes) -> WantedFile:
    """Raises ValueError."""
    path, size, sha256 = line.decode().removesuffix("\n").rsplit("\t", 2)
    return WantedFile(path, int(size), sha256)


def parse_listing(lines: Iterable[bytes]) -> Iterator[WantedFile]:
    """Raises ValueError."""
    return map(parse_line, lines)


def kept(
    records: Mapping[tuple[str, str], PinRecord], model: str, needed: Collection[str], keep: int
) -> set[tuple[str, str]]:
    """Which trees stay: all of other models; of `model` the `needed` versions, and those pinned last, up to `keep`."""
    others = {each for each in records if each[0] != model}
    own = {each for each in records if each[0] == model}
    first = {(model, version) for version in needed}
    spare = sorted(own - first, key=lambda each: records[each].pinned_at, reverse=True)
    return others | (own & first) | {*spare[: max(0, keep - len(needed))]}


def ahead(records: Mapping[str, PinRecord], live: str) -> set[str]:
    """Of the pinned versions of a model those loaded ahead of a switch: pinned after the live one. If that is not
    pinned, all of them."""
    since = records[live].pinned_at if live in records else ""
    return {version for version, record in records.items() if record.pinned_at > since}


def render_record(record: PinRecord) -> bytes:
    document = {
        "schema": SCHEMA,
        "digest": record.digest,
        "list_sha256": record.list_sha256,
        "bytes": record.bytes,
        "files": record.files,
        "pinned_at": record.pinned_at,
    }
    return json.dumps(document).encode() + b"\n"


def parse_record(data: bytes) -> PinRecord | None:
    """None for what is torn, or was written by nobody."""
    try:
        match json.loads(data):
            case {
                "schema": 1,
                "digest": str(digest),
                "list_sha256": str(list_sha256),
                "bytes": int(count),
                "files": int(files),
                "pinned_at": str(pinned_at),
            } if SHA256.fullmatch(list_sha256):
                return PinRecord(digest, list_sha256, count, files, pinned_at)
    except (ValueError, RecursionError):
        pass
    return None


def fit(needed_bytes: int, free_bytes: int, could_go_bytes: int, reserve_bytes: int) -> PinFit:
    """Whether so much more has room, when `reserve_bytes` are to stay free; `could_go_bytes` is what a sweep frees."""
    if needed_bytes <= free_bytes - reserve_bytes:
        return PinFit.FITS
    return PinFit.AFTER_SWEEP if needed_bytes <= free_bytes + could_go_bytes - reserve_bytes else PinFit.NO_ROOM


def no_room(version: str, needed_bytes: int, free_bytes: int, could_go_bytes: int, reserve_bytes: int) -> str | None:
    """Why a version, of which `needed_bytes` lie not here yet, can have no room; None: it can."""
    if fit(needed_bytes, free_bytes, could_go_bytes, reserve_bytes) is not PinFit.NO_ROOM:
        return None
    could = f", and {in_words(could_go_bytes)} more when versions go that nothing keeps" if could_go_bytes else ""
    return (
        f"no room to pin {version}: {in_words(needed_bytes)} of it are to be fetched, and its disk has"
        f" {in_words(max(0, free_bytes - reserve_bytes))} to spare{could}"
    )


def _cannot(path: str, why: str) -> Refused:
    return Refused(f"cannot pin {_shown(path)}: {why}")


def _shown(text: str) -> str:
    return printable(storable(text, SHOWN_CHARACTERS))
