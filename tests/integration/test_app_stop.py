"""An app that a person stops: nothing else starts it, until `mountd start` or until mountd itself restarts."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mountd.client.api import get
from tests.support.daemon import ANSWER_S, Daemon
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

SOON_S = 30.0


def webui(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status()["apps"]["webui"]
    return found


def events(daemon: Daemon, code: str) -> list[str]:
    found = get(str(daemon.socket), "/api/v1/events", timeout_s=ANSWER_S, code=code)["events"]
    return [event["text"] for event in found]


def check_stopped(daemon: Daemon, pid: int) -> None:
    status = daemon.status()
    app = status["apps"]["webui"]
    assert (app["state"], app["health"], app["pid"]) == ("stopped", "Suspended", None)
    assert (status["ready"], status["health"]) == (False, "Suspended")
    assert not os.path.exists(f"/proc/{pid}")
    assert "app-stopped" in daemon.reasons()


def test_nothing_starts_it_but_a_person(daemon: Daemon) -> None:
    daemon.start_ready()
    pid = webui(daemon)["pid"]
    stopped = daemon.cli("stop", "webui", "--reason", "the GPU is needed")
    assert stopped.code == 0, stopped
    check_stopped(daemon, pid)
    assert webui(daemon)["stopped"].endswith(": the GPU is needed")
    assert daemon.cli("status").code == 1
    assert daemon.cli("stop", "webui").code == 0, "twice is once"

    plan = daemon.cli("switch", "v22", "--dry-run", "-o", "json").json["plan"]
    assert (plan["apps"], plan["stopped"]) == ([], ["webui"])
    assert daemon.cli("switch", "v22").code == 0
    check_stopped(daemon, pid)
    assert daemon.cli("restart", "storage").code == 0
    until(lambda: daemon.status()["models"]["cache_hub"]["stage"] == "linked", SOON_S, "the model on the new mount")
    check_stopped(daemon, pid)
    daemon.config["apps"]["webui"]["environment"]["OTHER"] = "1"
    daemon.write_config()
    assert daemon.cli("reload").code == 0
    check_stopped(daemon, pid)

    started = daemon.cli("start", "webui", "--reason", "the GPU is free")
    assert started.code == 0, started
    assert daemon.page()["version"] == "v22"
    assert (webui(daemon)["stopped"], daemon.until_ready()["health"]) == (None, "Healthy")
    assert [text.rpartition(": ")[2] for text in events(daemon, "app-stop-asked")] == ["the GPU is needed"]
    assert [text.rpartition(": ")[2] for text in events(daemon, "app-start-asked")] == ["the GPU is free"]

    assert daemon.cli("stop", "webui").code == 0
    assert daemon.stop() == 0
    assert daemon.start_ready()["apps"]["webui"]["stopped"] is None, "a new run of mountd starts all"


@pytest.mark.thorough
def test_a_restart_and_a_signal(daemon: Daemon) -> None:
    daemon.start_ready()
    assert daemon.cli("stop", "webui").code == 0
    assert daemon.cli("signal", "webui", "HUP").code == 7
    assert daemon.cli("restart", "webui").code == 0, "of a stopped app it is a start"
    pid = webui(daemon)["pid"]
    assert webui(daemon)["stopped"] is None
    assert daemon.cli("signal", "webui", "STOP").code == 2
    assert daemon.cli("stop", "storage").code == 3
    sent = daemon.cli("signal", "webui", "kill", "-o", "json")
    assert (sent.json["signal"], sent.json["pid"]) == ("SIGKILL", pid)
    until(lambda: webui(daemon)["pid"] not in (None, pid), SOON_S, "the app to be restarted after it")
    daemon.until_ready()
    assert [f"pid {pid}" in text for text in events(daemon, "app-signalled")] == [True]


@pytest.mark.thorough
def test_the_status_shows_what_a_broken_app_said_last(daemon: Daemon) -> None:
    script = "for n in 1 2 3 4 5 6 7; do echo \"try $n $(printf '\\033[2J')\"; done; exit 3"
    daemon.config["apps"]["webui"]["command"] = ["/bin/sh", "-c", script]
    daemon.config["apps"]["webui"]["restart"] = {"limit": "1 in 10m", "backoff": {"initial": "100ms"}}
    daemon.start()
    until(lambda: webui(daemon)["state"] == "failed", SOON_S, "the app to have failed", every_s=0.1)
    assert [line["text"].split()[1] for line in webui(daemon)["said"]] == ["3", "4", "5", "6", "7"]
    shown = daemon.cli("status")
    assert (shown.code, "│ try 7 " in shown.out, "\x1b" in shown.out) == (1, True, False)
    assert daemon.cli("stop", "webui").code == 0, "one that has failed is Suspended from now on"
    assert (webui(daemon)["health"], webui(daemon)["said"]) == ("Suspended", [])


@pytest.mark.thorough
def test_a_process_that_ignores_its_stop_is_killed(daemon: Daemon, tmp_path: Path) -> None:
    script = f"trap '' INT; touch {tmp_path}/up; while :; do sleep 0.1; done"
    app = daemon.config["apps"]["webui"]
    app |= {"command": ["/bin/sh", "-c", script], "stop": {"signal": "SIGINT", "grace": "1s"}}
    del app["ready"]
    daemon.start_ready()
    until((tmp_path / "up").exists, SOON_S, "the app to ignore it")
    pid = webui(daemon)["pid"]
    assert daemon.cli("stop", "webui").code == 0
    check_stopped(daemon, pid)
    assert daemon.stop(signal.SIGTERM) == 0
