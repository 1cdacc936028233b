"""The figures of `./dev bench load` as plots and as part of `docs/performance.md`: `./dev bench render`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from bench.load_figures import SCHEMA, Result, figure, marks_table, summary

TOP = Path(__file__).parents[1]
RESULTS = TOP / "bench" / "results"
FIGURES, PAGE = RESULTS / "load.json", TOP / "docs" / "performance.md"
BEGIN, END = "<!-- figures: ./dev bench render -->", "<!-- end of the figures -->"
PLOTTED = ("seconds", "load_s")
"""The figure that a plot shows: the first of these that a case has."""
BAR, GAP, LEFT, WIDTH, RIGHT = 18, 8, 230, 420, 110
FONT = 'font-family="sans-serif" font-size="13"'


def read(path: Path) -> dict[str, Any]:
    """The document, an empty one when there is none. Raises ValueError when it is of another kind."""
    if not path.exists():
        return {"schema": SCHEMA, "machine": {}, "shape": "", "peers": {}, "cases": []}
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {document.get('schema')}, not {SCHEMA}")
    return document


def results(document: dict[str, Any]) -> list[Result]:
    return [Result.from_json(each) for each in document["cases"]]


def plot(result: Result) -> str:
    """A bar for each contestant, as long as its median; empty when the case has no seconds."""
    of = next((name for name in PLOTTED if any(name in each.figures for each in result.samples)), "")
    bars = [(who, statistics.median(found)) for who in result.contestants if (found := result.values(who, of))]
    if not of or len(bars) < 2:
        return ""
    longest = max(value for _, value in bars) or 1.0
    height = 34 + len(bars) * (BAR + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{height}" role="img">',
        f'<rect width="100%" height="100%" fill="white"/><title>{escape(result.title)}</title>',
        f'<text x="8" y="18" {FONT} font-weight="bold">{escape(result.title)}: {"load" if of == "load_s" else ""}'
        f" seconds, less is better</text>".replace(":  ", ": "),
    ]
    for number, (who, value) in enumerate(bars):
        y = 30 + number * (BAR + GAP)
        length = max(1.0, value / longest * WIDTH)
        colour = "#2a6fb0" if who.startswith("mountd") else "#b8b8b8"
        lines += [
            f'<text x="{LEFT - 8}" y="{y + 14}" {FONT} text-anchor="end">{escape(who)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{LEFT + length + 6:.1f}" y="{y + 14}" {FONT}>{figure(of, value)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def block(document: dict[str, Any]) -> str:
    """What stands between the markers of the page."""
    found, machine = results(document), document["machine"]
    if not found:
        return "Not measured yet."
    peers = ", ".join(f"{name} {version}" for name, version in document["peers"].items())
    parts = [
        f"Machine: {machine['text']}. Peers: {peers or 'none installed'}.",
        f"The bucket is behind a proxy: {document['shape']}.",
        "## At a glance\n\n" + marks_table(found),
        "## Case by case",
    ]
    for result in found:
        picture = f"\n\n![{result.title}](../bench/results/{result.case}.svg)" if plot(result) else ""
        parts.append(summary(result) + picture)
    return "\n\n".join(parts)


def with_block(page: str, text: str) -> str:
    """The page with `text` between its markers. Raises ValueError when they are not there."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no {BEGIN} … {END} in the page")
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"


def write_plots(found: Sequence[Result], directory: Path) -> None:
    for result in found:
        if text := plot(result):
            (directory / f"{result.case}.svg").write_text(text, encoding="utf-8")


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench render", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 when the page says something else")
    given = parser.parse_args(words)
    document = read(FIGURES)
    page = PAGE.read_text(encoding="utf-8")
    new = with_block(page, block(document))
    if given.check:
        return 1 if new != page else 0
    PAGE.write_text(new, encoding="utf-8")
    write_plots(results(document), RESULTS)
    print(f"{PAGE.relative_to(TOP)} shows {len(document['cases'])} cases", file=sys.stderr)
    return 0
