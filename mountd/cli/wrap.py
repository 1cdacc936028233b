"""Long lines for a terminal: broken between words, continued with an indent; a word that is too long stays whole."""

from __future__ import annotations

import re
import unicodedata

NARROWEST = 20
"""Where there is less, nothing is gained by breaking lines."""
_WIDE = ("W", "F")
_COLUMN = re.compile(r" *[\w-]+(?: [\w-]+)? {2,}(?=\S)", re.ASCII)
"""A name, and in a column of its own what is said of it."""
_EAST = r"\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
# Words with the spaces before them; a wide character is one by itself, and so is a short command in backquotes.
_CLOSING = "，。；：！？、）》”"
"""No line begins with these."""
_PIECES = re.compile(rf" *(?:`[^`]{{1,60}}`[^ {_EAST}]*|[{_EAST}]|[^ {_EAST}]+)[{_CLOSING}]*| +$")


def wrapped(text: str, width: int, *, before: int = 0) -> str:
    """`text` with no line wider than `width` where it can be; `before`: columns that stand in front of its first line.

    Spaces within a line stay as they are; Chinese and Japanese may be broken between any two characters.
    """
    if width < NARROWEST:
        return text
    lines = text.split("\n")
    return "\n".join(_wrap(line, width, before if not number else 0) for number, line in enumerate(lines))


def _wrap(line: str, width: int, before: int) -> str:
    if before + columns(line) <= width:
        return line
    own = len(line) - len(line.lstrip())
    column = _COLUMN.match(line)
    indent = min(before + (column.end() if column else own + 2), width // 2)
    rows, row, at = [], "", before
    for piece in _PIECES.findall(line):
        if row.strip() and at + columns(piece.rstrip(" ")) > width:
            rows.append(row.rstrip(" "))
            row, at = " " * indent + piece.lstrip(" "), indent + columns(piece.lstrip(" "))
        else:
            row += piece
            at += columns(piece)
    return "\n".join([*rows, row])


def broken(text: str, width: int) -> list[str]:
    """`text`, one paragraph, as lines that are no wider than `width` where it can be."""
    found, row = [], ""
    for piece in _PIECES.findall(text):
        if row and columns(row) + columns(piece.rstrip(" ")) > width:
            found.append(row.rstrip(" "))
            row = piece.lstrip(" ")
        else:
            row += piece
    return [*found, row]


def cut(text: str, width: int) -> str:
    """As much of the beginning of `text`, one line, as fits into `width` columns; an ellipsis shows that it goes on."""
    if columns(text) <= width:
        return text
    kept, at = "", 0
    for character in text:
        at += _width(character)
        if at > width - 1:
            break
        kept += character
    return kept + "…"


def padded(text: str, width: int) -> str:
    """`text` with spaces behind it, up to `width` columns."""
    return text + " " * (width - columns(text))


def columns(text: str) -> int:
    """How many columns of a terminal it takes."""
    if text.isascii():
        return len(text)
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in _WIDE else 1
