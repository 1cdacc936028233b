"""The history of a real daemon: read by people, followed through restarts, and lost without harm."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mountd.client.api import get
from tests.support import dies_with_us
from tests.support.daemon import ANSWER_S, Daemon
from tests.support.machine import Tmpfs
from tests.support.wait import until, until_gone

pytestmark = pytest.mark.fuse


@contextmanager
def following(daemon: Daemon) -> Iterator[Path]:
    """`mountd events --follow` into the file."""
    out = daemon.root / "followed"
    with out.open("wb") as file:
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mountd",
                "--socket",
                str(daemon.socket),
                "events",
                "-f",
                "-n",
                "1000",
                "-o",
                "json",
            ],
            stdout=file,
            stderr=subprocess.DEVNULL,
        )
    try:
        yield out
    finally:
        child.kill()
        child.wait()


def events(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines(keepends=True) if line.endswith("\n")]


def broken(daemon: Daemon) -> list[Path]:
    return sorted((daemon.root / "state").glob("mountd.db.broken-*"))


def stored(daemon: Daemon) -> list[dict[str, Any]]:
    document = get(str(daemon.socket), "/api/v1/events", timeout_s=ANSWER_S, after=0, limit=1000)
    found: list[dict[str, Any]] = document["events"]
    return found


def codes(daemon: Daemon) -> list[str]:
    return [event["code"] for event in stored(daemon)]


@pytest.mark.thorough
@pytest.mark.slow
def test_a_broken_journal_is_set_aside_and_the_link_is_the_truth(daemon: Daemon) -> None:
    daemon.start_ready()
    assert daemon.cli("switch", "v22", "--reason", "to lose it").code == 0
    (entry,) = daemon.cli("history", "-o", "json").json["history"]
    assert (entry["kind"], entry["model"], entry["from"], entry["to"]) == ("switch", "cache_hub", "v23", "v22")
    assert (entry["result"], entry["reason"]) == ("committed", "to lose it")
    assert daemon.stop() == 0

    journal = daemon.root / "state" / "mountd.db"
    journal.write_bytes(journal.read_bytes()[:100] + os.urandom(20_000))
    status = daemon.start_ready()
    assert status["models"]["cache_hub"]["current"] == "v22"
    assert status["models"]["cache_hub"]["desired"] == "v22"
    assert daemon.page()["version"] == "v22"
    assert os.readlink(daemon.link).endswith("cache_hub_v22")
    (file,) = broken(daemon)
    alarm = daemon.until_reason("journal-replaced")
    assert str(file) in alarm["text"]
    assert alarm["hint"]
    assert daemon.status()["health"] == "Degraded"
    daemon.until_events("journal replaced")
    until(lambda: "journal-replaced" in codes(daemon), 30, "the event")
    assert daemon.cli("history").out == ""
    # All goes on, and what is written now is kept: `version: v23` in the file was nobody's request meanwhile.
    assert daemon.cli("switch", "v23").code == 0
    assert [each["to"] for each in daemon.cli("history", "-o", "json").json["history"]] == ["v23"]
    file.rename(daemon.root / "taken-away")
    until(lambda: "journal-replaced" not in daemon.reasons(), 60, "the alarm to end", every_s=0.2)
    assert daemon.stop() == 0
    daemon.start_ready()
    assert broken(daemon) == []
    assert daemon.status()["models"]["cache_hub"]["current"] == "v23"
    assert daemon.status()["models"]["cache_hub"]["previous"] == "v22"


def deleted(journal: Path) -> None:
    journal.unlink()


def emptied(journal: Path) -> None:
    journal.write_bytes(b"")


def directory_gone(journal: Path) -> None:
    shutil.rmtree(journal.parent)


@pytest.mark.parametrize(
    "lose", [deleted, *(pytest.param(each, marks=pytest.mark.thorough) for each in (emptied, directory_gone))]
)
def test_of_a_lost_journal_the_link_is_the_truth(daemon: Daemon, lose: Callable[[Path], None]) -> None:
    """Nobody has asked for the version of the file: it was so before somebody switched by hand."""
    daemon.start_ready()
    assert "journal-replaced" not in daemon.reasons()
    assert daemon.cli("switch", "v22").code == 0
    assert daemon.stop() == 0
    lose(daemon.root / "state" / "mountd.db")
    model = daemon.start_ready()["models"]["cache_hub"]
    assert (model["current"], model["desired"]) == ("v22", "v22")
    assert daemon.page()["version"] == "v22"
    assert os.readlink(daemon.link).endswith("cache_hub_v22")
    daemon.until_reason("journal-replaced")
    assert daemon.status()["health"] == "Degraded"
    until(lambda: "mountd-started" in codes(daemon), 30, "what a start writes into the journal")
    assert "journal-replaced" in codes(daemon)
    assert "mountd-restarted-after-crash" not in codes(daemon)
    (mark,) = broken(daemon)
    mark.unlink()
    until(lambda: daemon.status()["health"] == "Healthy", 60, "the alarm to end", every_s=0.2)


LOCK = """if True:
    import sqlite3, sys
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    db.execute("BEGIN EXCLUSIVE")
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.timeout(240)
def test_a_crash_is_reported_by_the_next_run_which_waits_for_a_journal_that_is_locked(daemon: Daemon) -> None:
    before = daemon.start_ready()
    assert daemon.process is not None
    os.kill(daemon.process.pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(before["pid"], signal.SIGKILL)
    daemon.wait_exit()
    until_gone(before["pid"])
    command = dies_with_us([sys.executable, "-c", LOCK, str(daemon.root / "state" / "mountd.db")])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        daemon.start()
        (shown,) = until(lambda: daemon.events("waiting for the journal"), 60, "it to be reported")
        assert f"(pid {other.pid})" in shown["cause"]
        assert daemon.stop() == 0
        daemon.start()
        until(lambda: len(daemon.events("waiting for the journal")) == 2, 60, "it to be reported again")
        other.stdin.close()
    daemon.until_ready()
    assert codes(daemon).count("mountd-restarted-after-crash") == 1
    assert daemon.stop() == 0
    daemon.start_ready()
    found = codes(daemon)
    assert found.count("mountd-restarted-after-crash") == 1
    assert (found.count("mountd-started"), found.count("mountd-stopped")) == (3, 1)


@pytest.mark.thorough
@pytest.mark.slow
def test_events_are_followed_through_a_restart_without_a_gap(daemon: Daemon) -> None:
    daemon.start_ready()
    with following(daemon) as out:
        until(lambda: "ready" in [event["code"] for event in events(out)], 60, "what was before")
        assert daemon.stop() == 0
        daemon.start_ready()
        until(lambda: [event["code"] for event in events(out)].count("ready") == 2, 60, "what came after the restart")
        assert daemon.cli("restart", "webui").code == 0
        until(lambda: stored(daemon) == events(out), 60, "all to be reported, each once")


@pytest.mark.thorough
@pytest.mark.root
@pytest.mark.slow
def test_a_start_with_a_full_disk_serves_what_is_known(daemon: Daemon) -> None:
    with Tmpfs(daemon.root / "state", 4) as state:
        daemon.start_ready()
        assert daemon.stop() == 0
        state.fill()
        daemon.start_ready()
        assert daemon.page()["version"] == "v23"
        daemon.until_reason("journal-unusable")
        assert "v23" in daemon.cli("status").out
        assert daemon.cli("switch", "v22").code == 1
        assert broken(daemon) == []
        state.empty()
        until(lambda: daemon.status()["health"] == "Healthy", 60, "all to be well", every_s=0.1)
        assert "journal-gap" in [event["code"] for event in stored(daemon)]
        daemon.stop()
