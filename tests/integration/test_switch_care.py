"""Care for what is live: it is watched while a switch looks at another version, and never left half way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mountd.client.api import get, post
from tests.support.daemon import ANSWER_S, BUNDLED_RCLONE, Daemon
from tests.support.machine import name, state
from tests.support.proxy import Proxy
from tests.support.scripted_rclone import ScriptedRclone
from tests.support.stage import SOON_S, Stage, says
from tests.support.wait import until

pytestmark = pytest.mark.fuse


def ended(stage: Stage) -> dict[str, Any]:
    until(lambda: stage.operation(1)["finished"], 2 * SOON_S, "the switch to finish")
    return stage.operation(1)


def is_quarantined(daemon: Daemon, version: str) -> bool:
    rows = {row["version"]: row for row in daemon.cli("versions", "-o", "json").json["versions"]}
    return bool(rows[version]["quarantined"])


@pytest.mark.thorough
def test_until_something_is_changed_app_and_link_are_kept_as_ever(
    make_daemon: Callable[..., Daemon], proxy: Proxy
) -> None:
    """To look at a version may take minutes, and to compare its digests hours."""
    daemon = make_daemon(endpoint=proxy.endpoint)
    daemon.config["models"]["cache_hub"]["watch"] = {"for": "0s"}
    stage = Stage(daemon)
    daemon.start_ready()
    pid = stage.pid()
    proxy.faults.black_hole = True  # what is looked at does not answer
    stage.begin("v22")
    os.kill(pid, signal.SIGKILL)
    daemon.link.unlink()
    until(lambda: os.path.lexists(daemon.link), SOON_S, "the link to be healed")
    until(lambda: stage.pid() not in (None, pid), SOON_S, "the app to be started again")
    assert daemon.status()["operation"]["step"] in ("preflight", "warm", "verify")
    assert stage.link() == "v23"
    proxy.faults.clear()
    assert ended(stage)["result"] == "committed"
    stage.check_serves("v22")


@pytest.mark.thorough
def test_the_link_goes_back_also_when_the_new_app_cannot_be_stopped(
    make_daemon: Callable[..., Daemon], proxy: Proxy
) -> None:
    """In D, where no signal reaches it: whatever starts next must find the version that is live."""
    daemon = make_daemon(endpoint=proxy.endpoint)
    stage = Stage(daemon)
    go = daemon.root / "go"
    script = (
        f"case $(readlink '{daemon.link}') in *v23) exec sleep 600;; esac;"
        f" while [ ! -e '{go}' ]; do sleep 0.05; done; exec cat '{daemon.link}/models/gpt.pth'"
    )
    daemon.config["apps"]["webui"] = {
        "command": ["sh", "-c", script],
        "needs": ["cache_hub"],
        "ready": {"command": ["sh", "-c", f"readlink '{daemon.link}' | grep -q v23"], "timeout": "60s"},
        "stop": {"grace": "1s"},
    }
    daemon.start_ready()
    stage.begin("v22")
    stage.until_step("ready")
    reader = stage.pid()
    proxy.faults.black_hole = True
    go.touch()
    until(lambda: name(reader) == "cat" and state(reader) == "D", SOON_S, "the new app to be stuck")
    post(str(daemon.socket), "/api/v1/cancel", {}, timeout_s=ANSWER_S)
    until(lambda: stage.link() == "v23", SOON_S, "the link to go back")
    assert state(reader) == "D"
    proxy.faults.black_hole = False
    operation = ended(stage)
    assert (operation["result"], operation["error"]["exit"]) == ("failed", 1)
    shown = daemon.cli("history", "1", "-o", "json").json["steps"]
    assert [(step["step"], step["outcome"]) for step in shown[-3:]] == [
        ("stop-new", "failed"),
        ("flip-back", "done"),
        ("start-old", "done"),
    ]
    daemon.until_ready()
    model = stage.model()
    assert (model["current"], model["sync"], stage.link()) == ("v23", "Synced", "v23")
    assert daemon.status()["apps"]["webui"]["versions"] == {"cache_hub": "v23"}


@pytest.mark.thorough
def test_an_app_that_could_not_be_started_again_is_not_stopped(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """It needs a second mount, which has gone since, and serves what it has loaded."""
    rclone = ScriptedRclone(tmp_path, BUNDLED_RCLONE)
    daemon = make_daemon(rclone=rclone.path)
    daemon.config["mounts"]["other"] = {
        **daemon.config["mounts"]["storage"],
        "path": str(daemon.root / "other"),
        "cache": {"dir": str(daemon.root / "cache-of-other")},
    }
    stage = Stage(daemon)
    daemon.config["apps"]["webui"] |= {"needs": ["cache_hub", "other"], "restart": {"after": ["crash", "switch"]}}
    daemon.start_ready()
    pid = stage.pid()
    rclone.behave("exit 1")
    os.kill(daemon.status()["mounts"]["other"]["pid"], signal.SIGKILL)
    until(lambda: daemon.status()["mounts"]["other"]["state"] == "backoff", SOON_S, "the mount to be away")
    for flags in ([], ["--dry-run"]):
        says(daemon.cli("switch", "v22", *flags), 1, "webui", "mount other")
    assert stage.pid() == pid
    stage.check_serves("v23")
    rclone.behave("")
    daemon.until_ready()
    until(lambda: daemon.status()["mounts"]["other"]["state"] == "running", SOON_S, "the mount to be back")
    assert daemon.cli("switch", "v22").code == 0
    stage.check_serves("v22")


@pytest.mark.thorough
def test_a_kill_by_hand_is_not_the_versions_fault(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.config["models"]["cache_hub"]["watch"] = {"for": "60s"}
    stage = Stage(daemon)
    daemon.start_ready()
    stage.begin("v22")
    stage.until_step("watch")
    os.kill(stage.pid(), signal.SIGKILL)
    operation = ended(stage)
    assert (operation["result"], operation["error"]["exit"]) == ("rolled-back", 5)
    assert "signal SIGKILL" in operation["cause"]
    assert not is_quarantined(daemon, "v22")
    stage.check_serves("v23")


@pytest.mark.thorough
def test_a_crash_while_it_is_started_again_counts_as_any_other(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.config["models"]["cache_hub"]["watch"] = {"for": "60s", "crashes": 3}
    stage = Stage(daemon)
    stage.behave("v22", "dies then-crash")
    daemon.start_ready()
    stage.begin("v22")
    stage.until_step("watch")
    stage.die("v22")
    operation = ended(stage)
    assert operation["result"] == "rolled-back", operation
    assert [event["crashes"] for event in daemon.until_events("app crashed while it was watched", 3)] == [1, 2, 3]
    assert is_quarantined(daemon, "v22")
    stage.check_serves("v23")


def test_while_an_app_is_awaited_it_is_shown_which_since_when_and_what_it_says(
    make_daemon: Callable[..., Daemon],
) -> None:
    """One that ignores its signal, and then takes its time to load."""
    daemon = make_daemon()
    stage = Stage(daemon, grace="1s")
    stage.behave("v23", "deaf")
    daemon.start_ready()
    stage.hold("v22")
    stage.begin("v22")
    stage.until_held("v22")
    stage.until_step("ready")
    shown = stage.operation(1)
    assert (shown["waits_for"], shown["said"]) == ("webui", "held webui v22")
    assert 0 <= shown["step_s"] <= shown["limit_s"]
    (killed,) = shown["killed"]
    assert "SIGINT" in killed
    stage.let_go("v22")
    until(lambda: stage.operation(1)["result"] == "committed", SOON_S, "the switch to end")
    happened = get(str(daemon.socket), "/api/v1/events", timeout_s=ANSWER_S, after=0, limit=1000)["events"]
    assert [event["code"] for event in happened].count("app-ignored-signal") == 1
