"""docs/upgrade.md, the way back to an older mountd: its journal stays as it is, and the commands of the page help."""

from __future__ import annotations

import sqlite3
import subprocess

import pytest

from tests.support.daemon import Daemon
from tests.support.docs_pages import TOP, blocks

pytestmark = [pytest.mark.fuse, pytest.mark.thorough, pytest.mark.timeout(300)]

STATE = "/var/lib/mountd"
NEWER = 9999


def commands(word: str) -> list[str]:
    """The lines of shell on the page that begin with this word."""
    found = [block.text for block in blocks((TOP / "docs/upgrade.md").read_text()) if block.language == "sh"]
    return [line for text in found for line in text.splitlines() if line.startswith(word)]


def user_version(daemon: Daemon, new: int | None = None) -> int:
    with sqlite3.connect(daemon.root / "state" / "mountd.db") as db:
        if new is not None:
            db.execute(f"PRAGMA user_version = {new}")
        ((found,),) = db.execute("PRAGMA user_version").fetchall()
    return int(found)


def test_a_newer_journal_is_kept_and_a_new_one_can_be_begun(daemon: Daemon) -> None:
    daemon.start_ready()
    assert daemon.stop() == 0
    known = user_version(daemon)
    user_version(daemon, NEWER)

    daemon.start()
    assert daemon.wait_exit() == 1
    assert "it is of a newer mountd" in daemon.log_text()
    assert user_version(daemon) == NEWER

    (command,) = commands("mv ")
    subprocess.run(["sh", "-c", command.replace(STATE, str(daemon.root / "state"))], timeout=60, check=True)
    status = daemon.start_ready()
    assert status["models"]["cache_hub"]["current"] == "v23"
    assert "journal-replaced" in daemon.reasons()
    assert user_version(daemon) == known


def test_a_copy_of_the_journal_brings_the_history_back(daemon: Daemon) -> None:
    daemon.start_ready()
    assert daemon.cli("switch", "v22").code == 0
    assert daemon.stop() == 0
    (command,) = commands("cp ")
    subprocess.run(["sh", "-c", command.replace(STATE, str(daemon.root / "state"))], timeout=60, check=True)
    user_version(daemon, NEWER)
    (daemon.root / "state/mountd.db.before").replace(daemon.root / "state/mountd.db")
    status = daemon.start_ready()
    assert status["models"]["cache_hub"]["current"] == "v22"
    assert [each["kind"] for each in daemon.cli("history", "-o", "json").json["history"]] == ["switch"]
    assert "journal-replaced" not in daemon.reasons()
