"""Something else answers in the store's place: an outage with its own words, never Healthy nor "content missing"."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.explained import until_explained
from tests.support.faults import ANY, Failure, Page
from tests.support.not_ready import assert_app_never_started, assert_silent, readyz, until_not_ready
from tests.support.often import PROGRAM
from tests.support.proxy import Proxy
from tests.support.wait import until

pytestmark = pytest.mark.fuse

BACK_S = 30.0
LOGIN = Page(b"<html><body><p>please log in</p></body></html>")
UNCLOSED = Page(b"<!DOCTYPE html><html><body><p>please log in<br></body></html>")
NOTHING = Page(
    b'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"</ListBucketResult>",
    kind="application/xml",
)
MOVED = Failure(301, "PermanentRedirect")
FAULTS: dict[str, tuple[dict[str, Failure | Page], str]] = {
    "login": ({ANY: LOGIN}, "bucket-invalid"),
    "unclosed": ({ANY: UNCLOSED}, "bucket-invalid"),
    "no-words": ({ANY: Page(b"")}, "bucket-invalid"),
    "json": ({ANY: Page(b'{"ok": true}', kind="application/json")}, "bucket-invalid"),
    "forbidden": ({ANY: Page(UNCLOSED.body, status=403)}, "bucket-invalid"),
    "portal": ({ANY: Page(UNCLOSED.body, status=511)}, "bucket-invalid"),
    "moved": ({ANY: MOVED}, "bucket-error"),
    "empty-list": ({"LIST": NOTHING}, "bucket-empty"),
}
TOLD_SOON = ("login", "moved", "empty-list")


@pytest.mark.parametrize(
    "names", [pytest.param(TOLD_SOON, id="some"), pytest.param(tuple(FAULTS), id="all", marks=pytest.mark.thorough)]
)
def test_while_it_runs(make_daemon: Callable[..., Daemon], proxy: Proxy, names: tuple[str, ...]) -> None:
    daemon = make_daemon(endpoint=proxy.endpoint, program=PROGRAM)  # it lists the version meanwhile, too
    daemon.config["mounts"]["storage"]["health"] = {"backend": "2s"}
    before = daemon.start_ready()
    for name in names:
        faults, code = FAULTS[name]
        proxy.faults.fail = faults
        reason = daemon.until_reason(code, BACK_S)
        until_explained(daemon, code)
        assert reason["hint"], name
        if name == "moved":
            assert "region" in reason["hint"]
        status = daemon.status()
        assert (status["health"], status["ready"]) == ("Degraded", True), name
        assert readyz(daemon)[0] == 200
        if name == names[-1]:
            refused = daemon.cli("switch", "v22")
            assert refused.code == 1, refused
            assert "hint: " in refused.err
        proxy.faults.clear()
        until(lambda: daemon.status()["health"] == "Healthy", BACK_S, f"Healthy after {name}")
    after = daemon.status()
    for kind, one in (("mounts", "storage"), ("apps", "webui")):
        assert after[kind][one]["pid"] == before[kind][one]["pid"]
    assert_silent(daemon)


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in FAULTS if name != "empty-list"])
def test_at_the_start(make_daemon: Callable[..., Daemon], proxy: Proxy, name: str) -> None:
    faults, code = FAULTS[name]
    proxy.faults.fail = faults
    daemon = make_daemon(endpoint=proxy.endpoint)
    daemon.start()
    until_not_ready(daemon, code, f"store:{hub.BUCKET}")
    assert daemon.status()["mounts"]["storage"]["stage"] == "answering"
    assert_app_never_started(daemon)
    proxy.faults.clear()
    status = daemon.until_ready()
    assert status["mounts"]["storage"]["restarts"] == 0
    assert_silent(daemon)
