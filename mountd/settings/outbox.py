"""One outbox: a local directory whose finished files mountd uploads to a bucket by itself."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from mountd.settings.fields import AbsolutePath, PositiveDuration, RemotePath
from mountd.settings.section import Section
from mountd.settings.units import Duration, Rate, Size, format_duration, parse_duration

FOREVER = "forever"


def _keep(value: Any) -> float:
    if value == 0 and not isinstance(value, bool):
        return 0.0
    text = str(value).strip()
    if text == FOREVER:
        return math.inf
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{str(error)[:200]}; to keep files for ever write {FOREVER}") from None


def _file_pattern(value: str) -> str:
    if not value or value.startswith("/") or re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError(f"{value[:64]!r} is not a pattern for files: write *.wav, or drafts/* with a directory")
    return value


Keep = Annotated[
    float,
    BeforeValidator(_keep),
    Field(ge=0),
    PlainSerializer(lambda value: FOREVER if math.isinf(value) else format_duration(value), when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": rf"^({FOREVER}|0|([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+)$"},
                {"const": 0},
            ],
            "examples": ["7d", "0s", FOREVER],
        }
    ),
]
"""Seconds, infinite for `forever`."""
FilePattern = Annotated[str, AfterValidator(_file_pattern), WithJsonSchema({"type": "string", "examples": ["*.wav"]})]
FilePatterns = Annotated[list[FilePattern], Field(max_length=50)]


class OutboxSettings(Section):
    """A directory on local disk; each finished file in it becomes the object of the same name in the bucket."""

    directory: AbsolutePath = Field(
        description="directory on local disk, not a link; the app creates it, and writes its results there"
    )
    remote: RemotePath = Field(description="where the files go: REMOTE:BUCKET or REMOTE:BUCKET/PREFIX")
    settle: PositiveDuration = Field(
        5.0,
        description="a file is finished when it has not changed for this long, and no program has it open for writing",
    )
    keep: Keep = Field(
        7 * 86400.0,
        validate_default=False,  # nobody may write a number
        description="how long the local file stays after its upload; 0s: removed at once; forever: stays",
    )
    include: FilePatterns = Field(default_factory=lambda: ["*"], description="only files that one of these matches")
    exclude: FilePatterns = Field(
        default_factory=lambda: [".*", "*.tmp", "*.part"],
        description="no file or directory that one of these matches; a pattern with / is compared with the whole path",
    )
    parallel: Annotated[int, Field(ge=1, le=32)] = Field(4, description="how many files are uploaded at the same time")
    limit: Rate | None = Field(
        None, description="bytes a second that are uploaded at most, such as 20M; default: no limit"
    )
    late: Annotated[Duration, Field(ge=1)] = Field(
        600.0, description="health is Degraded while a finished file has waited for its upload for longer than this"
    )
    min_free: Size = Field(
        Size(percent=5), description="health is Degraded while the directory's file system has less room than this"
    )

    @property
    def remote_name(self) -> str:
        return self.remote.partition(":")[0]
