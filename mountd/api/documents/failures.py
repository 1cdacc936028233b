"""What went wrong, as a document: of the daemon, and of a command with `-o json`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NotRequired

from typing_extensions import TypedDict

from mountd.api.documents import SCHEMA, Schema, document
from mountd.errors import Bug, Busy, ConfigError, MountdError, Problem


class ProblemDocument(TypedDict):
    path: str
    line: int
    text: str


class FailureDocument(TypedDict):
    exit: int
    text: str
    hint: str
    holder: str
    problems: NotRequired[list[ProblemDocument]]


class ErrorDocument(Schema):
    error: FailureDocument


def problems(found: Iterable[Problem]) -> list[ProblemDocument]:
    return [document(ProblemDocument, each) for each in found]


def error(failure: MountdError) -> ErrorDocument:
    holder = failure.holder if isinstance(failure, Busy) else ""
    found = failed(failure.exit_code, failure.text, failure.hint, holder)
    if isinstance(failure, ConfigError):
        found["error"]["problems"] = problems(failure.problems)
    return found


def bug() -> ErrorDocument:
    return failed(Bug.exit_code, "a bug in mountd: see its log")


def failed(exit_code: int, text: str, hint: str = "", holder: str = "") -> ErrorDocument:
    return ErrorDocument(schema=SCHEMA, error=FailureDocument(exit=exit_code, text=text, hint=hint, holder=holder))
