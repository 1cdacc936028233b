"""One line that rclone wrote on stderr → an event: level, text and keys, with secrets masked. Never raises."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import quote

MAX_TEXT_BYTES = 4096
MAX_JSON_CHARACTERS = 256 * 1024
MAX_DUMP_BYTES = 256 * 1024
MASK = "********"
CUT = "… (cut)"

_LEVELS = {
    **dict.fromkeys(("emergency", "alert", "critical", "fatal", "panic", "error"), "error"),
    **dict.fromkeys(("warning", "warn"), "warning"),
    **dict.fromkeys(("notice", "info"), "info"),
    **dict.fromkeys(("debug", "trace"), "debug"),
}
_PLAIN = re.compile(r"(?:\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d+)? )?(?:([A-Z]+) *: )?(.*)", re.DOTALL)
_FATAL = re.compile(r"(Fatal error|Failed to|Can't set|panic:|fatal error:)")
_LOGGED = re.compile(r"\s*\{\"|\d{4}/\d\d/\d\d \d\d:\d\d:\d\d")
# In lower case only the runtime writes so. The last of the beginnings is of a stack, for when the head was lost.
_PANIC = re.compile(r"panic:|fatal error:")
_SIGNAL = re.compile(r"SIG[A-Z]+: ")
_DUMP_BEGIN = re.compile(_SIGNAL.pattern + r"|goroutine \d+ .*\[|\t\S+\.(?:go|s):\d+")
_LINE_END = re.compile(r"\s*[\r\n\v\f\x85\u2028\u2029]+\s*")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class LogEvent:
    """`level` is error, warning, info or debug; `keys` are rclone's own, such as object and source."""

    level: str
    text: str
    keys: Mapping[str, str] = field(default_factory=dict)


def parse(line: str | bytes, secrets: Iterable[str] = ()) -> LogEvent:
    """A line of the JSON log or a plain one, as rclone writes before the log is set up."""
    text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
    hidden = _patterns(tuple(secrets))
    record = _record(text)
    if record is None:
        return _plain(text.strip(), hidden)
    message = record.pop("msg", "")
    level = record.pop("level", "info")
    record.pop("time", None)
    keys = {
        _clean(key, hidden): _clean(value, hidden)
        for key, value in record.items()
        if isinstance(value, str | int | float)
    }
    return LogEvent(_LEVELS.get(str(level).lower(), "info"), _clean(message, hidden), keys)


def mask(text: str, secrets: Iterable[str]) -> str:
    """`text` with every secret, in any of the forms a log may give it, replaced by MASK."""
    return _hide(text, _patterns(tuple(secrets)))


def _record(text: str) -> dict[str, object] | None:
    if not text.lstrip().startswith("{") or len(text) > MAX_JSON_CHARACTERS:
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and "msg" in record else None


def _plain(text: str, hidden: tuple[str, ...]) -> LogEvent:
    match = _PLAIN.fullmatch(text)
    word, rest = (match[1], match[2]) if match else (None, text)
    if word is not None and word.lower() not in _LEVELS:
        word, rest = None, f"{word}: {rest}"
    level = "error" if _FATAL.match(rest) else _LEVELS[word.lower()] if word else "info"
    return LogEvent(level, _clean(rest, hidden))


def _clean(value: object, hidden: tuple[str, ...]) -> str:
    """Masked, on one line, without what moves a terminal's cursor, and cut; masked first, for a cut would hide a secret
    from the mask but not from a reader."""
    text = _hide(value if isinstance(value, str) else str(value), hidden)
    text = _CONTROL.sub("?", _LINE_END.sub(" ", text))
    data = text.encode("utf-8", "replace")
    if len(data) <= MAX_TEXT_BYTES:
        return data.decode()
    return data[: MAX_TEXT_BYTES - len(CUT.encode())].decode("utf-8", "ignore") + CUT


def _hide(text: str, hidden: tuple[str, ...]) -> str:
    for secret in hidden:
        text = text.replace(secret, MASK)
    return text


@lru_cache(maxsize=4)  # for 200 secrets it takes 3 ms, and they stay the same until rclone.conf is written again
def _patterns(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Each secret, its lines, and its forms in JSON and in a URL; the longest first, so that no rest of one is left."""
    found: set[str] = set()
    for secret in secrets:
        for part in {secret, *(line for line in secret.splitlines() if len(line) >= 8)}:
            found |= {
                part,
                json.dumps(part)[1:-1],
                json.dumps(part, ensure_ascii=False)[1:-1],
                quote(part, safe="", errors="replace"),
            }
    return tuple(sorted(found - {""}, key=lambda each: (-len(each), each)))


class DumpCapture:
    """What the Go runtime prints when it aborts rclone (SIGQUIT, panic): thousands of plain lines, one stack each.

    It begins with the first line that only the runtime writes; with `expected`, at the first line that is no record
    of rclone's log. Kept are whole lines, so that a secret is masked whole, of at most `limit_bytes` together.
    """

    def __init__(self, *, expected: bool = False, limit_bytes: int = MAX_DUMP_BYTES) -> None:
        self._taking = expected
        self._limit_bytes = limit_bytes
        self._lines: list[str] = []
        self.cause = ""
        """why it aborted: the signal or the panic; empty when that was lost, or nothing was taken"""
        self._bytes = 0
        self._full = False

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)

    def feed(self, line: str) -> bool:
        """Whether the line belongs to the dump, and is nothing for a log. What rclone died of is for both: False."""
        panic = _PANIC.match(line) is not None
        if not self._taking:
            self._taking = panic or _DUMP_BEGIN.match(line) is not None
        if not self._taking or _LOGGED.match(line):
            return False
        if not self.cause and (panic or _SIGNAL.match(line)):
            self.cause = line
        size = len(line.encode("utf-8", "replace")) + 1
        if self._full or self._bytes + size > self._limit_bytes:
            self._full = True
        else:
            self._lines.append(line)
            self._bytes += size
        return not panic
