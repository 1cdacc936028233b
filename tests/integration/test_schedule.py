"""Switches for a later time, by a real daemon: carried out, also after a kill; dropped; missed after a clock jump."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from mountd.client.api import get
from tests.support.daemon import ANSWER_S, Daemon
from tests.support.wait import until
from tests.support.wall_clock import HOUR_S, Clock, library

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

SOON_S = 60.0


def schedule(daemon: Daemon, version: str, at: str) -> int:
    asked = daemon.cli("switch", version, "--at", at, "--reason", "nightly")
    assert asked.code == 0, asked
    return int(asked.out)


def entry(daemon: Daemon, id_: int) -> dict[str, Any]:
    return get(str(daemon.socket), f"/api/v1/history/{id_}", timeout_s=ANSWER_S)


def until_ended(daemon: Daemon, id_: int) -> dict[str, Any]:
    until(lambda: entry(daemon, id_)["finished"], SOON_S, f"the end of operation {id_}", every_s=0.1)
    return entry(daemon, id_)


def switches(daemon: Daemon) -> list[dict[str, Any]]:
    found = get(str(daemon.socket), "/api/v1/history", timeout_s=ANSWER_S, kind="switch")
    return list(found["history"])


def test_carried_out_once_also_after_a_kill_before_its_time(daemon: Daemon) -> None:
    status = daemon.start_ready()
    first = schedule(daemon, "v22", "+6s")
    assert [each["id"] for each in daemon.status()["scheduled"]] == [first]
    assert daemon.cli("wait", "--for", f"operation={first}").code == 0
    assert daemon.page()["version"] == "v22"
    (switch,) = switches(daemon)
    assert (switch["schedule"], switch["source"], switch["reason"]) == (first, "schedule", "nightly")

    second = schedule(daemon, "v23", "+8s")
    due = time.monotonic() + 9
    os.kill(status["pid"], signal.SIGKILL)
    assert daemon.wait_exit() == 128 + 9
    until(lambda: time.monotonic() > due, SOON_S, "its time")
    daemon.start()
    done = until_ended(daemon, second)
    assert (done["result"], done["kind"]) == ("committed", "schedule")
    daemon.until_ready()
    assert daemon.page()["version"] == "v23"
    assert daemon.stop() == 0
    daemon.start_ready()
    assert [each["schedule"] for each in switches(daemon)] == [second, first]
    assert daemon.status()["scheduled"] == []


@pytest.mark.thorough
def test_dropped_and_gone_back_to(daemon: Daemon) -> None:
    daemon.start_ready()
    assert daemon.cli("switch", "v22").code == 0
    (switch,) = switches(daemon)
    assert daemon.cli("switch", "v23").code == 0
    waiting = schedule(daemon, "v22", "+1h")
    shown = daemon.cli("status")
    assert (shown.code, f"scheduled {waiting}: cache_hub → v22" in shown.out) == (0, True)
    assert daemon.cli("cancel").code == 0
    assert daemon.cli("cancel").code == 3
    assert daemon.cli("rollback", "--to", str(waiting)).code == 7
    assert daemon.cli("rollback", "--to", "999").code == 3
    back = daemon.cli("rollback", "--to", str(switch["id"]))
    assert back.code == 0, back
    assert daemon.page()["version"] == "v22"
    newest = get(str(daemon.socket), "/api/v1/history", timeout_s=ANSWER_S)["history"][0]
    assert (newest["kind"], newest["from"], newest["to"], newest["result"]) == ("rollback", "v23", "v22", "committed")


@pytest.fixture
def clock(make_daemon: Callable[..., Daemon]) -> Clock:
    if not (found := library()):
        pytest.skip("no libfaketime: sudo apt-get install faketime")
    return Clock(make_daemon(), found)


@pytest.mark.thorough
def test_by_a_wall_clock_that_jumps(clock: Clock) -> None:
    daemon = clock.daemon
    daemon.start_ready()
    soon, late = schedule(daemon, "v22", "+90m"), schedule(daemon, "v23", "+5h")
    clock.jump(HOUR_S)
    assert [each["id"] for each in daemon.status()["scheduled"]] == [soon, late]
    clock.jump(2 * HOUR_S)
    assert until_ended(daemon, soon)["result"] == "committed"
    clock.jump(0)
    daemon.until_ready()
    clock.jump(7 * HOUR_S)
    missed = until_ended(daemon, late)
    assert (missed["result"], daemon.page()["version"]) == ("missed", "v22")
    assert len(switches(daemon)) == 1, "not again, whatever the clock says"

    def codes() -> list[str]:
        return [each["code"] for each in get(str(daemon.socket), "/api/v1/events", timeout_s=ANSWER_S)["events"]]

    until(lambda: codes().count("schedule-missed") == 1, SOON_S, "the event")
