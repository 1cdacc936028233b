"""A version that is changed in the bucket after it went live: an alarm, and no way back to it by accident."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mountd.client.api import get
from mountd.demo import hub, webui
from mountd.journal.journal import Committed, Journal, KnownContent
from mountd.model import manifest
from mountd.model.known import CHANGED
from tests.support.daemon import ANSWER_S, Daemon
from tests.support.explained import until_explained
from tests.support.often import PROGRAM
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

SOON_S = 60.0


def often(make_daemon: Callable[..., Daemon], endpoint: str) -> Daemon:
    daemon = make_daemon(endpoint=endpoint, program=PROGRAM)
    daemon.config["models"]["cache_hub"]["watch"] = {"for": "0s"}
    daemon.config["mounts"]["storage"]["health"] = {"backend": "2s"}  # it looks when the bucket is asked anyway
    return daemon


def until_well(daemon: Daemon) -> None:
    until(lambda: CHANGED not in daemon.reasons(), SOON_S, "the alarm to end")


def write(path: Path, data: bytes) -> None:
    """As at another second, which is all that this store shows of a file of the same size."""
    second = int(path.stat().st_mtime) + 10
    path.write_bytes(data)
    os.utime(path, (second, second))


def changed_digit(data: bytes) -> bytes:
    """Another sha256 of the same length."""
    at = data.index(b'"sha256": "') + len(b'"sha256": "')
    return data[:at] + (b"1" if data[at : at + 1] == b"0" else b"0") + data[at + 1 :]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_content_that_changes_under_the_live_version(
    make_daemon: Callable[..., Daemon], store: RcloneS3, proxy: Proxy
) -> None:
    daemon = often(make_daemon, proxy.endpoint)
    version = store.directory / hub.BUCKET / "cache_hub_v23"
    before = daemon.start_ready()
    until(lambda: proxy.counts.kinds["HEAD"] >= 2, SOON_S, "two looks")
    proxy.reset_counts()
    until(lambda: proxy.counts.kinds["HEAD"] >= 2, SOON_S, "two more")
    counts = proxy.reset_counts()
    assert (counts.object_bytes, set(counts.kinds)) == (0, {"HEAD", "LIST"})
    assert (daemon.status()["health"], daemon.reasons()) == ("Healthy", {})

    gpt, config = version / "models" / "gpt.pth", version / "config.yaml"
    kept = gpt.read_bytes(), config.read_bytes()
    gpt.unlink()
    config.write_bytes(b"x")
    reason = daemon.until_reason(CHANGED, SOON_S)
    until_explained(daemon, CHANGED)
    assert (reason["layer"], reason["object"]) == ("link", "cache_hub")
    until(lambda: "models/gpt.pth" in daemon.reasons()[CHANGED]["text"], SOON_S, "what has vanished")
    until(lambda: "config.yaml" in daemon.reasons()[CHANGED]["text"], SOON_S, "what has changed")
    status = daemon.status()
    assert (status["ready"], status["health"]) == (True, "Degraded")
    assert status["models"]["cache_hub"]["health"] == "Degraded"
    assert status["apps"]["webui"]["pid"] == before["apps"]["webui"]["pid"]
    gpt.write_bytes(kept[0])
    config.write_bytes(kept[1])
    until_well(daemon)
    assert (daemon.status()["health"], daemon.page()["version"]) == ("Healthy", "v23")

    # Of the same size: only its time is another one.
    path = version / manifest.NAME
    whole = path.read_bytes()
    write(path, changed_digit(whole))
    assert manifest.NAME in daemon.until_reason(CHANGED, SOON_S)["text"]
    write(path, whole)
    until_well(daemon)

    def codes() -> list[str]:
        return [event["code"] for event in get(str(daemon.socket), "/api/v1/events", timeout_s=ANSWER_S)["events"]]

    until(lambda: codes().count("content-restored") == 2, SOON_S, "both restorations in the journal")
    assert codes().count(CHANGED) >= 2
    assert len(daemon.until_events("version has changed since it was live", 2)) == 2


@pytest.mark.thorough
def test_a_version_that_is_not_what_the_journal_knows_is_reported_as_it_goes_live(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon()
    (daemon.root / "state").mkdir()

    async def remember() -> None:
        journal = Journal(daemon.root / "state" / "mountd.db")
        await journal.open()
        holds = KnownContent("cache_hub", "v23", "of before", "of before", "2026-01-01T00:00:00.000Z")
        await journal.commit("cache_hub", Committed("v23", None, "v23", "v23"), holds=holds)
        await journal.close()

    asyncio.run(remember())
    status = daemon.start_ready()  # the first status that is ready says so
    (reason,) = [reason for reason in status["reasons"] if reason["code"] == CHANGED]
    assert (reason["layer"], reason["object"], status["health"]) == ("link", "cache_hub", "Degraded")
    assert "--force" in reason["hint"]
    shown = daemon.cli("status").out
    row = next(line for line in shown.splitlines() if line.startswith("link "))
    assert CHANGED in shown[shown.index(row) :].partition("\napp ")[0], shown
    assert daemon.page()["version"] == "v23"


@pytest.mark.thorough
@pytest.mark.slow
def test_a_version_that_was_replaced_while_mountd_was_down(make_daemon: Callable[..., Daemon], store: RcloneS3) -> None:
    """Reported as it goes live, by what the journal knows; the same content published again is no change."""
    daemon = make_daemon(endpoint=store.endpoint)
    path = store.directory / hub.BUCKET / "cache_hub_v23" / manifest.NAME
    whole = path.read_bytes()
    digest = daemon.start_ready()["models"]["cache_hub"]["digest"]
    assert digest == webui.content_digest(whole)
    assert daemon.stop() == 0

    write(path, whole.replace(hub.CREATED.encode(), b"2030-03-03T03:03:03Z").replace(b'"demo', b'"mountd again'))
    # As mountd 0.1 has recorded it: by the bytes of the manifest.
    with closing(sqlite3.connect(daemon.root / "state" / "mountd.db", timeout=30)) as db, db:
        db.execute("UPDATE contents SET digest = ?", [manifest.former_digest(path.read_bytes())])
    status = daemon.start_ready()
    assert (status["models"]["cache_hub"]["digest"], status["health"]) == (digest, "Healthy")
    with closing(sqlite3.connect(daemon.root / "state" / "mountd.db", timeout=30)) as db:
        until(lambda: db.execute("SELECT digest FROM contents").fetchall() == [(digest,)], SOON_S, "the new digest")
    assert daemon.stop() == 0

    write(path, changed_digit(whole))
    status = daemon.start_ready()
    assert status["models"]["cache_hub"]["digest"] == webui.content_digest(path.read_bytes()) != digest
    assert CHANGED in {reason["code"] for reason in status["reasons"]}
    daemon.until_events("version has changed since it was live")
    assert daemon.page()["version"] == "v23"


@pytest.mark.thorough
@pytest.mark.slow
def test_a_version_that_was_changed_while_nobody_looked(make_daemon: Callable[..., Daemon], store: RcloneS3) -> None:
    daemon = often(make_daemon, store.endpoint)
    path = store.directory / hub.BUCKET / "cache_hub_v23" / manifest.NAME
    whole = path.read_bytes()
    daemon.start_ready()
    # Seen soon after the next start, by what was recorded when it went live.
    assert daemon.stop() == 0
    write(path, changed_digit(whole))
    daemon.start_ready()
    assert manifest.NAME in daemon.until_reason(CHANGED, SOON_S)["text"]

    assert daemon.cli("switch", "v22").code == 0
    until_well(daemon)
    rows = {row["version"]: row for row in daemon.cli("versions", "-o", "json").json["versions"]}
    assert (bool(rows["v23"]["changed"]), rows["v22"]["changed"]) == (True, None)
    refused = daemon.cli("switch", "v23")
    assert refused.code == 7, refused
    assert daemon.page()["version"] == "v22"
    forced = daemon.cli("switch", "v23", "--force")
    assert forced.code == 0, forced
    # What a person has let in is what it is compared with from now on.
    assert {row["version"]: row["changed"] for row in daemon.cli("versions", "-o", "json").json["versions"]}[
        "v23"
    ] is None
    assert daemon.cli("rollback").code == 0
    assert daemon.cli("rollback").code == 0
    assert CHANGED not in daemon.reasons()
