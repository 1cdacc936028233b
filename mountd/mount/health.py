"""Two questions, never mixed: does the mount answer, and does the bucket behind it; answers over time → a verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from mountd.status.snapshot import Health, Reason, RemoteStatus

SLOW_S = 4.0
"""A listing of the root takes one request; a store that needs longer than this for one is called slow."""


class Verdict(StrEnum):
    HEALTHY = "healthy"
    SUSPECTED = "suspected"
    HUNG = "hung"
    DEAD = "dead"


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

    def verdict(self, failures: int) -> Verdict:
        if self.gone:
            return Verdict.DEAD
        if self.missed >= failures:
            return Verdict.HUNG
        return Verdict.SUSPECTED if self.missed else Verdict.HEALTHY


_MISSING = frozenset({"bucket-missing"})
_REFUSED = frozenset({"access-denied", "credentials-expired", "clock-skew", "tls-failure"})


def backend_status(remote: str, *, took_s: float, code: str = "", text: str = "", hint: str = "") -> RemoteStatus:
    """The bucket's answer as a status; `code` is empty when it gave what was asked."""
    if not code:
        if took_s < SLOW_S:
            return RemoteStatus(Health.HEALTHY)
        slow = Reason("bucket-slow", f"{remote} needs {took_s:.0f} s for one request", "bucket", remote, _SLOW_HINT)
        return RemoteStatus(Health.DEGRADED, slow)
    health = Health.MISSING if code in _MISSING else Health.DEGRADED
    return RemoteStatus(health, Reason(code, text, "bucket", remote, hint))


_SLOW_HINT = "what is cached goes on at full speed; look at the store's own status page and at the network"


def is_refusal(code: str) -> bool:
    """The bucket answered and said no: other credentials could change that."""
    return code in _REFUSED
