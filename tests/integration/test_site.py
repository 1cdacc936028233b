"""The site of docs/ builds without a warning, in both languages, and nothing on it comes from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.docs_pages import TOP

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("material") is None, reason="the group `docs` is not installed: ./dev docs"
)
BUILD_S = 100.0


def test_it_is_complete_and_stands_alone(tmp_path: Path) -> None:
    """One test, because each one would build it again."""
    site = built(tmp_path / "site")
    has_both_languages(site)
    loads_nothing_from_elsewhere(site)
    leads_to_what_is_there(site)


def built(place: Path) -> Path:
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        cwd=TOP,
        env=os.environ
        | {"NO_MKDOCS_2_WARNING": "1", "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "WARNING" not in ended.stderr
    return place


class Found(HTMLParser):
    """What a page loads, where it leads, and what may be led to in it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.add(given.get("id") or "")
        if tag == "a" and given.get("href"):
            self.leads.append(given["href"] or "")
        elif tag == "link" and given.get("rel") not in ("canonical", "prev", "next", "alternate"):
            self.loads.append(given.get("href") or "")
        elif tag in ("script", "img", "iframe", "source"):
            self.loads.append(given.get("src") or "")


def pages(site: Path) -> Iterator[Path]:
    return (page for page in site.rglob("*.html") if page.name != "404.html")


def has_both_languages(site: Path) -> None:
    for name in ("quick-start.html", "install.html", "troubleshooting.html", "index.html"):
        assert 'lang="en"' in (site / name).read_text()
        assert 'lang="zh"' in (site / "zh" / name).read_text()
    assert re.search(r"[\u4e00-\u9fff]{4}", (site / "zh/quick-start.html").read_text())


def loads_nothing_from_elsewhere(site: Path) -> None:
    far = {each for page in pages(site) for each in Found(page).loads if urlsplit(each).netloc}
    assert far == set()
    styles = "".join(sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css"))
    assert re.findall(r"url\(['\"]?https?:[^)]*\)|@import[^;]*https?:[^;]*;", styles) == []


def leads_to_what_is_there(site: Path) -> None:
    found = {page: Found(page) for page in pages(site)}
    broken = []
    for page, what in found.items():
        for link in [*what.leads, *filter(None, what.loads)]:
            parts = urlsplit(link)
            if parts.netloc or parts.scheme:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.exists() or (anchor and target in found and anchor not in found[target].ids):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert broken == []
