"""A real Chromium for tests of the dashboard: pages of their own, screenshots, and axe-core's verdict on them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
AXE = Path(__file__).with_name("axe") / "axe.min.js"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
WIDE, NARROW = (1280, 800), (360, 740)
LIMIT_MS = 60_000
"""What takes longer than that on a busy machine is broken."""
Scheme = Literal["light", "dark"]


def program() -> str | None:
    """None: there is no Chromium here."""
    return next((found for each in PROGRAMS if (found := shutil.which(each))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """With a profile of its own, which goes with it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program(), headless=True, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(
    browser: Browser,
    url: str,
    *,
    language: str = "en-US",
    scheme: Scheme = "light",
    size: tuple[int, int] = WIDE,
    **changes: Any,
) -> Iterator[Page]:
    """A page of a browser that nobody has used before. It fails at the end when the page had an error."""
    context: BrowserContext = browser.new_context(
        locale=language,
        color_scheme=scheme,
        viewport={"width": size[0], "height": size[1]},
        reduced_motion="reduce",
        **changes,
    )
    context.set_default_timeout(LIMIT_MS)
    try:
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
        page.goto(url)
        yield page
        assert errors == []
    finally:
        context.close()


def shot(page: Page, name: str, *, whole: bool = False) -> None:
    """Written where a person can look at it."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=whole)


def findings(page: Page) -> list[str]:
    """What axe-core calls serious or critical: the rule, and where."""
    source = AXE.read_bytes()
    assert hashlib.sha256(source).hexdigest() == AXE_SHA256
    page.evaluate(source.decode())  # past the policy of the page, which allows no script but its own
    found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    return [
        f"{each['id']} ({each['impact']}): {[node['target'] for node in each['nodes'][:3]]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


def seen_without_scrolling(page: Page, selector: str) -> bool:
    """Whether all of it lies inside of the window."""
    box = page.locator(selector).bounding_box()
    size = page.viewport_size
    return (
        box is not None
        and size is not None
        and box["width"] > 0
        and box["x"] >= 0
        and box["y"] >= 0
        and box["x"] + box["width"] <= size["width"]
        and box["y"] + box["height"] <= size["height"]
    )
