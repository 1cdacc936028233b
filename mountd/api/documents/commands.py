"""What commands that need no daemon print with `-o json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import TypedDict

from mountd.api.documents import Schema
from mountd.api.documents.failures import ProblemDocument


class ConfigCheckDocument(Schema):
    source: str
    problems: list[ProblemDocument]
    warnings: list[ProblemDocument]


class ConfigShowDocument(Schema):
    """`stop_s`: how long mountd takes to stop, at most."""

    source: str
    config: Mapping[str, Any]
    stop_s: float


class CommandDocument(TypedDict):
    argv: list[str]
    warnings: list[str]


class ConfigRenderDocument(Schema):
    rclone_conf: str
    files: dict[str, str]
    mounts: dict[str, CommandDocument]


class CheckDocument(TypedDict):
    name: str
    result: str
    text: str
    hint: str


class DoctorDocument(Schema):
    checks: list[CheckDocument]


class SentDocument(TypedDict):
    files: int
    bytes: int


class PublishDocument(Schema):
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


class InitDocument(Schema):
    """`files`: of keys, written with it; `before`: where the file is that was there before, empty when there was none;
    with `--undo` the file that is back; `next`: what is left to do."""

    path: str
    written: bool
    text: str
    files: list[str]
    removed: list[str]
    before: str
    next: list[str]


class InstallStepDocument(TypedDict):
    """`action`: write, replace, link, same, keep, remove or run; `path`: of a run, the command."""

    action: str
    path: str
    text: str


class InstallDocument(Schema):
    dry_run: bool
    steps: list[InstallStepDocument]


class DebugDocument(Schema):
    """`notes`: what could not be had, or was cut."""

    path: str
    bytes: int
    files: list[str]
    notes: list[str]
