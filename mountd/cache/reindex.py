"""What happens to rclone's index of a clean cached file before the next rclone starts. Decisions only.

rclone's index of a file (`Rs` in its metadata) says which of its bytes are in the cache. Measured with 1.75.2: rclone
writes it when it opens a file and when it closes it, and nothing in between. After a SIGKILL it knows nothing of what
was fetched since the file was opened, although the bytes are there. rclone compares no bytes: what the index claims is
served, after one look at the object's fingerprint.

So the index is repaired from what lies on disk, and trusted only as far as there is evidence for it: a digest, or that
only rclone has written to the file since it was last known to be right.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Ranges = tuple[tuple[int, int], ...]
"""Sorted, apart from each other: each from its first byte up to, not including, its last."""

MARGIN = 64 * 1024
"""At each edge of what the file system calls data, so much is not trusted: its last block may be filled in part."""
BUFFERED = 1024 * 1024
"""What rclone fetches of smaller files it writes as it comes from the network, in parts of blocks."""


class Origin(StrEnum):
    """What may have written to a file since it was last known to be right."""

    UNTOUCHED = "untouched"
    """nothing has"""
    RCLONE = "rclone"
    """rclone, and the machine has run since: what rclone wrote is what can be read"""
    UNRECORDED = "unrecorded"
    """rclone, under a mountd that kept no record of it"""
    UNKNOWN = "unknown"
    """another program, or the machine lost power before all of it was on disk"""


class IndexAction(StrEnum):
    KEEP = "keep"
    EXTEND = "extend"
    VERIFY = "verify"
    DROP = "drop"
    LEAVE = "leave"
    """mountd cannot judge it"""


@dataclass(frozen=True, slots=True)
class CachedFile:
    """One clean file. `index` is None where the record makes no sense; `extents` where holes are unknown."""

    size: int
    index: Ranges | None
    extents: Ranges | None
    origin: Origin
    has_digest: bool = False
    guessed: bool = False
    """its index was once extended without a digest"""
    proven: bool = False
    """as stamped, it had the digest of the manifest, holes included"""


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """`index` is for EXTEND, and for a VERIFY that there is no time for: None then means that the file is dropped."""

    action: IndexAction
    index: Ranges | None = None


def decide(found: CachedFile, *, may_guess: bool, writes_back: bool) -> IndexPlan:
    """`may_guess`: this rclone writes whole blocks, so what the file system reports of holes is right.

    `writes_back`: programs write to this mount. A record that makes no sense may be of a file that is not uploaded yet,
    so the file is left; data on disk may be what a program wrote, so no index is extended by it.

    A hole reads as zeros, and some are right: tar and rsync make them, and so do file systems that compress. Only the
    digest distinguishes these from what a loss of power or a wrong index leaves. Without one the file is dropped: a
    download is better than a wrong byte.
    """
    if found.index is None:
        return IndexPlan(IndexAction.LEAVE if writes_back else IndexAction.DROP)
    whole = ((0, found.size),)
    is_indexed = covers(found.index, whole)
    is_proven = found.proven and found.origin is Origin.UNTOUCHED
    claims_holes = found.extents is not None and not is_proven and not covers(found.extents, found.index)
    is_settled = is_indexed and not (found.guessed and found.has_digest)
    if found.origin is Origin.UNTOUCHED and is_settled and not claims_holes:
        return IndexPlan(IndexAction.KEEP)
    trusted = None if found.origin is Origin.UNKNOWN or claims_holes else found.index
    has_data = found.extents is not None and covers(found.extents, whole)
    if found.has_digest and (has_data or is_indexed or is_proven):
        return IndexPlan(IndexAction.VERIFY, trusted)
    if trusted is None:
        return IndexPlan(IndexAction.DROP)
    is_guessable = may_guess and not writes_back and found.size >= BUFFERED
    if is_guessable and found.extents is not None and found.origin in (Origin.UNTOUCHED, Origin.RCLONE):
        known = merged((*trusted, *inwards(found.extents)))
        if known != merged(trusted):
            return IndexPlan(IndexAction.EXTEND, known)
    return IndexPlan(IndexAction.KEEP)


def ranges(record: Mapping[str, Any], size: int) -> Ranges | None:
    """The index in a record of rclone's metadata, for a file of `size` bytes; None where it makes no sense.

    A record without a fingerprint is one: rclone would take whatever object there is for the one that was fetched.
    """
    of_object, _, _ = str(record.get("Fingerprint") or "").partition(",")
    if record.get("Size") != size or not of_object.isdecimal() or int(of_object) != size:
        return None
    given = record.get("Rs") or []
    if not isinstance(given, list):
        return None
    found = []
    for each in given:
        begin, length = (each.get("Pos"), each.get("Size")) if isinstance(each, dict) else (None, None)
        if type(begin) is not int or type(length) is not int or begin < 0 or length < 0 or begin + length > size:
            return None
        found.append((begin, begin + length))
    return merged(found)


def merged(given: Iterable[tuple[int, int]]) -> Ranges:
    """In order, with those joined that touch, and without the empty ones."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(each for each in given if each[0] < each[1]):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return tuple(found)


def covers(outer: Ranges, inner: Ranges) -> bool:
    """Whether all of `inner`, which may have empty ranges, lies in `outer`."""
    begins = [begin for begin, _ in outer]
    for begin, end in inner:
        at = bisect_right(begins, begin) - 1
        if begin < end and (at < 0 or end > outer[at][1]):
            return False
    return True


def without(outer: Ranges, inner: Ranges) -> Ranges:
    """What is in `outer` alone."""
    found: list[tuple[int, int]] = []
    for begin, end in merged(outer):
        at = begin
        for left, right in inner:
            if left < end and right > at:
                found.append((at, left))
                at = right
        found.append((at, end))
    return merged(found)


def inwards(extents: Ranges) -> Ranges:
    """Without their edges, where a page may be filled in part; the file itself begins at 0, and so does a page."""
    return merged((begin and begin + MARGIN, end - MARGIN) for begin, end in extents)
