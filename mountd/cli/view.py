"""Draws tables and lines with rich: colour on a terminal only, no line broken elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OFF_TERMINAL_COLUMNS = 4096

COLOURS = {
    "Healthy": "green", "Synced": "green", "running": "green", "ok": "green", "yes": "green",
    "Progressing": "cyan", "Suspended": "blue", "starting": "cyan",
    "Degraded": "yellow", "OutOfSync": "yellow", "backoff": "yellow", "warn": "yellow",
    "Missing": "red", "failed": "red", "fail": "red", "quarantined": "red",
}  # fmt: skip

# Escape sequences in a file's name or a program's message would be obeyed by the terminal.
_CONTROL = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\N{REPLACEMENT CHARACTER}")


def console() -> Console:
    """A console on stdout that honours NO_COLOR and, off a terminal, never wraps."""
    made = Console(highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made = Console(highlight=False, markup=False, emoji=False, width=OFF_TERMINAL_COLUMNS)
    return made


def text(value: object, style: str = "") -> Text:
    """`value` as it is, with the colour of its word when it has one."""
    words = str(value).translate(_CONTROL)
    return Text(words, style=style or COLOURS.get(words, ""))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> Table:
    """Columns with two spaces between; a cell is anything rich draws, or a value. `right`: headings aligned right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in row))
    return made


def show(on: Console, drawing: RenderableType) -> None:
    """Print, off a terminal without the spaces that fill up a table's last column."""
    if on.is_terminal:
        on.print(drawing)
        return
    with on.capture() as captured:
        on.print(drawing)
    on.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    on.file.flush()


def size(count: int | None) -> str:
    """Bytes → `1.2 GiB`; "" when unknown."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds → `42 s`, `5 m 3 s`, `2 h 10 m`, `3 d 4 h`."""
    whole = int(seconds)
    for big, small, unit, rest in ((86400, 3600, "d", "h"), (3600, 60, "h", "m"), (60, 1, "m", "s")):
        if whole >= big:
            return f"{whole // big} {unit} {whole % big // small} {rest}"
    return f"{whole} s"
