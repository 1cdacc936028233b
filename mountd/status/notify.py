"""What is known of a target of notifications."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NotifyStatus:
    """`pending`: events that wait to be sent, as far as they were read. The counters outlive a restart."""

    failing: bool = False
    """the last tries failed"""
    pending: int = 0
    last_delivered: str | None = None
    """when, UTC, ISO 8601"""
    last_error: str | None = None
    """why the last message that could not be delivered was not; stays until one is"""
    hint: str = ""
    messages: int = 0
    """delivered"""
    failed: int = 0
    """messages that were given up"""
    dropped: int = 0
    """events that left the journal before they were delivered"""
