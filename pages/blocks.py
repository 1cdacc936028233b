"""The generated parts of a page: what stands between two markers."""

from __future__ import annotations

import re
from collections.abc import Sequence


def begin(name: str) -> str:
    return f"<!-- {name}: ./dev docs --write -->"


def end(name: str) -> str:
    return f"<!-- end of {name} -->"


def replace(page: str, name: str, text: str) -> str:
    """The page with `text` between the markers of the block `name`. Raises ValueError when they are not there."""
    head, first, rest = page.partition(begin(name))
    _, last, tail = rest.partition(end(name))
    if not (first and last):
        raise ValueError(f"no {begin(name)} … {end(name)} in the page")
    return f"{head}{first}\n\n{text.strip()}\n\n{last}{tail}"


def cell(text: str) -> str:
    """Text for a cell of a table, on one line."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return (
        "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)
        .replace("| --- ", "|---")
        .replace("--- |", "---|")
    )
