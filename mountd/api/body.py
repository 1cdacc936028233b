"""What a request gives: a body that is a JSON object, and a query; of both only known fields, each of its type."""

from __future__ import annotations

import asyncio
import functools
import json
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from mountd.errors import UsageError
from mountd.text import storable

MAX_WAIT_S = 60.0
BODY_S = 10.0
"""Within that the whole body is there."""
LARGEST = 2**63 - 1
"""Of whole numbers: what SQLite can compare with."""
_WORDS: Mapping[type, str] = {str: "text", bool: "true or false", int: "a whole number"}
_SWITCHES = {"1": True, "true": True, "0": False, "false": False}
Fields = TypeVar("Fields", bound=Mapping[str, object])


async def read_body(request: web.Request, keys: type[Fields]) -> Fields:
    """What it gives of `keys`, a TypedDict; null is as if it was not given. Raises UsageError."""
    try:
        async with asyncio.timeout(BODY_S):
            data = await request.read()
    except TimeoutError:
        raise UsageError(f"cannot read the request: its body did not come within {BODY_S:g} s") from None
    except (HttpProcessingError, web.RequestPayloadError) as error:
        cause = f"its body is not what Content-Encoding or Transfer-Encoding say ({type(error).__name__})"
        raise UsageError(f"cannot read the request: {cause}") from None
    try:
        body = json.loads(data or b"{}", object_pairs_hook=_each_once)
    except (ValueError, RecursionError):  # the latter: brackets in brackets in brackets
        raise UsageError("cannot read the request: its body is not JSON") from None
    if not isinstance(body, dict):
        raise UsageError("cannot read the request: its body is not a JSON object")
    fields = _fields(keys)
    for key, value in body.items():
        if key not in fields:
            raise UsageError(f"cannot read the request: unknown field {storable(key, 64)!r}")
        if value is not None and type(value) is not fields[key]:  # True is an int, too
            wanted = _WORDS[fields[key]]
            raise UsageError(f"cannot read the request: {key} must be {wanted}")
        if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
            raise UsageError(f"cannot read the request: {key} is too large a number")
        if isinstance(value, str) and value != value.encode(errors="replace").decode():
            raise UsageError(f"cannot read the request: {key} is not valid Unicode")  # half of a surrogate pair
    given = {
        key: storable(value) if isinstance(value, str) else value for key, value in body.items() if value is not None
    }
    for key in fields:
        if key in keys.__required_keys__ and key not in given:  # type: ignore[attr-defined]  # of a TypedDict
            raise UsageError(f"cannot read the request: {key} is missing")
    return cast("Fields", given)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises UsageError for a field that is written twice: which value is meant is not clear."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise UsageError(f"cannot read the request: the field {storable(key, 64)!r} is written twice")
        found[key] = value
    return found


def read_query(request: web.Request, keys: type[Fields]) -> Fields:
    """What it gives of `keys`, a TypedDict; what that does not have is left alone. Raises UsageError."""
    query = request.query
    return cast("Fields", {key: _value(key, query[key], kind) for key, kind in _fields(keys).items() if key in query})


def _value(key: str, word: str, kind: type) -> object:
    """Of a query. Raises UsageError."""
    if kind is int:
        return number(word, f"`{key}`: it is not a number from 0 on")
    if kind is float:
        return _seconds(key, word)
    if kind is bool:
        if word.lower() not in _SWITCHES:
            raise UsageError(f"cannot use `{key}`: it is neither true nor false")
        return _SWITCHES[word.lower()]
    return word


def number(word: str, what: str) -> int:
    """Raises UsageError, "cannot use `what`"."""
    if not (word.isascii() and word.isdigit() and len(word) < 20 and int(word) <= LARGEST):
        raise UsageError(f"cannot use {what}")
    return int(word)


def _seconds(key: str, word: str) -> float:
    """Less than none is none. Raises UsageError."""
    try:
        return max(0.0, float(word))
    except ValueError:
        raise UsageError(f"cannot use `{key}`: it is not a number of seconds") from None


def wait_s(given: float) -> float:
    """How long a request may wait that asks for so many seconds."""
    return min(MAX_WAIT_S, given)


@functools.cache
def _fields(keys: type) -> Mapping[str, type]:
    return typing.get_type_hints(keys)
