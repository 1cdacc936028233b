"""What a request says: a body that is a JSON object with known fields, each of its type, each once; seconds to wait."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from mountd.errors import UsageError
from mountd.text import storable

MAX_WAIT_S = 60.0
LARGEST = 2**63 - 1
"""Of whole numbers: what SQLite can compare with."""
_WORDS: Mapping[type, str] = {str: "text", bool: "true or false", int: "a whole number"}


async def read_body(request: web.Request, fields: Mapping[str, type]) -> dict[str, Any]:
    """What it gives of `fields`. Raises UsageError."""
    try:
        data = await request.read()
    except (HttpProcessingError, web.RequestPayloadError) as error:
        cause = f"its body is not what Content-Encoding or Transfer-Encoding say ({type(error).__name__})"
        raise UsageError(f"cannot read the request: {cause}") from None
    try:
        body = json.loads(data or b"{}", object_pairs_hook=_each_once)
    except (ValueError, RecursionError):  # the latter: brackets in brackets in brackets
        raise UsageError("cannot read the request: its body is not JSON") from None
    if not isinstance(body, dict):
        raise UsageError("cannot read the request: its body is not a JSON object")
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
    return {
        key: storable(value) if isinstance(value, str) else value for key, value in body.items() if value is not None
    }


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises UsageError for a field that is written twice: which value is meant is not clear."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise UsageError(f"cannot read the request: the field {storable(key, 64)!r} is written twice")
        found[key] = value
    return found


def seconds(request: web.Request, key: str, most_s: float = MAX_WAIT_S) -> float:
    """Of the query; none is 0. Raises UsageError."""
    try:
        return min(most_s, max(0.0, float(request.query.get(key, "0"))))
    except ValueError:
        raise UsageError(f"cannot use `{key}`: it is not a number of seconds") from None
