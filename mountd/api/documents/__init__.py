"""Every JSON document that scripts rely on: its keys as a TypedDict, and the function that makes it."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from typing_extensions import TypedDict

SCHEMA = 1
Document = TypeVar("Document")


class Schema(TypedDict):
    """What each document begins with."""

    schema: int


def document(keys: type[Document], source: object, /, **given: Any) -> Document:
    """A document with these keys: each as `given`, else the attribute of `source` with this name; tuples as lists."""
    found = {key: given[key] if key in given else getattr(source, key) for key in keys.__annotations__}
    return cast("Document", {key: list(each) if isinstance(each, tuple) else each for key, each in found.items()})
