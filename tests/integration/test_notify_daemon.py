"""Notifications of a real daemon: through a kill and a restart, a reload, and with no secret where it can be read."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.receiver import Receiver, Says
from tests.support.wait import until

pytestmark = pytest.mark.fuse

SOON_S = 60.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as found:
        yield found


@pytest.fixture
def machine(daemon: Daemon) -> Daemon:
    """A model and its mount; there is no app to wait for."""
    daemon.config.pop("apps")
    return daemon


def secret(daemon: Daemon, name: str, text: str) -> dict[str, str]:
    file = daemon.root / name
    file.touch(0o600)
    file.write_text(f"{text}\n")
    return {"file": str(file)}


def stored(daemon: Daemon) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(daemon.root / "state" / "mountd.db", timeout=30)) as db:
        return db.execute("SELECT id, code FROM events ORDER BY id").fetchall()


def scraped(daemon: Daemon) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.http_port}/metrics", timeout=30) as answer:
        found: str = answer.read().decode()
        return found


def target(daemon: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status()["notify"][name]
    return found


def test_each_event_arrives_through_a_kill_and_secrets_are_nowhere(machine: Daemon, receiver: Receiver) -> None:
    receiver.otherwise = Says(503)
    machine.config["notify"] = {
        "ops": {
            "webhook": secret(machine, "url", f"{receiver.url}/SEEN-PATH?token=SEEN-TOKEN"),
            "secret": secret(machine, "key", "SEEN-KEY"),
            "events": ["mountd-*", "ready", "switch-*"],
        }
    }
    machine.start_ready()
    assert machine.cli("switch", "v22").code == 0
    receiver.until(3)
    until(lambda: machine.reasons().get("notify-failing"), SOON_S, "the reason")
    status = machine.status()
    assert (status["ready"], status["health"]) == (True, "Healthy"), "what mountd is for goes on"
    assert target(machine, "ops")["health"] == "Degraded"
    assert target(machine, "ops")["last_delivered"] is None
    until(lambda: target(machine, "ops")["pending"] >= 3, SOON_S, "what waits to be counted")
    os.kill(status["pid"], signal.SIGKILL)
    machine.wait_exit()

    receiver.got.clear()
    receiver.otherwise = Says(204)
    machine.start_ready()
    until(lambda: [code for _, code in stored(machine)].count("ready") == 2, SOON_S, "the journal to know of both runs")
    codes = [code for _, code in stored(machine)]
    wanted = [f"mountd.{code}" for code in codes if code in {"ready", "switch-committed"} or code[:7] == "mountd-"]
    until(lambda: len(receiver.got) >= len(wanted) >= 5, SOON_S, "all of both runs")
    assert receiver.types[: len(wanted)] == wanted
    assert {"mountd.switch-committed", "mountd.mountd-restarted-after-crash"} <= set(wanted)
    assert len(set(receiver.ids)) == len(receiver.ids)
    switched = next(each.json for each in receiver.got if each.json["type"] == "mountd.switch-committed")
    assert switched["subject"] == "cache_hub"
    assert (switched["data"]["from"], switched["data"]["to"], switched["data"]["result"]) == ("v23", "v22", "committed")
    until(lambda: target(machine, "ops")["health"] == "Healthy", SOON_S, "the target to be well")
    assert target(machine, "ops")["last_error"] is None

    counted = f'mountd_notify_messages_total{{target="ops"}} {float(len(wanted))}'
    until(lambda: counted in scraped(machine), SOON_S, "all to be counted")
    scrape = scraped(machine)
    assert 'mountd_notify_pending{target="ops"} 0.0' in scrape
    assert len(receiver.got) == len(wanted)
    done = machine.cli("notify", "ops")
    assert (done.code, receiver.types[-1]) == (0, "mountd.test")
    assert machine.cli("notify", "oops").code == 3
    receiver.otherwise = Says(500)
    failed = machine.cli("notify", "ops", "-o", "json")
    assert (failed.code, failed.json["error"]["exit"]) == (1, 1)

    shown = [machine.cli(*words) for words in (("status", "-o", "json"), ("events", "-o", "json"), ("logs",))]
    show = [sys.executable, "-m", "mountd", "config", "show", "-c", str(machine.config_file)]
    config = subprocess.run(show, capture_output=True, text=True, check=True)
    assert "notify" in config.stdout
    own = Path(f"/proc/{machine.status()['pid']}/cmdline").read_bytes()
    argv = [own, *machine.command_lines().values()]
    everything = [machine.log_text(), config.stdout, config.stderr, scrape, failed.out, failed.err, done.out]
    everything += [each.out + each.err for each in shown] + [each.decode() for each in argv]
    everything.append((machine.root / "state" / "mountd.db").read_bytes().decode(errors="replace"))
    assert "SEEN" not in "".join(everything)


def test_a_reload_adds_changes_and_removes_targets(machine: Daemon, receiver: Receiver) -> None:
    machine.start_ready()
    assert machine.status()["notify"] == {}
    first = secret(machine, "url", receiver.url)
    machine.config["notify"] = {"ops": {"webhook": first, "events": ["reload-*", "suspended", "resumed"]}}
    machine.write_config()
    done = machine.cli("reload", "-o", "json").json
    assert done["restarted"] == []
    until(lambda: "ops" in machine.status()["notify"], SOON_S, "the target")
    assert machine.cli("pause").code == 0
    until(lambda: "mountd.suspended" in receiver.types, SOON_S, "the event")
    assert "mountd.ready" not in receiver.types, "what was before"

    with Receiver() as other:
        (machine.root / "url").write_text(other.url)  # only the file of the secret changes
        assert machine.cli("resume").code == 0
        until(lambda: "mountd.resumed" in other.types, SOON_S, "the event at the other address")
    known = len(receiver.got)

    machine.config["notify"] = {"people": {"apprise": secret(machine, "who", f"json://127.0.0.1:{receiver.port}/x")}}
    machine.config["notify"]["people"] |= {"events": ["suspended"], "language": "zh_CN", "timeout": "60s"}
    machine.write_config()
    assert machine.cli("reload").code == 0
    until(lambda: list(machine.status()["notify"]) == ["people"], SOON_S, "the other target")
    assert machine.cli("pause").code == 0
    until(lambda: len(receiver.got) > known, SOON_S, "the message")
    assert "暂停" in json.loads(receiver.got[-1].body)["message"]

    machine.config.pop("notify")
    machine.write_config()
    assert machine.cli("reload").code == 0
    until(lambda: machine.status()["notify"] == {}, SOON_S, "none")
    with closing(sqlite3.connect(machine.root / "state" / "mountd.db", timeout=30)) as db:
        until(lambda: db.execute("SELECT target FROM notify").fetchall() == [], SOON_S, "it to be forgotten")


def test_an_alarm_that_was_over_when_mountd_began_again_has_an_end(machine: Daemon, receiver: Receiver) -> None:
    machine.config["notify"] = {"ops": {"webhook": receiver.url, "events": ["config-broken"]}}
    machine.start_ready()
    good = machine.config_file.read_text()
    machine.config_file.write_text(f"{good}\nnonsense: true\n")
    receiver.until(1)
    os.kill(machine.status()["pid"], signal.SIGKILL)
    machine.wait_exit()
    machine.config_file.write_text(good)
    machine.start()
    # The first one comes once more, with its id, when mountd was killed before it had noted that it was delivered.
    until(lambda: len(set(receiver.ids)) == 2, SOON_S, "the end of the alarm")
    once = {each.headers["webhook-id"]: each.json["type"] for each in [*receiver.got]}
    assert [*once.values()] == ["mountd.config-broken", "mountd.config-reloaded"]
    assert {each.json["subject"] for each in receiver.got} == {str(machine.config_file)}


def test_a_daemon_without_targets_imports_nothing_of_it() -> None:
    code = "import sys, mountd.daemon.run; print([name for name in sys.modules if name.startswith('mountd.notify')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
