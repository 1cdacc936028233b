"""Draws tables and lines with rich: colour on a terminal only, no line broken elsewhere, as safe as terminal.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from mountd.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OFF_TERMINAL_COLUMNS = 4096
GAP = 2
SHORT_DIGEST = 12
"""Characters of a digest that tell versions apart; `-o json` has all of it."""
LAST_COLUMNS = 24
"""What is left of the last column where a terminal is narrow."""

COLOURS = {
    "Healthy": "green", "Synced": "green", "running": "green", "ok": "green", "yes": "green",
    "Progressing": "cyan", "Suspended": "blue", "starting": "cyan",
    "Degraded": "yellow", "OutOfSync": "yellow", "backoff": "yellow", "warn": "yellow",
    "Missing": "red", "failed": "red", "fail": "red", "quarantined": "red",
}  # fmt: skip


def console() -> Console:
    """A console on stdout that honours NO_COLOR and, off a terminal, never wraps."""
    made = Console(highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made = Console(highlight=False, markup=False, emoji=False, width=OFF_TERMINAL_COLUMNS)
    return made


def text(value: object, style: str = "") -> Text:
    """`value` as it is, with the colour of its word when it has one."""
    words = printable(str(value), keep="\n")
    return Text(words, style=style or COLOURS.get(words, ""))


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    optional: Sequence[str] = (),
    width: int = OFF_TERMINAL_COLUMNS,
) -> Table:
    """Columns with two spaces between; a cell is anything rich draws, or a value. Only the last one is ever wrapped.

    `right`: headings aligned right. `optional`: those that go first, in this order, where `width` is too little.
    """
    cells = [[cell if isinstance(cell, Text) else text(cell) for cell in row] for row in rows]
    shown = fitting(headings, [[widest(cell) for cell in row] for row in cells], optional, width)
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for at in shown:
        last = at == shown[-1]
        justify: Literal["left", "right"] = "right" if headings[at] in right else "left"
        made.add_column(headings[at], justify=justify, overflow="fold", no_wrap=not last)
    for row in cells:
        made.add_row(*(row[at] for at in shown))
    return made


def widest(cell: Text) -> int:
    """Columns that its longest line takes."""
    return max((line.cell_len for line in cell.split()), default=0)


def fitting(headings: Sequence[str], widths: Sequence[Sequence[int]], optional: Sequence[str], width: int) -> list[int]:
    """Which columns are shown: all but as many of `optional`, from the first on, as it takes to fit into `width`.

    The last column may be wrapped, so it counts with at most LAST_COLUMNS.
    """
    shown = list(range(len(headings)))
    needs = [max([len(heading), *(row[at] for row in widths)]) for at, heading in enumerate(headings)]
    if needs:
        needs[-1] = min(needs[-1], LAST_COLUMNS)
    for heading in optional:
        if sum(needs[at] for at in shown) + GAP * (len(shown) - 1) <= width:
            break
        shown.remove(headings.index(heading))
    return shown


class Printable:
    """`drawing` without what a terminal would obey, whatever was put into it; but what rich itself adds."""

    def __init__(self, drawing: RenderableType) -> None:
        self._drawing = drawing

    def __rich_console__(self, on: Console, options: ConsoleOptions) -> RenderResult:
        for segment in on.render(self._drawing, options):
            safe = segment.control or segment.text == "\n"
            yield segment if safe else Segment(printable(segment.text, keep="\n"), segment.style)


def show(on: Console, drawing: RenderableType) -> None:
    """Print, off a terminal without the spaces that fill up a table's last column."""
    if on.is_terminal:
        on.print(Printable(drawing))
        return
    with on.capture() as captured:
        on.print(Printable(drawing))
    on.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    on.file.flush()


def duration(seconds: float) -> str:
    """Seconds → `42 s`, `5 m 3 s`, `2 h 10 m`, `3 d 4 h`."""
    whole = int(seconds)
    for big, small, unit, rest in ((86400, 3600, "d", "h"), (3600, 60, "h", "m"), (60, 1, "m", "s")):
        if whole >= big:
            return f"{whole // big} {unit} {whole % big // small} {rest}"
    return f"{whole} s"
