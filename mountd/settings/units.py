"""Durations, sizes and limits as people write them: `500ms`, `30G`, `5%`, `20M` a second, `5 in 10m`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, PlainSerializer, WithJsonSchema
from pydantic_core import core_schema

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LONGEST_S = 3650 * 86_400
_LARGEST_BYTES = 2**60
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:B|([KMGTP])(?:i?B)?)", re.IGNORECASE)
_NO_UNIT = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")
_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_LIMIT = re.compile(r"([0-9]{1,6})\s+in\s+(\S+)")


def parse_duration(text: str) -> float:
    """`500ms`, `2s`, `1m30s`, `1h`, `0` → seconds, to the millisecond. Raises ValueError."""
    text = str(text).strip()
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration: write 500ms, 2s, 5m or 1h")
    ms = sum(float(number) * _MS[unit] for number, unit in _DURATION_PART.findall(text))
    if ms > _LONGEST_S * 1000:
        raise ValueError(f"{text!r} is longer than ten years")
    return round(ms) / 1000


def format_duration(seconds: float) -> str:
    """Seconds → an exact form that `parse_duration` reads back (to the millisecond); days only where they are whole."""
    ms = round(seconds * 1000)
    if ms == 0:
        return "0s"
    if ms % _MS["d"] == 0:
        return f"{ms // _MS['d']}d"
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, ms = divmod(ms, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def _as_seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else parse_duration(value)


Duration = Annotated[
    float,
    BeforeValidator(_as_seconds),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": r"^(0|([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+)$"}, {"const": 0}],
            "examples": ["500ms", "2s", "1h"],
        }
    ),
]
"""Seconds, written as `500ms 2s 5m 1h`."""


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes (powers of 1024, as rclone counts), or a percentage of the file system that holds the thing."""

    bytes: int = 0
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> Size:
        """`16M`, `30G`, `1024B`, `5%`, `0`. Raises ValueError."""
        text = str(text).strip()
        if text == "0":
            return cls()
        if match := _PERCENT.fullmatch(text):
            percent = round(float(match[1]), 6)
            if percent > 100:
                raise ValueError(f"{text!r} is more than the whole file system")
            return cls(percent=percent)
        if match := _SIZE.fullmatch(text):
            size = Decimal(match[1]) * 1024 ** _POWER[(match[2] or "").upper()]
            if size > _LARGEST_BYTES:
                raise ValueError(f"{text!r} is more than any disk holds")
            return cls(bytes=int(size))
        if _NO_UNIT.fullmatch(text):  # as bytes, "5" for "5%" would switch the limit off
            raise ValueError(f"{text!r} has no unit: write 16M, 30G or 5%")
        raise ValueError(f"{text!r} is not a size: write 16M, 30G or 5%")

    def of(self, total_bytes: int) -> int:
        """In bytes, for a file system of `total_bytes`."""
        return self.bytes if self.percent is None else int(total_bytes * self.percent / 100)

    def __str__(self) -> str:
        if self.percent is not None:
            return f"{self.percent:.6f}".rstrip("0").rstrip(".") + "%"
        for unit, power in (("P", 5), ("T", 4), ("G", 3), ("M", 2), ("K", 1)):
            if self.bytes and self.bytes % 1024**power == 0:
                return f"{self.bytes // 1024**power}{unit}"
        return f"{self.bytes}B"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.parse(value),
            serialization=core_schema.to_string_ser_schema(),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        text = {"type": "string", "pattern": r"^(0|[0-9]+(\.[0-9]+)?([Bb]|[KMGTPkmgtp]([iI]?[Bb])?|%))$"}
        return {"anyOf": [text, {"const": 0}], "examples": ["16M", "30G", "5%"]}


def parse_rate(text: str) -> int:
    """`20M`, a size that a second may take → bytes a second. Raises ValueError."""
    try:
        size = Size.parse(text)
    except ValueError:
        size = Size(percent=0)
    if size.percent is not None:
        raise ValueError(f"{text!r} is not a rate: write 20M for 20 MiB a second")
    if not size.bytes:
        raise ValueError("must be more than 0; leave it out for no limit")
    return size.bytes


Rate = Annotated[
    int,
    BeforeValidator(lambda value: value if isinstance(value, int) else parse_rate(value)),
    PlainSerializer(lambda value: str(Size(value)), return_type=str, when_used="json"),
    WithJsonSchema(
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?([Bb]|[KMGTPkmgtp]([iI]?[Bb])?)$", "examples": ["20M"]}
    ),
]
"""Bytes a second, written as a size: `20M` is 20 MiB a second."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` in any `window_s` seconds, written `5 in 10m`."""

    count: int
    window_s: float

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Raises ValueError."""
        match = _LIMIT.fullmatch(str(text).strip())
        if not match:
            raise ValueError(f"{text!r} is not a limit: write 5 in 10m")
        window_s = parse_duration(match[2])
        if not window_s:
            raise ValueError(f"{text!r} is not a limit: its window must be more than 0")
        return cls(count=int(match[1]), window_s=window_s)

    def __str__(self) -> str:
        return f"{self.count} in {format_duration(self.window_s)}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.parse(value),
            serialization=core_schema.to_string_ser_schema(),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[0-9]+\s+in\s+\S+$", "examples": ["5 in 10m"]}
