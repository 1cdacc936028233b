"""What the command line prints, all of it: text from outside cannot move a terminal's cursor, nor pass for other text.

Escape sequences, control characters and marks that reorder text are written as escapes (`\\x1b`); line ends and tabs
stay. Besides this module only view.py writes to a stream, and click its own help.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TextIO

import click

from mountd.cli.wrap import columns, cut, wrapped
from mountd.text import dumps, printable

KEPT = "\n\t"
ERASED = "\r\x1b[2K"
"""To the beginning of the line, and empty it."""


def say(
    message: object = "", *, err: bool = False, nl: bool = True, mark: str = "", colour: str = "", wrap: bool = True
) -> None:
    """`mark`: a word of our own before it, in that colour on a terminal that shows colours.

    On a terminal long lines are broken between words, unless not to `wrap`: YAML, commands, scripts.
    """
    text = printable(str(message), keep=KEPT)
    if wrap and (width := _width(sys.stderr if err else sys.stdout)):
        text = wrapped(text, width, before=columns(mark))
    if mark:
        shown = is_coloured(sys.stderr if err else sys.stdout)
        click.echo(f"{click.style(mark, fg=colour)}{text}", err=err, nl=nl, color=shown)
    else:
        click.echo(text, err=err, nl=nl)


def say_json(document: Mapping[str, object], *, indent: int | None = 2) -> None:
    click.echo(dumps(document, indent=indent))


def flush() -> None:
    """What is still to be written to stdout."""
    sys.stdout.flush()


def size(count: float) -> str:
    """Bytes → `1.2 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _width(stream: TextIO) -> int:
    """Columns of the terminal that it leads to, 0 when it leads elsewhere."""
    try:
        if not stream.isatty():
            return 0
        return os.get_terminal_size(stream.fileno()).columns or 80  # some terminals say 0
    except (OSError, ValueError, AttributeError):
        return 0


def is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (OSError, ValueError, AttributeError):
        return False


def can_move(stream: TextIO) -> bool:
    """Whether it leads to a terminal that can write over what it shows."""
    return is_terminal(stream) and os.environ.get("TERM", "") not in ("dumb", "unknown")


def is_coloured(stream: TextIO) -> bool:
    """By the terminal and what has become usual: $NO_COLOR is never, $CLICOLOR_FORCE and $FORCE_COLOR always."""
    environ = os.environ
    if environ.get("NO_COLOR"):
        return False
    if any(environ.get(name, "0") not in ("0", "", "false") for name in ("CLICOLOR_FORCE", "FORCE_COLOR")):
        return True
    return can_move(stream) and environ.get("CLICOLOR", "1") != "0"


def is_narrow(needed: int) -> bool:
    """Whether stdout is a terminal with fewer columns."""
    return 0 < _width(sys.stdout) < needed


def write_over(line: str, *, mark: str = "", colour: str = "") -> None:
    """One line of progress at stderr, in place of the one before it; empty: none. For terminals only.

    `mark`: a part of it that is shown in that colour.
    """
    shown = cut(printable(line), (_width(sys.stderr) or 80) - 1)
    if mark and is_coloured(sys.stderr):
        shown = shown.replace(mark, click.style(mark, fg=colour), 1)
    sys.stderr.write(f"{ERASED}{shown}")
    sys.stderr.flush()
