"""Draws tables and lines with rich: colour on a terminal only, no line broken elsewhere, as safe as terminal.py."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from mountd.cli.labels import word as translated
from mountd.cli.terminal import can_move, is_coloured, is_terminal
from mountd.i18n import _
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
    """A console on stdout that, off a terminal, never wraps; with colours as terminal.py decides."""
    here, coloured = is_terminal(sys.stdout), is_coloured(sys.stdout)
    return Console(
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=here or coloured,
        no_color=not coloured,
        color_system="standard" if coloured and not can_move(sys.stdout) else "auto",
        width=None if here else OFF_TERMINAL_COLUMNS,
    )


def text(value: object, style: str = "") -> Text:
    """`value` as it is, with the colour of its word when it has one."""
    words = printable(str(value), keep="\n")
    return Text(words, style=style or COLOURS.get(words, ""))


def word(value: object, style: str = "") -> Text:
    """One of the words in labels.py, in the language of the reader and in its colour; any other as it is."""
    return text(translated(value), style or COLOURS.get(str(value), ""))


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
    Headings are given in English, and shown in the language of the reader.
    """
    cells = [[cell if isinstance(cell, Text) else text(cell) for cell in row] for row in rows]
    titles = [_(heading) for heading in headings]
    shown = fitting(headings, [[widest(cell) for cell in row] for row in cells], optional, width)
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for at in shown:
        last = at == shown[-1]
        justify: Literal["left", "right"] = "right" if headings[at] in right else "left"
        made.add_column(titles[at], justify=justify, overflow="fold", no_wrap=not last)
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
    needs = [max([cell_len(_(heading)), *(row[at] for row in widths)]) for at, heading in enumerate(headings)]
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
    if on.width != OFF_TERMINAL_COLUMNS:
        on.print(Printable(drawing))
        return
    with on.capture() as captured:
        on.print(Printable(drawing))
    on.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    on.file.flush()
