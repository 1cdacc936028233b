"""The dashboard: its page and the files that it loads, read once from the package, and the catalogue of its texts."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from mountd.api.documents.requests import NoQuery
from mountd.api.roles import Route, RouteAccess
from mountd.api.route import get
from mountd.errors import NotFound
from mountd.i18n import translation
from mountd.text import dumps

DIRECTORY = Path(__file__).with_name("dashboard")
PAGE = "index.html"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
FILES = (
    PAGE,
    "api.js",
    "app.js",
    "charts.js",
    "dialogs.js",
    "dom.js",
    "headline.js",
    "i18n.js",
    "icon.svg",
    "icons.js",
    "journal.js",
    "models.js",
    "operation.js",
    "style.css",
    "topology.js",
    "words.js",
)
"""All that is served: no name of a request ever becomes a path."""
CATALOGUES = {"zh_CN.json": "zh_CN"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load and do: nothing but its own files, no script or style in the page itself."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-cache",  # a browser asks each time whether it has changed
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """`tag` changes with the content."""

    content: bytes
    kind: str
    tag: str


class Pages:
    """Nothing in them is secret: who may not read yet sees a form to log in."""

    def __init__(self) -> None:
        self._files: dict[str, PageFile] | None = None

    def routes(self) -> list[Route]:
        """304, without a body, is for a browser that has it already."""
        files = {**dict.fromkeys(KINDS.values(), str), "application/json": dict[str, str]}
        return [
            get("/", self.page, NoQuery, {200: {"text/html": str}}, RouteAccess.OPEN),
            get("/dashboard/{name}", self.file, NoQuery, {200: files}, RouteAccess.OPEN),
        ]

    async def page(self, request: web.Request, _: NoQuery) -> web.Response:
        """The dashboard, a page for people."""
        return await self._answer(request, PAGE)

    async def file(self, request: web.Request, _: NoQuery) -> web.Response:
        """A file that the dashboard loads."""
        return await self._answer(request, request.match_info["name"])

    async def _answer(self, request: web.Request, name: str) -> web.Response:
        if name not in FILES and name not in CATALOGUES:
            raise NotFound("cannot find this file of the dashboard")
        if self._files is None:
            self._files = await asyncio.to_thread(_read)
        found = self._files[name]
        headers = {**HEADERS, "ETag": f'"{found.tag}"'}
        if any(each.value == found.tag for each in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=found.content, content_type=found.kind, charset="utf-8", headers=headers)


def _read() -> dict[str, PageFile]:
    """Blocks."""
    found = {name: _file((DIRECTORY / name).read_bytes(), KINDS[Path(name).suffix]) for name in FILES}
    for name, language in CATALOGUES.items():
        found[name] = _file(dumps(translation(language).messages()).encode(), "application/json")
    return found


def _file(content: bytes, kind: str) -> PageFile:
    return PageFile(content, kind, hashlib.sha256(content).hexdigest()[:32])
