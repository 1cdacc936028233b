"""The dashboard as people see and use it: a real Chromium, a real daemon, in both languages, light and dark."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from mountd.demo import hub
from tests.support.browser import NARROW, Scheme, chromium, findings, program, shot
from tests.support.daemon import Daemon
from tests.support.dashboard import (
    LINES,
    OPERATOR,
    READER,
    WATCH_PARTS,
    add_events,
    add_operation,
    add_versions,
    answered_in_s,
    check_answers,
    dashboard,
    give_tokens,
    log_in,
)
from tests.support.mapped import add_large
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

SOON_S = 60.0
LANGUAGES = {"en": "en-US", "zh": "zh-CN"}
LOOKS: tuple[tuple[str, str, Scheme], ...] = (("en", "en-US", "dark"), ("zh", "zh-CN", "light"))
WELL = {"en": "The service is well", "zh": "服务正常"}
ATTACK = '<img src=x onerror="window.attacked=1"><script>window.attacked=1</script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if program() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with chromium() as found:
        yield found


@pytest.fixture
def served(make_daemon: Callable[..., Daemon]) -> Daemon:
    """With tokens, not started yet."""
    daemon = make_daemon()
    give_tokens(daemon)
    return daemon


def check_accessible(page: Page) -> None:
    assert findings(page) == []


def live(page: Page) -> Any:
    return page.locator("#fact-live .big")


def row(page: Page, version: str) -> Any:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=re.compile(rf"^{version}\b")))


def test_a_service_that_is_well(browser: Browser, served: Daemon) -> None:
    served.start_ready()
    assert served.cli("switch", "v22", "--reason", "the nightly release").code == 0
    for name, language, scheme in LOOKS:
        with dashboard(browser, served, language=language, scheme=scheme) as page:
            expect(page.locator("#verdict")).to_have_text(WELL[name])
            expect(live(page)).to_have_text("v22")
            expect(page.locator("#fact-last")).to_contain_text("v23 → v22")
            assert page.evaluate("document.documentElement.lang") == {"en": "en", "zh": "zh-CN"}[name]
            check_answers(page)
            check_accessible(page)
            shot(page, f"well-{name}-{scheme}")
    with dashboard(browser, served, size=NARROW) as page:
        assert page.evaluate("document.scrollingElement.scrollWidth") <= NARROW[0]
        expect(row(page, "v23").get_by_role("button", name="Switch")).to_be_visible()
        check_accessible(page)
        shot(page, "well-narrow", whole=True)
        page.get_by_label("Language").select_option("zh-CN")
        expect(page.locator("#verdict")).to_have_text(WELL["zh"])
        page.reload()
        expect(page.locator("#verdict")).to_have_text(WELL["zh"])


def test_a_switch_and_a_rollback_by_clicking(browser: Browser, served: Daemon) -> None:
    served.config["models"]["cache_hub"]["watch"] = {"for": "2s"}
    served.start_ready()
    with dashboard(browser, served) as page:
        row(page, "v22").get_by_role("button", name="Switch").click()
        page.get_by_label("Token").fill("wrong-0123456789abcdef")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert").filter(has_text="not valid")).to_be_visible()
        page.get_by_label("Token").fill(OPERATOR)
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Switch cache_hub?")
        expect(dialog).to_contain_text("v23 → ")
        expect(dialog).to_contain_text("webui")
        check_accessible(page)
        shot(page, "confirm")
        page.get_by_label("Reason").fill("by clicking")
        dialog.get_by_role("button", name="Switch to v22").click()
        expect(page.get_by_role("article").filter(has_text="v23 → v22")).to_be_visible()
        check_answers(page)
        shot(page, "switching")
        expect(live(page)).to_have_text("v22")
        expect(page.locator("#fact-last")).to_contain_text("v23 → v22")
        history = page.get_by_role("region", name="History")
        expect(history).to_contain_text("token ci")
        expect(history).to_contain_text("by clicking")
        assert served.page()["version"] == "v22"

        page.get_by_role("button", name="Roll back to v23").click()
        page.get_by_role("dialog").get_by_role("button", name="Roll back to v23").click()
        expect(page.locator("#fact-last")).to_contain_text("v22 → v23")
        expect(live(page)).to_have_text("v23")
        shot(page, "rolled-back-by-clicking", whole=True)
    newest, before = served.cli("history", "-o", "json").json["history"][:2]
    assert (newest["kind"], newest["operator"], newest["to"]) == ("rollback", "token ci", "v23")
    assert (before["kind"], before["reason"], before["to"]) == ("switch", "by clicking", "v22")


def test_the_keyboard_is_enough(browser: Browser, served: Daemon) -> None:
    served.start_ready()
    with dashboard(browser, served) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "skip"

        def reach(name: str) -> None:
            for _ in range(60):
                text = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
                if page.evaluate(text) == name:
                    return
                page.keyboard.press("Tab")
            raise AssertionError(f"no way to {name} by Tab")

        reach("Log in")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Token")).to_be_focused()
        page.keyboard.type(OPERATOR)
        page.keyboard.press("Enter")
        expect(page.locator(".who")).to_be_visible()
        reach("Switch to v22")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("button", name="Switch to v22")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_label("Reason")).to_be_focused()
        page.keyboard.type("by keyboard")
        page.keyboard.press("Enter")
        expect(live(page)).to_have_text("v22")


def test_a_warm_that_runs_and_is_cancelled(
    browser: Browser, make_daemon: Callable[..., Daemon], store: RcloneS3, proxy: Proxy
) -> None:
    bucket = store.directory / hub.BUCKET
    add_large(bucket, 40 * 1024**2)
    daemon = make_daemon(endpoint=proxy.endpoint)
    daemon.config["models"]["cache_hub"]["version"] = "v22"
    give_tokens(daemon)
    daemon.start_ready()
    proxy.faults.total_bytes_per_s = 1024**2
    assert daemon.cli("warm", "v23", "--level", "data", "--no-wait").code == 0
    until(
        lambda: [each for each in daemon.status()["operations"] if each["eta_s"] and each["percent"]],
        SOON_S,
        "the warm to know how long it takes",
    )
    for name, language in LANGUAGES.items():
        with dashboard(browser, daemon, language=language) as page:
            expect(page.locator("#fact-now")).to_contain_text({"en": "left", "zh": "大约还需"}[name])
            expect(page.locator("#fact-now")).to_contain_text("%")
            expect(page.locator("#verdict")).to_have_text(WELL[name])
            check_answers(page)
            check_accessible(page)
            shot(page, f"warm-{name}")
    with dashboard(browser, daemon) as page:
        log_in(page)
        page.get_by_role("article").get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel the operation").click()
        expect(page.get_by_role("region", name="History")).to_contain_text("cancelled")
        expect(page.locator("#fact-now")).to_contain_text("nothing")


def test_a_service_that_is_not_well_says_why_and_what_to_do(browser: Browser, served: Daemon, store: RcloneS3) -> None:
    served.start_ready()
    with dashboard(browser, served) as watching:
        store.stop()
        expect(watching.locator("#reason")).to_be_visible()
        expect(watching.locator("#verdict")).to_have_text("The service is running, but something is wrong")
        expect(watching.locator("#reason .title")).to_contain_text("bucket")
        expect(watching.locator("#reason .todo")).to_be_visible()
        for name, language, scheme in LOOKS:
            with dashboard(browser, served, waits=False, language=language, scheme=scheme) as page:
                expect(page.locator("#reason .todo")).to_be_visible()
                check_answers(page, why=True)
                check_accessible(page)
                shot(page, f"degraded-{name}-{scheme}")


def test_a_service_that_is_not_ready_and_a_switch_that_was_undone(browser: Browser, served: Daemon) -> None:
    served.config["models"]["cache_hub"]["gates"] = [{"command": ["false"]}]
    served.start_ready()
    assert served.cli("switch", "v22").code == 5
    with dashboard(browser, served) as page:
        expect(page.locator("#fact-last")).to_contain_text("rolled back")
        expect(live(page)).to_have_text("v23")
        check_answers(page)
        check_accessible(page)
        shot(page, "rolled-back", whole=True)
        assert served.cli("stop", "webui").code == 0
        expect(page.locator("#verdict")).not_to_have_text(WELL["en"])
        expect(page.locator("#reason")).to_contain_text("webui")
        check_answers(page, why=True)
        shot(page, "not-ready")
    with dashboard(browser, served, language="zh-CN") as page:
        check_answers(page, why=True)
        shot(page, "not-ready-zh")


def test_what_others_have_written_is_shown_as_text(browser: Browser, served: Daemon, store: RcloneS3) -> None:
    """Names of versions and files from the bucket; reasons, operators and events from everybody who may write them."""
    served.start_ready()
    served.stop()
    add_operation(served, operator=ATTACK, reason=ATTACK, from_version=ATTACK, result="failed", cause=ATTACK)
    add_events(served, 1, text=ATTACK)
    broken = store.directory / hub.BUCKET / "cache_hub_v99"
    broken.mkdir()
    wanted = {"path": "<img src=x onerror=alert(1)>", "size": 1, "sha256": "0" * 64}
    (broken / hub.MANIFEST).write_text(json.dumps({"schema": 1, "version": "v99", "files": [wanted]}))
    served.start_ready()
    with dashboard(browser, served) as page:
        for region in ("History", "Events"):
            expect(page.get_by_role("region", name=region)).to_contain_text(ATTACK)
        expect(row(page, "v99")).to_be_visible()
        assert page.locator("main img, main script, [onerror]").count() == 0
        assert page.evaluate("window.attacked") is None
        shot(page, "attacked", whole=True)


def test_a_page_that_is_not_local_shows_nothing_before_a_login(browser: Browser, served: Daemon) -> None:
    served.config["http"]["behind_proxy"] = True
    served.start_ready()
    with dashboard(browser, served, waits=False) as page:
        expect(page.get_by_label("Token")).to_be_visible()
        expect(page.locator("#verdict")).to_have_count(0)
        check_accessible(page)
        shot(page, "login")
        page.get_by_label("Token").fill(READER)
        page.keyboard.press("Enter")
        expect(page.locator("#verdict")).to_have_text(WELL["en"])
        expect(page.get_by_role("rowheader", name="v22")).to_be_visible()
        assert page.get_by_role("button", name="Switch").count() == 0, "a reader changes nothing"
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Token")).to_be_visible()
        page.get_by_label("Token").fill(OPERATOR)
        page.keyboard.press("Enter")
        expect(row(page, "v22").get_by_role("button", name="Switch")).to_be_visible()
        give_tokens(served, LINES.splitlines()[1])
        expect(page.get_by_label("Token")).to_be_visible()
        expect(page.locator("#verdict")).to_have_count(0)


def test_a_page_that_is_cut_off_says_so_and_comes_back(browser: Browser, served: Daemon) -> None:
    served.start_ready()
    with dashboard(browser, served) as page:
        expect(page.locator(".connection")).to_have_class("connection ok")
        served.stop()
        expect(page.locator(".connection")).to_have_class("connection bad")
        expect(page.locator("#verdict")).to_contain_text("Not connected")
        shot(page, "cut-off")
        served.start_ready()
        expect(page.locator("#verdict")).to_have_text(WELL["en"])
        expect(page.get_by_role("region", name="Events")).to_contain_text("mountd has started")


def test_without_tokens_the_page_says_how_changes_are_allowed(browser: Browser, daemon: Daemon) -> None:
    daemon.start_ready()
    with dashboard(browser, daemon) as page:
        assert page.get_by_role("button", name="Switch").count() == 0
        page.get_by_role("button", name="Read-only").click()
        expect(page.get_by_role("dialog")).to_contain_text("tokens: {file:")
        check_accessible(page)
        shot(page, "read-only")


@pytest.mark.parametrize(
    "limit_s",
    [pytest.param(30.0, id="usable"), pytest.param(1.0, id="fast", marks=[pytest.mark.thorough, pytest.mark.alone])],
)
def test_ten_thousand_events_and_two_hundred_versions(
    browser: Browser, served: Daemon, store: RcloneS3, limit_s: float
) -> None:
    served.start_ready()
    served.stop()
    add_events(served, 10_000)
    for number in range(200):
        add_operation(served, to_version=f"v{number}")
    add_versions(store.directory / hub.BUCKET, 200)
    served.start_ready()
    parts = {"headline": "#verdict", "picture": ".topology", "events": ".events li", "history": ".history tbody tr"}
    with dashboard(browser, served, waits=False) as page:
        page.add_init_script(WATCH_PARTS % json.dumps(parts))
        page.reload()
        expect(page.locator(".versions tbody tr").first).to_be_visible()
        until(lambda: set(answered_in_s(page)) == set(parts), SOON_S, "each part to stand there")
        seen = answered_in_s(page)
        assert max(seen.values()) < limit_s, seen
        assert page.locator(".events li").count() <= 60
        page.get_by_role("region", name="Events").get_by_role("button", name="Older").click()
        expect(page.locator(".events li")).to_have_count(100)
        assert page.locator(".versions tbody tr").count() < 30
        shot(page, "many", whole=True)
        page.get_by_label("Find a version").fill("v1042")
        expect(page.locator(".versions tbody tr")).to_have_count(1)
        page.get_by_label("Find a version").fill("")
        page.get_by_role("button", name="Show more").click()
        expect(row(page, "v1150")).to_be_visible()
