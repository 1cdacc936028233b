"""The dashboard in a real browser, over a real daemon: how to log in there, and what it shows."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from mountd.demo import hub
from tests.support.browser import LIMIT_MS, seen_without_scrolling, tab
from tests.support.daemon import Daemon
from tests.support.wait import until

OPERATOR, READER = "operator-0123456789abcdef", "reader-0123456789abcdef"
LINES = f"operator ci {OPERATOR}\nreader ann {READER}\n"
ANSWERS = {
    "is it well": "#verdict",
    "what is live": "#fact-live",
    "who switched last": "#fact-last",
    "how long still": "#fact-now",
}
"""Five questions, and where the page answers four of them; the fifth is WHY."""
WHY = "#reason"
expect.set_options(timeout=LIMIT_MS)


def give_tokens(daemon: Daemon, lines: str = LINES) -> Path:
    """Before its start, or while it runs: then they count once it has noticed."""
    path = daemon.root / "tokens"
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(lines)
    new.replace(path)
    daemon.config["http"]["tokens"] = {"file": str(path)}
    return path


@contextmanager
def dashboard(browser: Browser, daemon: Daemon, *, waits: bool = True, **changes: Any) -> Iterator[Page]:
    """Its page; `waits`: for the status and the versions."""
    with tab(browser, f"http://127.0.0.1:{daemon.http_port}/", **changes) as page:
        if waits:
            expect(page.locator("#verdict")).to_be_visible()
            expect(page.locator("tbody tr").first).to_be_visible()
        yield page


def log_in(page: Page, token: str = OPERATOR) -> None:
    page.get_by_role("banner").get_by_role("button", name="Log in").click()
    page.get_by_label("Token").fill(token)
    page.get_by_role("dialog").get_by_role("button", name="Log in").click()
    expect(page.locator(".who")).to_be_visible()


def check_answers(page: Page, *, why: bool = False) -> None:
    """Each is where nobody has to scroll for it."""
    for question, place in {**ANSWERS, **({"why not": WHY} if why else {})}.items():
        expect(page.locator(place), question).to_have_text(re.compile(r"\S"))
        # What loads above it may push it down for a moment.
        until(partial(seen_without_scrolling, page, place), LIMIT_MS / 1000, f"{question} to be seen")


def add_versions(bucket: Path, count: int) -> None:
    """Complete ones, each with two small files: `v1000` and so on."""
    for number in range(1000, 1000 + count):
        directory = bucket / f"cache_hub_v{number}"
        (directory / "models").mkdir(parents=True)
        (directory / "models" / "gpt.pth").write_bytes(b"%d" % number)
        (directory / hub.MANIFEST).write_bytes(hub.manifest(directory, f"v{number}"))


def add_events(daemon: Daemon, count: int, *, text: str = "storage is running") -> None:
    """Into the journal of a daemon that does not run."""
    row = ("2026-01-01T00:00:00Z", "mount-running", "storage", text, "")
    with closing(sqlite3.connect(daemon.root / "state" / "mountd.db")) as journal, journal:
        journal.executemany("INSERT INTO events (time, code, object, text, data) VALUES (?, ?, ?, ?, ?)", [row] * count)


def add_operation(daemon: Daemon, **fields: Any) -> None:
    """Into the journal of a daemon that does not run."""
    row = {
        "kind": "switch",
        "model": "cache_hub",
        "from_version": "v22",
        "to_version": "v23",
        "operator": "tina",
        "source": "cli",
        "reason": "",
        "step": "commit",
        "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:00:10Z",
        "result": "committed",
        "exit_code": 0,
        "duration_s": 10.0,
        **fields,
    }
    with closing(sqlite3.connect(daemon.root / "state" / "mountd.db")) as journal, journal:
        marks = ", ".join("?" * len(row))
        journal.execute(f"INSERT INTO operations ({', '.join(row)}) VALUES ({marks})", list(row.values()))


def answered_in_s(page: Page) -> dict[str, float]:
    """From the begin of the navigation until each part stood there, as the page itself has seen it."""
    found: dict[str, float] = json.loads(page.evaluate("JSON.stringify(window.seenAt)"))
    return found


WATCH_PARTS = """
window.seenAt = {};
const places = %s;
new MutationObserver(() => {
  for (const [name, place] of Object.entries(places))
    if (!(name in window.seenAt) && document.querySelector(place)) window.seenAt[name] = performance.now() / 1000;
}).observe(document, {childList: true, subtree: true});
"""
