"""Text from outside (bucket, app, rclone, operator, file system): what can be stored, and what a terminal can show."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

LIMIT = 1000
"""Characters of one text from outside that are kept: enough for a long path and an error message around it."""

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0, DEL, C1, line separators, marks that reorder text (bidirectional), and lone surrogates."""


def storable(text: str, limit: int = LIMIT) -> str:
    """`text` as it can be stored and sent as UTF-8: lone surrogates are written as escapes (`\\udcff`).

    At most `limit` characters; what is cut is marked by an ellipsis at the end. `text` itself where nothing is changed.
    """
    kept = text[: limit + 1]
    if not kept.isascii():
        kept = kept.encode("utf-8", "backslashreplace").decode()  # an escape is longer than what it stands for
    kept = kept if len(kept) <= limit else kept[: limit - 1] + "…"
    return text if kept == text else kept


MOST_NAMES = 1000
"""How many names are compared with a wrong one."""
MOST_CHARACTERS = 60


def nearest(wrong: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant by `wrong`; None: nothing is near. Two letters in the wrong order count as one
    mistake, and come before another letter."""
    limit = max(1, len(wrong) // 3)
    if len(wrong) > MOST_CHARACTERS:
        return None
    letters = sorted(wrong)
    found = [
        (distance, sorted(name) != letters, name)
        for name in islice(names, MOST_NAMES)
        if abs(len(name) - len(wrong)) <= limit
        and name != wrong
        and (distance := _distance(wrong.lower(), name.lower())) <= limit
    ]
    return min(found)[2] if found else None


def did_you_mean(wrong: str, names: Iterable[str]) -> str:
    """`did you mean v23? `, for the beginning of a hint; empty where nothing is near."""
    near = nearest(wrong, names)
    return f"did you mean {near}? " if near else ""


def _distance(one: str, other: str) -> int:
    """How many letters have to be changed, added, left out or exchanged with the next one."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        now = [row]
        for column, against in enumerate(other, 1):
            steps = min(last[column] + 1, now[-1] + 1, last[column - 1] + (letter != against))
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == against:
                steps = min(steps, before[column - 2] + 1)
            now.append(steps)
        before, last = last, now
    return last[-1]


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


def object_of(text: str) -> dict[str, Any]:
    """The JSON object that `text` is; an empty one where it is none, such as one that was cut."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
