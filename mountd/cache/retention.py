"""Which versions leave the local cache: what lies there, what each model needs of it → what goes. Decisions only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

AHEAD_S = 24 * 3600.0
"""A version that was never live here may have been read for the next switch: it stays a day after its last use."""


@dataclass(frozen=True, slots=True)
class Cached:
    """A version with bytes in the cache. `directory` is relative to the mount; `used_at`: when a file of it was opened
    or closed last, in seconds since 1970."""

    version: str
    directory: str
    bytes: int
    used_at: float


@dataclass(frozen=True, slots=True)
class Claim:
    """One model on the mount: what of it lies in the cache, and what it holds on to.

    `needed` are versions that never go, cached or not: live, previous and desired. What is left of `keep` goes to those
    that were used last. `known` were live once. A `paused` model lets nothing go.
    """

    model: str
    cached: tuple[Cached, ...]
    keep: int
    needed: frozenset[str]
    known: frozenset[str]
    paused: bool = False


def plan(claims: Sequence[Claim], now: float) -> list[Cached]:
    """What goes, the one that was not used for longest first.

    `claims` are those of all models of one mount. Several may name the same directory: it goes when none keeps it.
    """
    kept = {each.directory for claim in claims for each in _kept(claim, now)}
    loose = {each.directory: each for claim in claims for each in claim.cached}
    going = [each for each in loose.values() if not any(_overlap(each.directory, other) for other in kept)]
    return sorted(going, key=lambda each: (each.used_at, each.version))


def _kept(claim: Claim, now: float) -> list[Cached]:
    if claim.paused:
        return list(claim.cached)
    needed = [each for each in claim.cached if each.version in claim.needed]
    others = sorted((each for each in claim.cached if each.version not in claim.needed), key=lambda each: -each.used_at)
    ahead = [each for each in others if each.version not in claim.known and now - each.used_at < AHEAD_S]
    lately = [each for each in others if each not in ahead]
    return needed + ahead + lately[: max(0, claim.keep - len(claim.needed))]


def _overlap(one: str, other: str) -> bool:
    """The same directory, or one of them lies in the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")
