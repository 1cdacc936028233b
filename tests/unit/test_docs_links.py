"""The links of all pages: each leads to a file that is there, and to a headline in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.docs_pages import DOCS, PAGES, TOP, anchors, inline, links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    broken = [each for each in links(text) if not leads_somewhere(page, each)]
    assert broken == []


def leads_somewhere(page: Path, link: str) -> bool:
    if "://" in link:
        return True
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(TOP):
        return False
    translated = target.with_suffix(f".{page.stem.rpartition('.')[2]}.md")  # the site shows that one instead
    if page.stem.endswith(".zh") and translated.exists():
        target = translated
    return not anchor or (target.suffix == ".md" and anchor in anchors(target.read_text()))


def test_each_page_can_be_found() -> None:
    """From the first page and the README, by links alone."""
    found, left = set[Path](), [TOP / "docs" / "index.md", TOP / "README.md"]
    while left:
        page = left.pop()
        if page in found or page.suffix != ".md" or not page.exists():
            continue
        found.add(page)
        left += [
            (page.parent / each.partition("#")[0]).resolve() for each in links(page.read_text()) if "://" not in each
        ]
    assert {page.name for page in DOCS if not page.stem.endswith(".zh")} - {page.name for page in found} == set()


def test_a_broken_link_is_seen() -> None:
    page = TOP / "docs" / "index.md"
    assert leads_somewhere(page, "quick-start.md")
    assert not leads_somewhere(page, "quick-star.md")
    assert leads_somewhere(page, "install.md#start")
    assert not leads_somewhere(page, "install.md#begin")
    assert not leads_somewhere(page, "../../elsewhere.md")


def test_each_test_that_a_page_names_exists() -> None:
    files = [*(TOP / "tests").rglob("test_*.py")]
    known = {path.name for path in files}.union(*(re.findall(r"def (test_\w+)", path.read_text()) for path in files))
    named = {
        name for page in PAGES for text in inline(page.read_text()) for name in re.findall(r"\btest_\w+(?:\.py)?", text)
    }
    assert named - known == set()
