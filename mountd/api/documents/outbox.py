"""An outbox as it stands in `mountd status`."""

from __future__ import annotations

from typing_extensions import TypedDict

from mountd import clock
from mountd.api.documents import document
from mountd.status.results import OutboxStatus


class UploadedDocument(TypedDict):
    """`compared`: what it was verified by, of size, md5 and sha256; empty where mountd no longer knows."""

    key: str
    time: str
    compared: list[str]


class OutboxDocument(TypedDict):
    """`uploaded`: since this journal exists. `oldest_s`: how long the first of those that are pending has waited.
    `writing`: files that are not finished; `failed`: files that cannot be uploaded as they are."""

    health: str
    directory: str
    remote: str
    pending: int
    pending_bytes: int
    writing: int
    uploaded: int
    failed: int
    oldest_s: float | None
    last: UploadedDocument | None


def outbox_document(outbox: OutboxStatus) -> OutboxDocument:
    last = None
    if outbox.last_time:
        last = UploadedDocument(key=outbox.last_key, time=outbox.last_time, compared=[*outbox.last_compared])
    return document(OutboxDocument, outbox, oldest_s=age_s(outbox.oldest), last=last)


def age_s(oldest: str) -> float | None:
    """How long ago that was, by the wall clock; None for ""."""
    return round(max(0.0, (clock.now() - clock.parse(oldest)).total_seconds()), 1) if oldest else None
