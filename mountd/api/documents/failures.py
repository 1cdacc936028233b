"""What went wrong, as a document: of the daemon, and of a command with `-o json`."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from mountd.api.documents import SCHEMA
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


class ErrorDocument(TypedDict):
    schema: int
    error: FailureDocument


def problem(found: Problem) -> ProblemDocument:
    return ProblemDocument(path=found.path, line=found.line, text=found.text)


def error(failure: MountdError) -> ErrorDocument:
    holder = failure.holder if isinstance(failure, Busy) else ""
    document = failed(failure.exit_code, failure.text, failure.hint, holder)
    if isinstance(failure, ConfigError):
        document["error"]["problems"] = [problem(each) for each in failure.problems]
    return document


def bug() -> ErrorDocument:
    return failed(Bug.exit_code, "a bug in mountd: see its log")


def failed(exit_code: int, text: str, hint: str = "", holder: str = "") -> ErrorDocument:
    return ErrorDocument(schema=SCHEMA, error=FailureDocument(exit=exit_code, text=text, hint=hint, holder=holder))
