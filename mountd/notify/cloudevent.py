"""An event of the journal as a CloudEvent 1.0, in the structured mode of JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypedDict
from urllib.parse import quote

from mountd.journal.records import EventRecord
from mountd.notify.rules import Notification, data_of

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
TYPE_PREFIX = "mountd."
_NO_DIGIT = re.compile("[^0-9]")
HELD_BACK = "held_back"
"""In the data of the last event that a limit allows: how many others there were, by code."""


class _Subject(TypedDict, total=False):
    subject: str


class CloudEvent(_Subject):
    """`data`: `text`, `object`, and what the event itself says to programs; maybe `held_back`."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    datacontenttype: str
    data: dict[str, object]


def source_of(host: str, instance: str) -> str:
    """Which mountd it is: its machine, and its instance there."""
    return f"mountd://{quote(host, safe='')}/{quote(instance, safe='')}"


def event_id(journal: str, event: EventRecord) -> str:
    """The same in each try, after a restart too. No other event has it: a new journal has another identity, and one
    that was restored from a backup counts on from there, but at another time."""
    return f"{journal}-{_NO_DIGIT.sub('', event.time)}-{event.id}"


def cloud_event(notification: Notification, *, id_: str, source: str) -> CloudEvent:
    """Of the last event of the notification; the others are counted."""
    event = notification.last
    data: dict[str, object] = {**data_of(event), "text": event.text, "object": event.object}
    left_out: Mapping[str, int] = notification.left_out
    if left_out:
        data[HELD_BACK] = {"count": sum(left_out.values()), "codes": dict(left_out)}
    made = CloudEvent(
        specversion="1.0",
        id=id_,
        source=source,
        type=f"{TYPE_PREFIX}{event.code}",
        time=event.time,
        datacontenttype="application/json",
        data=data,
    )
    if event.object:
        made["subject"] = event.object
    return made
