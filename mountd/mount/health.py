"""Facts about a mount and the bucket behind it → a verdict → what to do, and what to report.

Two questions, never mixed: does the mount answer, and does the bucket? Only what is wrong with the mount itself
replaces it. A bucket that is slow, away or refusing is reported and waited for: a new rclone would start without the
directory cache of the old one, and nothing cached can be served without it.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, TypedDict, Unpack

from mountd.errors import Exhausted
from mountd.process.lifecycle import Life
from mountd.rclone.failures import classify
from mountd.status.snapshot import Health, MountStatus, Reason, RemoteStatus, State

SLOW_S = 4.0
"""A listing of the root takes one request; a store that needs longer than this for one is called slow."""
STALL_S = 60.0
"""A read that waits as long, from a bucket that is quick, while rclone moves no byte: rclone's own deadline for a
stalled transfer (`--timeout`) is 60 s, so after it rclone does not wake the reader up any more."""
LISTING_S = 600.0
"""The same for what waits for a listing: that moves no byte, and takes one request for each 1,000 objects."""
STALL_REPORTED_S = 15.0
"""A read that waits as long is reported; it is rclone's to give up on it first."""
LISTING_REPORTED_S = STALL_S
FAILED_READS = 2
"""One is repeated by rclone, and the reader does not even notice."""
FORGET_S = 60.0
"""Nobody has tried to read for so long: whether it would fail again is not known any more."""


class MountVerdict(StrEnum):
    """Why a mount has to be replaced: waiting would not make it serve again."""

    HUNG = "hung"
    DEAD = "dead"
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True, slots=True)
class BucketAnswers:
    """In monotonic seconds: when the bucket was asked what it last answered in time, and when it last failed to."""

    quick_at: float = -math.inf
    bad_at: float = -math.inf


@dataclass(frozen=True, slots=True)
class Liveness:
    """The history of the liveness probe, as far as it matters: `missed` in a row, the first sent at `since` (monotonic
    seconds); `gone` says why nothing serves there any more.

    `responsive`: rclone itself answers meanwhile. It may wait for the bucket, which it asks at `statfs` how much room
    there is, where the kind of store can say.
    """

    missed: int = 0
    gone: str = ""
    since: float = 0.0
    responsive: bool = False

    def is_hung(self, failures: int, answers: BucketAnswers, now: float) -> bool:
        """So many in a row are missed, and the bucket is no reason for it.

        It is none when it has answered a request sent since. After an outage rclone gets as long as it needs itself to
        give up on a connection that was lost.
        """
        waits = self.responsive and (answers.quick_at < self.since or now - answers.bad_at < STALL_S)
        return self.missed >= failures and not waits


@dataclass(frozen=True, slots=True)
class Stall:
    """Reads that do not advance: `reads` have been seen at every look from `since` to `seen` (monotonic seconds).

    A read is any key that stays the same as long as one and the same read is unanswered. An rclone that counts another
    error is responsive and tries again, for up to 80 s in one read of what a store lists but does not give (measured).
    """

    since: float = 0.0
    seen: float = 0.0
    reads: frozenset[str] = frozenset()
    moved_bytes: int = -1
    errors: int = 0

    def look(self, now: float, reads: Set[str], *, moved_bytes: int, bucket_quick: bool, errors: int = 0) -> Stall:
        """One more look. The time starts again when rclone has moved a byte or counted an error, or when the bucket is
        a reason to wait."""
        still = self.reads & reads
        if not still or not bucket_quick or (moved_bytes, errors) != (self.moved_bytes, self.errors):
            return Stall(now, now, frozenset(reads), moved_bytes, errors)
        return replace(self, seen=now, reads=still)

    @property
    def lasts_s(self) -> float:
        """Up to the last look: while nobody looks, the reads may have been answered."""
        return self.seen - self.since if self.reads else 0.0


