"""Which versions are evicted from the cache: what lies there, what each model keeps → what goes; and whether there can
be room for another one. Decisions only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mountd.status.snapshot import size

RECENT_S = 24 * 3600.0
"""A version may have been read for the next switch: it stays a day after its last use."""


class VersionLayout(Protocol):
    """Where a model's versions lie; paths are relative to the mount."""

    @property
    def parent(self) -> str:
        """The directory whose entries name versions; empty for the root."""

    def version_of(self, name: str) -> str | None:
        """The version that an entry of `parent` stands for; None for anything else."""

    def directory(self, version: str) -> str: ...


@dataclass(frozen=True, slots=True)
class CachedVersion:
    """`directory` is relative to the mount; `bytes` on disk; `used_at`: when a file of it was opened or closed last, in
    seconds since 1970."""

    version: str
    directory: str
    bytes: int
    used_at: float


@dataclass(frozen=True, slots=True)
class CacheClaim:
    """What one model keeps in the cache of its mount.

    `needed` versions (live, previous, desired), cached or not, and of the others those used last, up to `keep` in
    all. Of a `paused` model nothing goes.
    """

    model: str
    layout: VersionLayout
    keep: int
    needed: frozenset[str]
    paused: bool = False
    pinned: frozenset[str] = frozenset()
    """versions with a copy elsewhere on this machine: the cache need not hold them"""


def plan(
    cached: Mapping[str, Sequence[CachedVersion]], claims: Sequence[CacheClaim], now: float
) -> list[CachedVersion]:
    """What goes, the one that was not used for longest first; `cached` is by model, `now` in seconds since 1970.

    `claims` are those of all models of one mount. Several may name the same directory: it goes when none keeps it.
    """
    kept = {each.directory for claim in claims for each in _kept(cached[claim.model], claim, now)}
    found = {each.directory: each for versions in cached.values() for each in versions}
    going = [each for each in found.values() if not any(_overlap(each.directory, other) for other in kept)]
    return sorted(going, key=lambda each: (each.used_at, each.version))


def _kept(cached: Sequence[CachedVersion], claim: CacheClaim, now: float) -> list[CachedVersion]:
    if claim.paused:
        return list(cached)
    cached = [each for each in cached if each.version not in claim.pinned]
    needed = [each for each in cached if each.version in claim.needed]
    others = sorted((each for each in cached if each.version not in claim.needed), key=lambda each: -each.used_at)
    recent = [each for each in others if now - each.used_at < RECENT_S]
    return needed + recent + others[: max(0, claim.keep - len(claim.needed))]


def _overlap(one: str, other: str) -> bool:
    """The same directory, or one of them lies in the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def room(version: str, needed: int, could_hold: int) -> str | None:
    """Why there can never be room for a version of `needed` bytes; None: there can.

    Nothing is fetched ahead of a switch: the app reads what it needs, and rclone lets go of what was not used for
    longest. So a version that is larger than the limits of the cache works, by fetching parts again. One that the disk
    could not hold if all else in the cache were gone would be fetched in circles, and nothing be left of the previous.
    """
    if needed <= could_hold:
        return None
    return (
        f"no room in the cache: version {version} has {size(needed)}, and its disk could hold {size(could_hold)}"
        " if all else in the cache were gone"
    )
