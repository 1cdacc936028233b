"""Wanted against live, as a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from typing_extensions import TypedDict

from mountd.api.documents import SCHEMA, Schema, document
from mountd.operation.diff import Compared
from mountd.status.snapshot import Sync


class ComparedDocument(TypedDict):
    """`kind`: version, link, flags or process."""

    kind: str
    object: str
    wanted: str
    live: str
    differs: bool


class ModelDiffDocument(TypedDict):
    model: str
    sync: str
    differs: bool
    compared: list[ComparedDocument]


class DiffDocument(Schema):
    """`differs`: of at least one of them something does, or it is not Synced."""

    differs: bool
    models: list[ModelDiffDocument]


def diff(found: Mapping[str, tuple[Sync, Sequence[Compared]]]) -> DiffDocument:
    models = [
        ModelDiffDocument(
            model=name,
            sync=sync,
            differs=sync is not Sync.SYNCED or any(each.differs for each in compared),
            compared=[document(ComparedDocument, each) for each in compared],
        )
        for name, (sync, compared) in found.items()
    ]
    return DiffDocument(schema=SCHEMA, differs=any(each["differs"] for each in models), models=models)
