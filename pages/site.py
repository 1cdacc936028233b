"""A hook of MkDocs: files of the repository that the pages link to are on the site as well, below `repository/`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

BELOW = "repository"
_ROW = re.compile(r"^ *\|.*$", re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")
_OUTSIDE = re.compile(r"\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")


def outside(text: str) -> set[str]:
    """Paths in the repository, outside of docs/, that a page links to."""
    return {found[1] for found in _OUTSIDE.finditer(text)}


def inside(text: str) -> str:
    """The page with these links leading to their copies on the site.

    In a code of a table GitHub wants a backslash before a bar, and MkDocs shows it.
    """
    text = _OUTSIDE.sub(lambda found: f"]({BELOW}/{_shown(found[1])})", text)
    return _ROW.sub(lambda row: _CODE.sub(lambda code: code[0].replace("\\|", "|"), row[0]), text)


def _shown(path: str) -> str:
    """A browser shows text as text only if its name says so."""
    return path if path.endswith((".svg", ".png")) else f"{path}.txt"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """A page of the menu that is not there is left out: parts of mountd bring their own pages."""
    assert isinstance(config.nav, list)
    config.nav = [kept for entry in config.nav if (kept := _existing(entry, config.docs_dir))]
    return config


def _existing(entry: dict[str, Any], docs: str) -> dict[str, Any] | None:
    """An entry of the menu, `{title: page}` or `{title: [entries]}`, with the pages that are there."""
    ((title, what),) = entry.items()
    if isinstance(what, str):
        return entry if os.path.exists(os.path.join(docs, what)) else None
    return {title: [kept for each in what if (kept := _existing(each, docs))]}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    from mkdocs.structure.files import File

    top = os.path.dirname(config.docs_dir)
    wanted: set[str] = set()
    for page in files.documentation_pages():
        if page.abs_src_path:
            with open(page.abs_src_path, encoding="utf-8") as text:
                wanted |= outside(text.read())
    for path in sorted(wanted):
        name = f"{BELOW}/{_shown(path)}"
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, abs_src_path=os.path.join(top, path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    return inside(markdown)
