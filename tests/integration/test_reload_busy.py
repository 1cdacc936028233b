"""Reloads while others are at it: several at once change things once, and a switch is waited for."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.daemon import Daemon
from tests.support.reloading import SOON_S, assert_restarted, pids, reload, start_with_bystanders
from tests.support.wait import until

pytestmark = pytest.mark.fuse


@pytest.fixture
def running(daemon: Daemon) -> Daemon:
    return start_with_bystanders(daemon)


@pytest.mark.thorough
def test_two_at_once(running: Daemon) -> None:
    before = pids(running)
    running.config["apps"]["free"]["environment"] = {"NEW": "1"}
    running.write_config()
    command = [sys.executable, "-m", "mountd", "--socket", str(running.socket), "reload", "-o", "json"]
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [json.loads(each.communicate(timeout=60)[0]) for each in asking]
    assert [each.returncode for each in asking] == [0, 0, 0]
    assert_restarted(running, before, "free")
    starts = running.until_events("state changed", 2, app="free", state="running")
    assert len(starts) == 2, "it was restarted once"
    assert running.status()["apps"]["free"]["restarts"] == 0, "and that was asked for"
    assert sum(bool(each["changed"]) for each in answers) <= 1
    assert len(running.until_events("configuration reloaded")) == 1


@pytest.fixture
def slow(make_daemon: Callable[..., Daemon]) -> Daemon:
    """Its app needs some seconds to start, and so does a switch."""
    daemon = make_daemon(webui=("--load-seconds", "4"))
    daemon.start_ready()
    return daemon


@contextlib.contextmanager
def switching(daemon: Daemon, version: str) -> Iterator[None]:
    """While a switch runs, which must succeed."""
    command = [sys.executable, "-m", "mountd", "--socket", str(daemon.socket), "switch", version]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as asking:
        until(lambda: daemon.status()["operation"], 20, "the switch to begin")
        yield
        assert asking.wait(90) == 0


@pytest.mark.thorough
def test_a_switch_is_waited_for(slow: Daemon) -> None:
    with switching(slow, "v22"):
        slow.config["apps"]["webui"]["ready"]["timeout"] = "45s"
        done = reload(slow)
        assert slow.status()["operation"] is None
    assert done["in_place"] == ["apps.webui.ready.timeout"]
    assert slow.until_ready()["models"]["cache_hub"]["current"] == "v22"


@pytest.mark.thorough
def test_nothing_left_to_do_is_success_while_a_switch_runs(slow: Daemon) -> None:
    """Such as `systemctl reload` right after an edited version, which mountd has noticed and is switching to."""
    slow.config["models"]["cache_hub"]["version"] = "v22"
    slow.write_config()
    until(lambda: slow.status()["operation"], 20, "the switch to begin")
    began = time.monotonic()
    result = slow.cli("reload", "-o", "json")
    assert slow.status()["operation"] is not None, "it was not waited for"
    assert time.monotonic() - began < SOON_S
    assert result.code == 0, result
    assert result.json["changed"] == []
    until(lambda: slow.status()["operation"] is None, 60, "the end of the switch")
    assert slow.until_ready()["models"]["cache_hub"]["current"] == "v22"


@pytest.mark.thorough
def test_a_broken_file_is_refused_while_a_switch_runs(slow: Daemon) -> None:
    """At once: the end of the switch would change nothing about it."""
    with switching(slow, "v22"):
        slow.write_config()
        slow.config_file.write_text(f"{slow.config_file.read_text()}\nno: such key\n")
        result = slow.cli("reload")
        assert slow.status()["operation"] is not None
        assert result.code == 2, result
        assert "config-broken" in slow.reasons()


@pytest.mark.thorough
@pytest.mark.slow
def test_a_long_switch_makes_the_one_who_asks_go_away(make_daemon: Callable[..., Daemon]) -> None:
    """But not the change: it is made as soon as the switch is over."""
    daemon = make_daemon(webui=("--load-seconds", "18"))
    daemon.start()
    daemon.until_ready(60)
    with switching(daemon, "v22"):
        daemon.config["apps"]["webui"]["ready"]["timeout"] = "45s"
        daemon.write_config()
        result = daemon.cli("reload", "-o", "json")
        assert result.code == 6, result
        assert "switch cache_hub" in result.json["error"]["holder"]
        assert daemon.events("configuration reloaded") == []
    until(lambda: daemon.events("configuration reloaded"), SOON_S, "the change to be made")
