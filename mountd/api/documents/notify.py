"""Targets of notifications, as documents."""

from __future__ import annotations

from typing_extensions import TypedDict

from mountd.api.documents import Schema, document
from mountd.status.notify import NotifyStatus
from mountd.status.snapshot import Health


class NotifyDocument(TypedDict):
    """`health`: Degraded while messages do not arrive; mountd itself stays what it is. `last_error`: null once one has
    arrived."""

    health: str
    pending: int
    last_delivered: str | None
    last_error: str | None


class NotifySentDocument(Schema):
    target: str


def notify(target: NotifyStatus) -> NotifyDocument:
    return document(NotifyDocument, target, health=Health.DEGRADED if target.failing else Health.HEALTHY)
