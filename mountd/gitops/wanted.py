"""The text of a file → the version that it wants: plain text, or the value at a key of a YAML file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mountd.errors import BadVersionName, Refused
from mountd.settings.names import check_version
from mountd.settings.source import BadSource, Document, decode, read
from mountd.text import storable

MAX_BYTES = 64 * 1024
"""Of the file; what is larger is another one."""
SHOWN = 64
"""Characters of what it says, as many as a version may have: it may be anything, and is shown and logged."""
NO_VERSION = "desired-invalid"
"""The source was read, and names no version."""
UNREACHABLE = "desired-unreachable"
"""It cannot be read now."""
REFUSED = "desired-refused"
"""It refuses access: a token or a key is missing or wrong."""
_HINT = "correct it there: mountd reads it again, and the live version stays"
_LFS = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class WantedVersion:
    """What a source says. `source`: file or git; of Git also the commit, who wrote it, and the first line of why."""

    version: str
    source: str
    revision: str | None = None
    author: str = ""
    message: str = ""


def invalid(cause: str, hint: str = _HINT) -> Refused:
    return Refused(f"cannot take a wanted version: {cause}", hint=hint, code=NO_VERSION)


def parse(data: bytes, key: str | None, where: str) -> str:
    """The version that `data`, the content of `where`, names. Raises Refused.

    Plain text is one word; empty lines and those that begin with # do not count.
    """
    if len(data) > MAX_BYTES:
        raise invalid(f"{where} is larger than 64 KiB")
    if data.startswith(_LFS):
        raise invalid(f"{where} is a pointer of Git LFS", "keep the file itself in Git: it is one line")
    try:
        text = decode(data)
        word = _word(text, where) if key is None else _value(read(text), key, where)
    except BadSource as error:
        line = f" (line {error.problem.line})" if error.problem.line else ""
        raise invalid(f"{where} cannot be read{line}: {error.problem.text}") from None
    if len(word) > SHOWN:
        raise invalid(f"{where} says {word[:SHOWN]!r}…: a version has {SHOWN} characters at most")
    try:
        return check_version(word)
    except BadVersionName as error:
        raise invalid(f"{where}: {error.text}") from None


def _word(text: str, where: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    words = [line for line in lines if line and not line.startswith("#")]
    if not words:
        raise invalid(f"{where} is empty")
    if len(words) > 1:
        hint = "write the version alone, or name the key of a YAML file with `key`"
        raise invalid(f"{where} has {len(words)} lines, not one", hint)
    return words[0]


def _value(document: Document, key: str, where: str) -> str:
    at: Any = document.data
    way: tuple[str, ...] = ()
    for part in key.split("."):
        if not isinstance(at, dict) or part not in at:
            raise invalid(f"{where} has no key {key}", f"write it there, or correct `key`; it has {_keys(at)}")
        at, way = at[part], (*way, part)
        if way in document.twice:  # other programs take the last one
            raise invalid(f"{where} has the key {'.'.join(way)} twice, and which of the two counts is not clear")
    if not isinstance(at, str):
        raise invalid(f"{key} in {where} is {'empty' if at is None else 'no text'}")
    return at.strip()


def _keys(at: Any) -> str:
    names = [storable(str(each), SHOWN) for each in at] if isinstance(at, dict) else []
    return ", ".join(names[:10]) or "none"
