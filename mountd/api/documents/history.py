"""What was, as documents: operations with their steps, what drills measured, events, and lines of output."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, cast

from typing_extensions import TypedDict

from mountd.api.documents import SCHEMA, Schema, document
from mountd.api.documents.operations import (
    LimitsDocument,
    OperationDocument,
    OperationEntryDocument,
    operation,
    operation_entry,
)
from mountd.journal.records import Drilled, EventRecord, OperationRecord, StepRecord
from mountd.process.child import Line
from mountd.text import object_of


class HistoryDocument(Schema):
    """`next` is what to give as `before` for those that are older, null where there are none."""

    history: list[OperationEntryDocument]
    next: int | None


class StepDocument(TypedDict):
    step: str
    began: str
    ended: str | None
    outcome: str | None
    duration_s: float | None


class DrillDetailsDocument(TypedDict):
    """As the journal has them."""

    for_s: float | None
    limits: LimitsDocument
    rclone_restarted: bool
    cached_reads: bool | None
    shortfalls: list[str]


class DrilledDocument(DrillDetailsDocument):
    id: int
    kind: str
    mount: str
    detected_s: float | None
    serving_again_s: float | None
    ready_again_s: float | None
    app_restarted: bool
    passed: bool


class OperationDetailsDocument(OperationDocument):
    hint: str
    steps: list[StepDocument]
    drill: DrilledDocument | None


class FollowedOperationDocument(OperationDocument, total=False):
    """One that is followed: while it runs with the keys of ProgressDocument; `drill` only of a drill."""

    step_s: float
    limit_s: float | None
    waits_for: str | None
    said: str
    killed: list[str]
    drill: DrilledDocument | None


class EventDocument(TypedDict):
    """`data`: for programs, null where `text` says all there is."""

    id: int
    time: str
    code: str
    object: str
    text: str
    data: dict[str, Any] | None


class EventsDocument(Schema):
    events: list[EventDocument]


class LineDocument(TypedDict):
    name: str
    time: str
    text: str


class LogsDocument(Schema):
    logs: list[LineDocument]


def page(records: Sequence[OperationRecord], *, more: bool) -> HistoryDocument:
    """`more`: whether there are older ones than these."""
    found = [operation_entry(record) for record in records]
    return HistoryDocument(schema=SCHEMA, history=found, next=found[-1]["id"] if found and more else None)


def operation_details(
    record: OperationRecord, steps: Iterable[StepRecord], measured: Drilled | None
) -> OperationDetailsDocument:
    return {
        **operation(record),
        "hint": record.hint,
        "steps": [document(StepDocument, step) for step in steps],
        "drill": drilled(measured) if measured else None,
    }


def drilled(measured: Drilled) -> DrilledDocument:
    return {
        "id": measured.operation,
        "kind": measured.kind,
        "mount": measured.mount,
        "detected_s": measured.detected_s,
        "serving_again_s": measured.serving_again_s,
        "ready_again_s": measured.ready_again_s,
        "app_restarted": bool(measured.app_restarted),  # SQLite has numbers
        "passed": bool(measured.passed),
        **cast("DrillDetailsDocument", json.loads(measured.details)),
    }


def events(found: Iterable[EventRecord]) -> EventsDocument:
    return EventsDocument(schema=SCHEMA, events=[event(each) for each in found])


def event(record: EventRecord) -> EventDocument:
    return document(EventDocument, record, data=object_of(record.data) or None)


def line(owner: str, said: Line) -> LineDocument:
    return document(LineDocument, said, name=owner)
