"""Reload of a file that cannot be used: refused as a whole and shown everywhere; mountd keeps the previous one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import urllib.request
from typing import Any

import pytest

from tests.support import hold_port
from tests.support.daemon import Daemon
from tests.support.explained import until_explained
from tests.support.reloading import SOON_S, journaled, pids, start_with_bystanders
from tests.support.wait import until

pytestmark = pytest.mark.fuse


@pytest.fixture
def running(daemon: Daemon) -> Daemon:
    return start_with_bystanders(daemon)


def refused(daemon: Daemon) -> set[str]:
    """Asks for what is in `config` now by the command, which must refuse it and say so everywhere: for which keys."""
    daemon.write_config()
    result = daemon.cli("reload")
    assert result.code == 2, result
    assert result.out == ""
    assert str(daemon.config_file) in result.err
    assert "Traceback" not in result.err + daemon.own_log_text()
    status = daemon.status()
    assert status["health"] == "Degraded"
    assert status["ready"], "the previous configuration stays"
    [reason] = [each for each in status["reasons"] if each["code"] == "config-broken"]
    assert (reason["layer"], reason["object"]) == ("config", str(daemon.config_file))
    assert reason["hint"]
    assert status["config"]["problems"]
    for problem in status["config"]["problems"]:
        assert problem["path"] in reason["text"]
        assert f"line {problem['line']}" in result.err
        assert problem["text"] in result.err
    shown = daemon.cli("status")
    assert shown.code == 0
    assert reason["text"] in shown.out
    return {problem["path"] for problem in status["config"]["problems"]}


def first_problem(daemon: Daemon) -> dict[str, Any]:
    problem: dict[str, Any] = daemon.status()["config"]["problems"][0]
    return problem


def test_a_broken_file_is_shown_and_heals(running: Daemon) -> None:
    before = pids(running)
    good = running.write_config().read_text()
    running.config["apps"]["webui"]["comand"] = ["x"]
    running.config["mounts"]["storage"]["umask"] = "999"
    running.config["apps"]["free"]["environment"] = {"NEW": "1"}
    assert refused(running) == {"apps.webui.comand", "mounts.storage.umask"}
    assert "apps.webui.comand" in until_explained(running, "config-broken")["root"]["evidence"][0]
    document = running.cli("reload", "-o", "json")
    assert document.code == 2
    assert document.json["error"]["exit"] == 2
    [event] = running.until_events("configuration invalid, keeping the previous one")
    assert len(event["problems"]) == 2
    until(lambda: journaled(running, "config-broken"), 60, "the event")
    assert pids(running) == before

    running.config_file.write_text("remotes: [")
    until(lambda: first_problem(running)["path"] == "", SOON_S, "the file to be read")
    bad = first_problem(running)
    running.config_file.unlink()
    until(lambda: first_problem(running) != bad, SOON_S, "the file to be missed")
    missing = first_problem(running)
    os.mkfifo(running.config_file)
    until(lambda: first_problem(running) != missing, SOON_S, "the pipe to be refused")
    assert running.cli("reload").code == 2, "not deaf"
    many = "".join(f"key{number}: x\n" for number in range(9_000))
    running.config_file.unlink()
    running.config_file.write_text(good + many)
    until(lambda: "key0" in json.dumps(running.status()["config"]), SOON_S, "9,000 unknown keys to be judged")
    assert len(running.status()["config"]["problems"]) <= 51
    running.config_file.write_text(good)
    until(lambda: "config-broken" not in running.reasons(), SOON_S, "the file to be used again")
    assert running.status()["health"] == "Healthy"
    assert pids(running) == before


@pytest.mark.thorough
def test_a_secret_that_cannot_be_read_is_a_broken_file(running: Daemon) -> None:
    before = pids(running)
    running.secret.unlink()
    reason = running.until_reason("config-broken", SOON_S)
    assert "remotes.store.secret_access_key" in reason["text"]
    result = running.cli("reload")
    assert result.code == 2
    assert str(running.secret) in result.err
    running.secret.write_text(running.secret_access_key)
    until(lambda: "config-broken" not in running.reasons(), SOON_S, "the secret to be there again")
    assert pids(running) == before


def test_what_needs_a_restart_of_mountd_is_refused_as_a_whole(running: Daemon) -> None:
    before = pids(running)
    running.config["state"] = str(running.root / "state2")
    running.config["control"]["group"] = "root"
    running.config["log"] = {"format": "json"}
    running.config["apps"]["free"]["environment"] = {"NEW": "1"}
    assert refused(running) == {"state", "control.group", "log.format"}
    assert pids(running) == before
    assert not (running.root / "state2").exists()


@pytest.mark.thorough
def test_http_stays_where_it_is_when_the_port_is_taken(running: Daemon) -> None:
    former = running.config["http"]["listen"]
    with contextlib.closing(hold_port()) as held:
        held.listen()
        port = held.getsockname()[1]
        running.config["http"]["listen"] = f"127.0.0.1:{port}"
        running.config["apps"]["webui"]["environment"]["NEW"] = "here"
        before = pids(running)
        assert refused(running) == {"http.listen"}
        urllib.request.urlopen(f"http://{former}/healthz", timeout=30).close()
        assert pids(running) == before, "all or nothing"


@pytest.mark.thorough
def test_a_flag_that_this_rclone_does_not_know_is_refused(running: Daemon) -> None:
    before = pids(running)
    running.config["mounts"]["storage"]["options"] = {"no-such-flag": "1"}
    assert refused(running) == {"mounts.storage.options.no-such-flag"}
    assert pids(running) == before


@pytest.mark.thorough
def test_a_link_that_cannot_be_placed_is_refused(running: Daemon) -> None:
    blocked = running.app / "data"
    blocked.mkdir()
    running.config["models"]["cache_hub"]["link"] = str(blocked)
    assert refused(running) == {"models.cache_hub.link"}
    assert running.link.is_symlink()


@pytest.mark.thorough
def test_a_file_on_a_mount_of_ours_is_not_touched(running: Daemon) -> None:
    """It would be read by the daemon's own process, which a hung mount must never stop."""
    running.secret.unlink()
    running.secret.symlink_to(running.mount / "cache_hub_v23")
    os.kill(pids(running)["storage"] or 0, signal.SIGSTOP)
    assert str(running.mount) in running.until_reason("config-broken", SOON_S)["text"]
    running.secret.unlink()
    running.secret.write_text(running.secret_access_key)
    until(lambda: "config-broken" not in running.reasons(), SOON_S, "the secret to be there again")
