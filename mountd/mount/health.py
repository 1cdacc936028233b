"""Two questions, never mixed: does the mount answer, and does the bucket behind it; answers over time → a verdict.

Only what is wrong with the mount itself replaces it. A bucket that is slow, away, or says no is told and waited for: a
new rclone would begin without the directory cache of the old one, without which nothing cached can be served.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass, field, replace
from enum import StrEnum

from mountd.status.snapshot import Health, Reason, RemoteStatus

SLOW_S = 4.0
"""A listing of the root takes one request; a store that needs longer than this for one is called slow."""
STALL_S = 60.0
"""A read that waits as long, from a bucket that is quick, while rclone moves no byte: rclone's own deadline for a
stalled transfer (`--timeout`) is 60 s, so after it nobody in there is going to wake the reader up."""
LISTING_S = 600.0
"""The same for what waits for a listing: that moves no byte, and takes one request for each 1,000 objects."""
FAILED_READS = 2
"""One is repeated by rclone, and the reader does not even notice."""
FORGET_S = 60.0
"""Nobody has tried to read for so long: whether it would fail again is not known any more."""


class Verdict(StrEnum):
    HEALTHY = "healthy"
    SUSPECTED = "suspected"
    SLOW = "slow"
    OUTAGE = "outage"
    REFUSED = "refused"
    MISSING = "missing"
    HUNG = "hung"
    DEAD = "dead"
    LYING = "lying"

    @property
    def replaces(self) -> bool:
        """Whether the mount has to be replaced: nothing that serves again would come of waiting."""
        return self in (Verdict.HUNG, Verdict.DEAD, Verdict.LYING)


@dataclass(frozen=True, slots=True)
class Beats:
    """The history of the beat, as far as it matters: how many in a row went unanswered, and whether it is over."""

    missed: int = 0
    gone: str = ""

    def answered(self) -> Beats:
        return Beats()

    def unanswered(self) -> Beats:
        return replace(self, missed=self.missed + 1)

    def broken(self, cause: str) -> Beats:
        """An error instead of silence: nothing serves there any more."""
        return replace(self, gone=cause)


@dataclass(frozen=True, slots=True)
class Answers:
    """Of the bucket, in monotonic seconds: when it was asked what it last answered in time, and when it last failed
    to."""

    quick_at: float = -math.inf
    bad_at: float = -math.inf


@dataclass(frozen=True, slots=True)
class Silence:
    """Beats that go unanswered since `since` (monotonic seconds) on a mount whose `statfs` may ask the bucket: how much
    room it has is asked of it by rclone, where the kind of store can tell. `awake`: rclone itself answers meanwhile."""

    since: float = 0.0
    awake: bool = False

    def is_the_buckets(self, answers: Answers, now: float) -> bool:
        """Whether rclone may be waiting for the bucket.

        Not when that has answered a question put since. After an outage rclone gets as long as it needs itself to give
        up on a connection that was lost.
        """
        return self.awake and (answers.quick_at < self.since or now - answers.bad_at < STALL_S)


@dataclass(frozen=True, slots=True)
class Stall:
    """Reads that wait in vain: `readers` have been seen at every look since `since` (monotonic seconds).

    A reader is any key that stays the same as long as one and the same read is unanswered. An rclone that counts
    another error is awake and tries again, for up to 80 s in one read of what a store lists but does not give [T].
    """

    since: float = 0.0
    readers: frozenset[str] = frozenset()
    moved_bytes: int = -1
    errors: int = 0

    def look(self, now: float, readers: Set[str], *, moved_bytes: int, bucket_quick: bool, errors: int = 0) -> Stall:
        """One more look. It begins anew when rclone has moved a byte or counted an error, or when the bucket is a
        reason to wait."""
        still = self.readers & readers
        if not still or not bucket_quick or (moved_bytes, errors) != (self.moved_bytes, self.errors):
            return Stall(now, frozenset(readers), moved_bytes, errors)
        return replace(self, readers=still)

    def lasts_s(self, now: float) -> float:
        return now - self.since if self.readers else 0.0


@dataclass(frozen=True, slots=True)
class Reads:
    """Reads that fail although the bucket answers: rclone counts errors, and no byte arrives between them.

    `first` and `last` are its count before and now, `at` is when that last grew (monotonic seconds), `cause` its words.
    """

    moved_bytes: int = -1
    first: int = 0
    last: int = 0
    at: float = 0.0
    cause: str = ""

    def look(self, now: float, *, moved_bytes: int, errors: int, cause: str, bucket_quick: bool) -> Reads:
        """One more look; `cause` is empty when the last error is not one of a read. Errors of a bucket that does not
        answer are those of the bucket."""
        if not bucket_quick or not cause or moved_bytes != self.moved_bytes or errors < self.last:
            return Reads(moved_bytes, errors, errors, now)
        if errors > self.last:
            return replace(self, last=errors, at=now, cause=cause)
        return self if now - self.at < FORGET_S else Reads(moved_bytes, errors, errors, now)

    @property
    def failing(self) -> bool:
        return self.last - self.first >= FAILED_READS


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of a mount while it runs; `lie` says what it shows or does otherwise than asked."""

    beats: Beats = Beats()
    silence: Silence = Silence()
    bucket: RemoteStatus = field(default_factory=RemoteStatus)
    answers: Answers = Answers()
    stall: Stall = Stall()
    listing: Stall = Stall()
    """what waits for a name or a listing, see `readers.Waiting`"""
    perhaps: Stall = Stall()
    """what may wait for something else: it is told, no more"""
    reads: Reads = Reads()
    lie: str = ""

    def is_silent(self, failures: int, now: float) -> bool:
        """So many beats in a row are unanswered, and the bucket is no reason for it."""
        return self.beats.missed >= failures and not self.silence.is_the_buckets(self.answers, now)


