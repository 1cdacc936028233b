"""The access profile as a document."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import TypedDict

from mountd.api.documents import SCHEMA, Schema, document
from mountd.warm.access import AccessProfile


class AppStartDocument(TypedDict):
    """`recorded`: UTC, ISO 8601. `partial`: the app may have opened other files, too."""

    app: str
    version: str
    recorded: str
    partial: bool


class OpenedFileDocument(TypedDict):
    """`size` in bytes; opened `after_s` seconds after the app's start began."""

    path: str
    size: int
    after_s: float


class ProfileDocument(Schema):
    """`files` of all apps, in the order in which the next warm takes them; `bytes` of all of them."""

    model: str
    apps: list[AppStartDocument]
    files: list[OpenedFileDocument]
    bytes: int


class ForgottenDocument(Schema):
    """`apps`: whose starts are no longer known."""

    model: str
    apps: list[str]


def profile(model: str, found: AccessProfile) -> ProfileDocument:
    files = found.files
    return ProfileDocument(
        schema=SCHEMA,
        model=model,
        apps=[document(AppStartDocument, start, app=app) for app, start in found.starts.items()],
        files=[document(OpenedFileDocument, file) for file in files],
        bytes=sum(file.size for file in files),
    )


def forgotten(model: str, apps: Sequence[str]) -> ForgottenDocument:
    return ForgottenDocument(schema=SCHEMA, model=model, apps=[*apps])
