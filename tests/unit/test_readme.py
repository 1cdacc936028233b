"""The Chinese README says what the English one does: the same parts, commands, codes and links, in the same order."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGLISH, CHINESE = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))
BLOCK = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


def without_blocks(text: str) -> str:
    return BLOCK.sub("", text)


def headings(text: str) -> list[int]:
    """The level of each."""
    return [len(each) for each in re.findall(r"^(#+) ", without_blocks(text), re.MULTILINE)]


def blocks(text: str) -> list[str]:
    return BLOCK.findall(text)


def tables(text: str) -> list[list[str]]:
    """The first column of each row below the headings, and how many columns there are."""
    found: list[list[str]] = []
    inside = False
    for line in without_blocks(text).splitlines():
        cells = re.split(r"(?<!\\)\|", line)[1:-1] if line.startswith("|") else []
        if cells and set(cells[0]) <= {"-"}:
            found.append([])
            inside = True
        elif cells and inside:
            found[-1].append(f"{len(cells)} {cells[0].strip()}")
        elif not cells:
            inside = False
    return found


def links(text: str) -> list[str]:
    found = re.findall(r"\]\(([^)]+)\)", text)
    return [each for each in found if each not in ("README.md", "README.zh-CN.md")]


def options(text: str) -> set[str]:
    """What stands in backquotes outside of tables: commands, keys, names of files."""
    return set(re.findall(r"`([^`]+)`", re.sub(r"^\|.*$", "", without_blocks(text), flags=re.MULTILINE)))


@pytest.mark.parametrize("part", [headings, blocks, tables, links, options], ids=lambda part: part.__name__)
def test_the_chinese_readme_is_in_step(part: Callable[[str], object]) -> None:
    assert part(ENGLISH)
    assert part(CHINESE) == part(ENGLISH)


def test_each_readme_links_to_the_other() -> None:
    assert "](README.zh-CN.md)" in ENGLISH
    assert "](README.md)" in CHINESE


def test_what_is_compared_can_differ() -> None:
    assert tables("| a | b |\n|---|---|\n| x | y |\n| `a\\|b` | z |\n") == [["2 x", "2 `a\\|b`"]]
    assert headings("# a\n```sh\n# no\n```\n## b\n") == [1, 2]