def verdict(facts: Facts, *, failures: int, now: float) -> Verdict:
    """The worst that the facts say; the mount itself first. `failures`: beats in a row that mean hung."""
    if facts.beats.gone:
        return Verdict.DEAD
    if facts.is_silent(failures, now):
        return Verdict.HUNG
    if facts.stall.lasts_s(now) >= STALL_S or facts.listing.lasts_s(now) >= LISTING_S:
        return Verdict.HUNG
    if facts.lie:
        return Verdict.LYING
    if facts.beats.missed:
        return Verdict.SUSPECTED
    return _of_bucket(facts.bucket)


_MISSING = frozenset({"bucket-missing"})
_REFUSED = frozenset({"access-denied", "credentials-expired", "clock-skew", "tls-failure"})
_SLOW = frozenset({"bucket-slow"})


def _of_bucket(bucket: RemoteStatus) -> Verdict:
    if bucket.reason is None:
        return Verdict.HEALTHY
    if bucket.reason.code in _MISSING:
        return Verdict.MISSING
    if bucket.reason.code in _REFUSED:
        return Verdict.REFUSED
    return Verdict.SLOW if bucket.reason.code in _SLOW else Verdict.OUTAGE


def backend_status(remote: str, *, took_s: float, code: str = "", text: str = "", hint: str = "") -> RemoteStatus:
    """The bucket's answer as a status; `code` is empty when it gave what was asked."""
    if not code:
        if took_s < SLOW_S:
            return RemoteStatus(Health.HEALTHY)
        slow = Reason("bucket-slow", f"{remote} needs {took_s:.0f} s for one request", "bucket", remote, SLOW_HINT)
        return RemoteStatus(Health.DEGRADED, slow)
    health = Health.MISSING if code in _MISSING else Health.DEGRADED
    return RemoteStatus(health, Reason(code, text, "bucket", remote, hint))


SLOW_HINT = "what is cached goes on at full speed; look at the store's own status page and at the network"


def is_refusal(code: str) -> bool:
    """The bucket answered and said no: other credentials could change that."""
    return code in _REFUSED
