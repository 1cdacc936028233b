"""Prometheus' answer to an instant query → the one value in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


class NoValue(Exception):
    """The answer does not hold exactly one value; the text says what it holds."""


def value_of(body: bytes) -> float:
    """The value of a scalar, or of a vector with one sample; may be positive infinity. Raises NoValue."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, Mapping):
        raise NoValue("what answers there is no Prometheus")
    if document.get("status") == "error":
        raise NoValue(f"Prometheus answers {document.get('errorType')}: {document.get('error')}")
    data = document.get("data")
    kind, result = (data.get("resultType"), data.get("result")) if isinstance(data, Mapping) else (None, None)
    if kind not in ("scalar", "vector", "matrix", "string") or not isinstance(result, list):
        raise NoValue("what answers there is no Prometheus")
    if kind in ("matrix", "string"):
        raise NoValue(f"the query gives a {kind}, not one figure")
    if kind == "vector":
        if not result:
            raise NoValue("the query gives no sample: nothing has been measured")
        if len(result) > 1:
            raise NoValue(f"the query gives {len(result)} samples, not one: aggregate it, such as with max()")
        result = _value_of(result[0])
    return _number(result)


def _value_of(sample: Any) -> Any:
    if isinstance(sample, Mapping) and "histogram" in sample:
        raise NoValue("the query gives a histogram, not one figure: use histogram_quantile()")
    return sample.get("value") if isinstance(sample, Mapping) else None


def _number(pair: Any) -> float:
    """Of `[time, "1.5"]`."""
    text = pair[1] if isinstance(pair, list) and len(pair) == 2 else None
    try:
        value = float(text) if isinstance(text, str) else None
    except ValueError:
        value = None
    if value is None:
        raise NoValue("what answers there is no Prometheus")
    if math.isnan(value) or value == -math.inf:
        raise NoValue(f"the query gives {text}, not a figure: nothing has been measured, or it divides by 0")
    return value
