"""`python -m pages [--write]`: are the generated parts of the pages what the code says? With --write they become it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pages import commands, configuration, events
from pages.blocks import replace

TOP = Path(__file__).parents[1]
BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "docs/configuration.md": {"keys": configuration.render},
    "docs/commands.md": {"commands": commands.render, "exit codes": commands.render_exit_codes},
    "docs/events.md": {"events": events.render},
}
"""page → name of a block in it → its text"""


def generated() -> Iterator[tuple[Path, str, str]]:
    """Each page with generated parts: its path, its text as it is, and as it should be."""
    for name, blocks in BLOCKS.items():
        path = TOP / name
        text = new = path.read_text(encoding="utf-8")
        for block, render in blocks.items():
            new = replace(new, block, render())
        yield path, text, new


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev docs", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write them")
    write, code = parser.parse_args(words).write, 0
    for path, text, new in generated():
        if text == new:
            continue
        if write:
            path.write_text(new, encoding="utf-8")
        code = 0 if write else 1
        print(f"{path.relative_to(TOP)} {'written' if write else 'is not what the code says: ./dev docs --write'}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
