"""Text from outside (bucket, app, rclone, operator, file system): what can be stored, and what a terminal can show."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

LIMIT = 1000
"""Characters of one text from outside that are kept: enough for a long path and an error message around it."""

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0, DEL, C1, line separators, marks that reorder text (bidirectional), and lone surrogates."""


def storable(text: str, limit: int = LIMIT) -> str:
    """`text` as it can be stored and sent as UTF-8: lone surrogates are written as escapes (`\\udcff`).

    At most `limit` characters; what is cut is marked by an ellipsis at the end.
    """
    kept = text[: limit + 1]
    if not kept.isascii():
        kept = kept.encode("utf-8", "backslashreplace").decode()  # an escape is longer than what it stands for
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def printable(text: str, *, keep: str = "") -> str:
    """`text` as it can be written to a terminal: unsafe characters as escapes (`\\x1b`), but those in `keep`."""
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def dumps(
    document: Mapping[str, object], *, indent: int | None = None, default: Callable[[object], object] | None = None
) -> str:
    """`document` as JSON that is valid UTF-8, and that a terminal can show: what is unsafe is escaped.

    `default`: as for `json.dumps`.
    """
    text = json.dumps(document, indent=indent, ensure_ascii=False, default=default)
    return _UNSAFE.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
