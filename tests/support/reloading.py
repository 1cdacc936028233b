"""Has a running daemon use its changed file, and reports what it restarted and what was left alone."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from typing import Any

from mountd.demo import hub
from tests.support.daemon import READY_S, Daemon
from tests.support.wait import until

SOON_S = 60.0
"""A changed file is picked up within this time."""


def start_with_bystanders(daemon: Daemon) -> Daemon:
    """Two mounts and three apps, so that there is always something that must be left alone."""
    daemon.config["mounts"]["second"] = {
        "remote": f"store:{hub.BUCKET}",
        "path": str(daemon.root / "second"),
        "cache": {"dir": str(daemon.root / "cache-second"), "min_free": "1%"},
    }
    sleeper = [sys.executable, "-c", "import time; time.sleep(3600)"]
    daemon.config["apps"]["bystander"] = {"command": sleeper, "needs": ["second"]}
    daemon.config["apps"]["free"] = {"command": sleeper}
    daemon.start_ready()
    return daemon


def pids(daemon: Daemon) -> dict[str, int | None]:
    status = daemon.status()
    return {name: thing["pid"] for name, thing in {**status["mounts"], **status["apps"]}.items()}


def reload(daemon: Daemon) -> dict[str, Any]:
    """By the command, which must succeed; what it did."""
    known = len(daemon.events("configuration reloaded"))
    daemon.write_config()
    result = daemon.cli("reload", "-o", "json")
    assert result.code == 0, result
    document: dict[str, Any] = result.json
    assert document.keys() == {"schema", "changed", "restarted", "in_place"}
    if document["changed"]:
        return document
    # On a busy machine mountd may have noticed the file before the command had started.
    return next(iter(daemon.events("configuration reloaded")[known:]), document)


def assert_restarted(daemon: Daemon, before: dict[str, int | None], *names: str) -> None:
    """These come back with other pids, all others keep theirs."""

    def back() -> bool:
        now = pids(daemon)
        return daemon.status()["ready"] and all(now[name] not in (None, before[name]) for name in names)

    until(back, READY_S, f"{names} to be restarted", every_s=0.1)
    now = pids(daemon)
    restarted = {name for name in before if now.get(name) != before[name]}
    assert restarted == set(names), restarted


def journaled(daemon: Daemon, code: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(daemon.root / "state" / "mountd.db", timeout=30)) as database:
        return [text for (text,) in database.execute("SELECT text FROM events WHERE code = ? ORDER BY id", (code,))]