@dataclass(frozen=True, slots=True)
class FailedReads:
    """Reads that fail although the bucket answers: rclone counts errors, and no byte arrives between them.

    `first` and `last` are its count before and now, `at` is when that last grew (monotonic seconds), `cause` its words.
    """

    moved_bytes: int = -1
    first: int = 0
    last: int = 0
    at: float = 0.0
    cause: str = ""

    def look(self, now: float, *, moved_bytes: int, errors: int, cause: str, bucket_quick: bool) -> FailedReads:
        """One more look; `cause` is empty when the last error is not one of a read. Errors of a bucket that does not
        answer are those of the bucket."""
        if not bucket_quick or not cause or moved_bytes != self.moved_bytes or errors < self.last:
            return FailedReads(moved_bytes, errors, errors, now)
        if errors > self.last:
            return replace(self, last=errors, at=now, cause=cause)
        return self if now - self.at < FORGET_S else FailedReads(moved_bytes, errors, errors, now)

    @property
    def have_begun(self) -> bool:
        return self.last > self.first

    @property
    def are_repeated(self) -> bool:
        return self.last - self.first >= FAILED_READS


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of a mount while it runs. No answer of the bucket alone is a reason to replace it."""

    liveness: Liveness = Liveness()
    answers: BucketAnswers = BucketAnswers()
    stall: Stall = Stall()
    listing: Stall = Stall()
    """what waits for a name or a listing, see `stalls.StalledReads`"""
    possible_stall: Stall = Stall()
    """what may wait for something else: it is reported, no more"""
    failed_reads: FailedReads = FailedReads()
    misconfigured: str = ""
    """what the mount shows or does otherwise than it was asked to"""
    restart: str = ""
    """why rclone, with which nothing is wrong, should be restarted"""


class FactChanges(TypedDict, total=False):
    """What a probe may report: some of the facts."""

    liveness: Liveness
    answers: BucketAnswers
    stall: Stall
    listing: Stall
    possible_stall: Stall
    failed_reads: FailedReads
    misconfigured: str
    restart: str


class Report(Protocol):
    def __call__(self, **changes: Unpack[FactChanges]) -> Facts:
        """Adds what a probe has seen to the facts; all of them as they are now."""


@dataclass(frozen=True, slots=True)
class Replace:
    """The mount must be replaced, and why."""

    verdict: MountVerdict
    text: str


@dataclass(frozen=True, slots=True)
class RestartRclone:
    """Nothing is wrong with the mount, but a new rclone is needed."""

    cause: str


def decide(name: str, facts: Facts, *, failures: int, now: float) -> Replace | RestartRclone | None:
    """What has to be done with mount `name`, if anything. `failures`: missed probes in a row that mean hung."""
    liveness = facts.liveness
    if liveness.gone:
        return Replace(MountVerdict.DEAD, f"mount {name} is dead: {liveness.gone}")
    if liveness.is_hung(failures, facts.answers, now):
        missed = f"{liveness.missed} liveness probes in a row were missed"
        return Replace(MountVerdict.HUNG, f"mount {name} is hung: {missed}")
    if facts.stall.lasts_s >= STALL_S or facts.listing.lasts_s >= LISTING_S:
        longest_s = max(facts.stall.lasts_s, facts.listing.lasts_s)
        stuck = f"a read waits for {longest_s:.0f} s although the bucket answers"
        return Replace(MountVerdict.HUNG, f"mount {name} is hung: {stuck}")
    if facts.misconfigured:
        text = f"mount {name} is not what was asked for: {facts.misconfigured}"
        return Replace(MountVerdict.MISCONFIGURED, text)
    return RestartRclone(facts.restart) if facts.restart else None


def explain(name: str, facts: Facts, *, known: Reason | None, lack: Exhausted | None) -> Reason | None:
    """Why mount `name`, which is not replaced, is not well. `known` is wrong with its cache or its uploads; `lack` is
    what a probe needs and the machine does not have."""
    if facts.liveness.missed:
        hint = "rclone itself answers: it may wait for its bucket" if facts.liveness.responsive else ""
        missed = facts.liveness.missed
        text = f"mount {name} did not answer {missed} liveness probe{'s' if missed > 1 else ''} in a row"
        return Reason("mount-silent", text, "mount", name, hint)
    if known is not None:
        return known
    if stuck := _stuck(facts, name):
        return stuck
    if lack is not None:
        return Reason(lack.code, f"cannot look after mount {name}: {lack.text}", "mount", name, lack.hint)
    if facts.failed_reads.are_repeated:
        failure = classify(facts.failed_reads.cause)
        text = f"reads through mount {name} fail, although the bucket can be listed: {failure.text}"
        return Reason("reads-failing", text, "mount", name, failure.hint)
    return None


def _stuck(facts: Facts, name: str) -> Reason | None:
    """What waits for so long that it is reported."""
    text, hint = f"a read through mount {name} waits, although the bucket answers", ""
    if facts.stall.lasts_s >= STALL_REPORTED_S:
        hint = "mountd replaces the mount when it lasts a minute"
    elif facts.listing.lasts_s >= LISTING_REPORTED_S:
        text = f"a listing, or what waits for one, lasts long on mount {name}"
        hint = "a directory takes one request for each 1,000 objects; mountd replaces the mount after ten minutes"
    elif facts.possible_stall.lasts_s >= STALL_REPORTED_S:
        text = f"a program that uses mount {name} waits for something, possibly for the mount"
        hint = "the kernel does not say for what: see with `cat /proc/PID/task/*/wchan`, as root"
    return Reason("read-stuck", text, "mount", name, hint) if hint else None


REFUSALS = frozenset({"access-denied", "credentials-expired", "clock-skew", "tls-failure"})
"""The bucket answered and said no: other credentials could change that."""
SLOW_HINT = "what is cached is served at full speed; look at the store's own status page and at the network"


def backend_status(remote: str, *, took_s: float, code: str = "", text: str = "", hint: str = "") -> RemoteStatus:
    """The bucket's answer as a status; `code` is empty when it gave what was asked."""
    if not code:
        if took_s < SLOW_S:
            return RemoteStatus(Health.HEALTHY)
        slow = Reason("bucket-slow", f"{remote} needs {took_s:.0f} s for one request", "bucket", remote, SLOW_HINT)
        return RemoteStatus(Health.DEGRADED, slow)
    health = Health.MISSING if code == "bucket-missing" else Health.DEGRADED
    return RemoteStatus(health, Reason(code, text, "bucket", remote, hint))


def fault(name: str, known: MountStatus, life: Life, reason: Reason | None, *, by_itself: bool) -> Reason | None:
    """What the mount went down for, known in the moment in which it stops running: what its end says later is less.

    `known`: its status until now; `by_itself`: mountd restarts rclone for a reason of its own.
    """
    if known.state is not State.RUNNING or life.state is State.RUNNING:
        return known.fault
    if not life.unasked:
        return None  # what was before is over
    if by_itself:
        return Reason("rclone-restarted", f"mountd restarted rclone of mount {name}: {life.cause}", "rclone", name)
    return reason
