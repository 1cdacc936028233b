"""What commands that need no daemon print with `-o json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from mountd.api.documents.failures import ProblemDocument


class ConfigCheckDocument(TypedDict):
    schema: int
    source: str
    problems: list[ProblemDocument]
    warnings: list[ProblemDocument]


class ConfigShowDocument(TypedDict):
    """`stop_s`: how long mountd takes to stop, at most."""

    schema: int
    source: str
    config: Mapping[str, Any]
    stop_s: float


class CommandDocument(TypedDict):
    argv: list[str]
    warnings: list[str]


class ConfigRenderDocument(TypedDict):
    schema: int
    rclone_conf: str
    files: dict[str, str]
    mounts: dict[str, CommandDocument]


class CheckDocument(TypedDict):
    name: str
    result: str
    text: str
    hint: str


class DoctorDocument(TypedDict):
    schema: int
    checks: list[CheckDocument]


class SentDocument(TypedDict):
    files: int
    bytes: int


class PublishDocument(TypedDict):
    schema: int
    model: str
    version: str
    destination: str
    result: str
    digest: str
    files: int
    bytes: int
    sent: SentDocument
    deleted: list[str]
    left_out: list[str]
    checked: str
    duration_s: float
