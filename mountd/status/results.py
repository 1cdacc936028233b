"""What is known of an outbox: what waits for its upload, what came of the rest, and why it is not Healthy."""

from __future__ import annotations

from dataclasses import dataclass

from mountd.status.snapshot import Health, Reason


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """`writing`: files that are not finished; `uploaded`: since this journal exists; `failed`: files that cannot be
    uploaded as they are. Times in UTC, ISO 8601, "" for none; `oldest`: when the first of those that wait was found."""

    directory: str
    remote: str
    health: Health = Health.UNKNOWN
    pending: int = 0
    pending_bytes: int = 0
    writing: int = 0
    uploaded: int = 0
    failed: int = 0
    failures: int = 0
    """uploads that failed since mountd started"""
    oldest: str = ""
    last_key: str = ""
    last_time: str = ""
    last_compared: tuple[str, ...] = ()
    """what the newest upload was verified by, of size, md5 and sha256"""
    reason: Reason | None = None
