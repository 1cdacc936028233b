"""The dashboard's files: who gets them, with which headers, and that they name nothing of elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from mountd.api import pages
from mountd.api.server import NOBODY
from mountd.cli import completion, labels
from mountd.codes import CODES
from mountd.operation.plan import Step, Undo
from mountd.status.causes import CAUSES
from mountd.status.causes_itself import OUTSIDE
from mountd.status.snapshot import Health, ModelStage, MountStage, State, Sync
from tests.support.admitted import EVERYWHERE, HERE, Admitting, admitting


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Admitting]:
    async with admitting(tmp_path) as found:
        yield found


def test_each_file_of_the_directory_is_served_and_no_other() -> None:
    assert {each.name for each in pages.DIRECTORY.iterdir()} == set(pages.FILES)


@pytest.mark.parametrize("listen", [HERE, EVERYWHERE])
async def test_everybody_gets_the_page_and_nothing_secret_with_it(api: Admitting, listen: str) -> None:
    """So that there is a form to log in with."""
    await api.listen(NOBODY, listen=listen)
    for path in ("/", *(f"/dashboard/{name}" for name in pages.FILES)):
        answer = await api.ask(path)
        assert answer.status == 200, path
        assert answer.headers["Content-Security-Policy"] == pages.POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert (await api.ask("/")).headers["Content-Type"] == "text/html; charset=utf-8"
    assert (await api.ask("/dashboard/app.js")).headers["Content-Type"] == "text/javascript; charset=utf-8"


def test_the_policy_allows_no_code_but_that_of_the_files() -> None:
    found = dict(each.strip().partition(" ")[::2] for each in pages.POLICY.split(";"))
    assert found["default-src"] == found["base-uri"] == found["frame-ancestors"] == "'none'"
    assert {found[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert "unsafe" not in pages.POLICY


def test_nothing_is_loaded_from_elsewhere_and_no_markup_is_made_of_text() -> None:
    for name in pages.FILES:
        text = (pages.DIRECTORY / name).read_text()
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert addresses == set(), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text), (
            name
        )
        assert not re.search(r"\son\w+=|\sstyle=|<script(?! type=\"module\" src=)|javascript:", text), name


async def test_what_has_not_changed_is_not_sent_again(api: Admitting) -> None:
    await api.listen()
    first = await api.ask("/dashboard/app.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await api.ask("/dashboard/app.js", If_None_Match=first.headers["ETag"])
    assert (again.status, again.text) == (304, "")
    assert (await api.ask("/dashboard/app.js", If_None_Match='"other"')).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/",
        "/dashboard/nothing.js",
        "/dashboard/../pages.py",
        "/dashboard/..%2fpages.py",
        "/dashboard/%2e%2e/pages.py",
        "/dashboard/..%252fpages.py",
        "/dashboard//etc/passwd",
        "/dashboard/%2fetc%2fpasswd",
        "/dashboard/app.js%00",
        "/dashboard/app.js/",
        "/dashboard/APP.JS",
        "/dashboard/..\\pages.py",
        "/dashboard/index.html%2f..%2f..%2fpages.py",
        "/%2e%2e/%2e%2e/etc/passwd",
    ],
)
async def test_no_name_of_a_request_becomes_a_path(api: Admitting, path: str) -> None:
    await api.listen()
    url = URL(f"http://127.0.0.1:{api.port}{path}", encoded=True)
    async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False) as answer:
        assert answer.status in (400, 404), await answer.text()


async def test_the_catalogue_is_json(api: Admitting) -> None:
    await api.listen()
    answer = await api.ask("/dashboard/zh_CN.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert all(isinstance(each, str) for pair in json.loads(answer.text).items() for each in pair)


def test_the_page_has_words_for_every_code() -> None:
    """Of events, and of root causes that a running daemon can have: those without one are in the explanation only."""
    words = (pages.DIRECTORY / "words.js").read_text()
    named = set(re.findall(r'^ {4}"?([a-z-]+)"?: t\(', words, re.MULTILINE))
    assert ({*CODES} | {*CAUSES}) - {*OUTSIDE} - named == set()


@pytest.mark.parametrize(
    ("table", "known"),
    [
        ("health", [*Health]),
        ("state", [*State]),
        ("stage", [*MountStage, *ModelStage]),
        ("sync", [*Sync]),
        ("kind", completion.KINDS),
        ("result", completion.RESULTS),
        ("level", labels.LEVELS),
        ("step", [*Step, *Undo, *labels.OTHER_STEPS]),
    ],
)
def test_the_page_has_words_for_each_word_of_the_daemon(table: str, known: Sequence[str]) -> None:
    """What it has none for stands there in English, whatever the language."""
    text = (pages.DIRECTORY / "words.js").read_text()
    (body,) = re.findall(rf"^export const {table} = table\(\(\) => \(\{{(.*?)\}}\)\);", text, re.MULTILINE | re.DOTALL)
    assert {*known} - {*re.findall(r'"?([\w-]+)"?: t\(', body)} == set()
