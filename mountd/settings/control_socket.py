"""Which control socket a file names, also when all the rest of it is broken: only then is it needed most."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mountd.errors import ConfigError, Problem, cause_of
from mountd.settings.plain_file import read_plain
from mountd.settings.source import MAX_BYTES, BadSource, decode, read

MAX_SECTIONS = 8
"""Of each name there should be one."""
_SECTION = re.compile(r"^(?:control|runtime)[ \t]*:.*(?:\n(?:[ \t].*|#.*|[ \t]*)$)*", re.MULTILINE)
_SOCKET = re.compile(r"""\bsocket\s*:\s*["']?(/[^\s"',}]+)""")


def named_in(path: Path) -> str:
    """The socket that the file at `path` names, "" when it names none or cannot be understood that far.

    Its default depends on who runs the daemon, not on who asks. Raises ConfigError when there is no such file: a name
    that was mistyped must not lead to another daemon.
    """
    try:
        return named(decode(read_plain(path, MAX_BYTES)))
    except (PermissionError, BadSource):
        return ""
    except OSError as error:
        cause = cause_of(error)
        raise ConfigError(str(path), [Problem("", 0, cause)], hint="name another file, or `--socket PATH`") from None


def named(text: str) -> str:
    """As `named_in`, for a text."""
    data: dict[str, Any] = {}
    for part in _parts(text):
        try:
            found = read(part).data
        except BadSource:
            found = {}
            if match := _SOCKET.search(part) if part.startswith("control") else None:
                found = {"control": {"socket": match[1]}}
        if isinstance(found, dict):
            data = found | data
    control = data.get("control")
    socket = control.get("socket") if isinstance(control, dict) else None
    if _is_path(socket):
        return str(socket)
    runtime = data.get("runtime")
    return os.path.join(str(runtime), "mountd.sock") if _is_path(runtime) else ""


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _parts(text: str) -> Iterator[str]:
    """The whole, and for the case that it is no YAML, each of the two sections by itself."""
    yield text
    for match in islice(_SECTION.finditer(text), MAX_SECTIONS):
        yield match[0]
