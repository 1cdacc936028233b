"""Reloads while others are at it: several at once change things once, and a switch is waited for."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
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


# On a busy machine a switch may take longer than the product lets somebody wait for it.
PATIENT = """
import sys
from mountd.cli.main import main
from mountd.daemon.reload import Reloader
Reloader.reload.__kwdefaults__["patience_s"] = 60.0
sys.exit(main())
"""


@pytest.fixture
def held(daemon: Daemon) -> Daemon:
    """A switch of it goes on until `let_go`."""
    command = ["sh", "-c", f"until test -e '{daemon.root}/go'; do sleep 0.1; done"]
    daemon.config["models"]["cache_hub"]["gates"] = [{"command": command, "timeout": "100s"}]
    daemon.start_ready()
    return daemon


def let_go(daemon: Daemon) -> None:
    (daemon.root / "go").touch()


@contextlib.contextmanager
def switching(daemon: Daemon, version: str) -> Iterator[None]:
    """While a switch runs, which must succeed."""
    command = [sys.executable, "-m", "mountd", "--socket", str(daemon.socket), "switch", version]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as asking:
        until(lambda: daemon.status()["operation"], 60, "the switch to begin")
        try:
            yield
            assert asking.wait(90) == 0
        finally:
            asking.kill()


@pytest.mark.thorough
def test_a_switch_is_waited_for(make_daemon: Callable[..., Daemon]) -> None:
    slow = make_daemon(webui=("--load-seconds", "4"), program=(sys.executable, "-c", PATIENT))
    slow.start_ready()
    with switching(slow, "v22"):
        slow.config["apps"]["webui"]["ready"]["timeout"] = "45s"
        done = reload(slow)
        assert slow.status()["operation"] is None
    assert done["in_place"] == ["apps.webui.ready.timeout"]
    assert slow.until_ready()["models"]["cache_hub"]["current"] == "v22"


@pytest.mark.thorough
def test_nothing_left_to_do_is_success_while_a_switch_runs(held: Daemon) -> None:
    """Such as `systemctl reload` right after an edited version, which mountd has noticed and is switching to."""
    held.config["models"]["cache_hub"]["version"] = "v22"
    held.write_config()
    until(lambda: held.status()["operation"], 60, "the switch to begin")
    result = held.cli("reload", "-o", "json")
    assert result.code == 0, result
    assert result.json["changed"] == []
    assert held.status()["operation"] is not None, "it was not waited for"
    let_go(held)
    until(lambda: held.status()["operation"] is None, 60, "the end of the switch")
    assert held.until_ready()["models"]["cache_hub"]["current"] == "v22"


@pytest.mark.thorough
def test_a_broken_file_is_refused_while_a_switch_runs(held: Daemon) -> None:
    """At once: the end of the switch would change nothing about it."""
    with switching(held, "v22"):
        held.write_config()
        held.config_file.write_text(f"{held.config_file.read_text()}\nno: such key\n")
        result = held.cli("reload")
        assert held.status()["operation"] is not None
        assert result.code == 2, result
        assert "config-broken" in held.reasons()
        let_go(held)


@pytest.mark.thorough
@pytest.mark.slow
def test_a_long_switch_makes_the_one_who_asks_go_away(held: Daemon) -> None:
    """But not the change: it is made as soon as the switch is over."""
    with switching(held, "v22"):
        held.config["apps"]["webui"]["ready"]["timeout"] = "45s"
        held.write_config()
        result = held.cli("reload", "-o", "json")
        assert result.code == 6, result
        assert "switch cache_hub" in result.json["error"]["holder"]
        assert held.events("configuration reloaded") == []
        let_go(held)
    until(lambda: held.events("configuration reloaded"), SOON_S, "the change to be made")
