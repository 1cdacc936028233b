"""Pause and resume: automatic changes wait, also over a restart of mountd; supervision and what a person asks go on."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from mountd.client.api import get, post
from tests.support.daemon import ANSWER_S, ONLY_BY_EVENTS, Daemon
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

SOON_S = 30.0


def model(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status()["models"]["cache_hub"]
    return found


def ask(daemon: Daemon, what: str, **body: str) -> dict[str, Any]:
    (found,) = post(str(daemon.socket), f"/api/v1/{what}", body, timeout_s=ANSWER_S)["models"]
    return dict(found)


def events(daemon: Daemon, code: str) -> list[str]:
    found = get(str(daemon.socket), f"/api/v1/events?code={code}", timeout_s=ANSWER_S)["events"]
    return [event["text"] for event in found]


def until_model(daemon: Daemon, **wanted: Any) -> None:
    def reached() -> bool:
        found = model(daemon)
        assert daemon.process is not None
        assert daemon.process.poll() is None
        return all(found[key] == value for key, value in wanted.items())

    until(reached, SOON_S, f"the model to be {wanted}", every_s=0.1)


def target(daemon: Daemon) -> str:
    with contextlib.suppress(OSError):
        return os.path.basename(os.readlink(daemon.link))
    return ""


def write(daemon: Daemon, **changes: Any) -> None:
    """An edit in place, and a reload."""
    daemon.config["models"]["cache_hub"] |= changes
    daemon.write_config()
    assert daemon.cli("reload").code == 0


def point(link: Path, somewhere: Path | str) -> None:
    other = link.with_name("other")
    other.symlink_to(somewhere)
    other.rename(link)


@pytest.mark.thorough
def test_what_is_paused_waits_for_resume_over_a_restart_and_is_watched_all_the_same(daemon: Daemon) -> None:
    daemon.start_ready()
    paused = daemon.cli("pause", "--reason", "night shift")
    assert paused.code == 0, paused
    status = daemon.status()
    assert (status["health"], status["ready"]) == ("Suspended", True)
    assert model(daemon)["health"] == "Suspended"
    assert model(daemon)["suspended"].endswith(": night shift")
    assert "night shift" in daemon.reasons()["suspended"]["text"]

    # The link: reported, not healed.
    point(daemon.link, "/somewhere/else")
    assert daemon.until_reason("link-drifted")["hint"]
    # The version: wanted, not switched to.
    write(daemon, version="v22")
    until_model(daemon, current="v23", desired="v22", sync="OutOfSync")
    assert daemon.until_reason("switch-waits")["hint"]
    # The app: restarted as ever (by its supervisor, which reads no link).
    app = daemon.status()["apps"]["webui"]["pid"]
    point(daemon.link, f"{daemon.mount}/cache_hub_v23")
    until(lambda: "link-drifted" not in daemon.reasons(), SOON_S, "the link that was put right by hand to be seen")
    os.kill(app, signal.SIGKILL)
    until(lambda: daemon.status()["apps"]["webui"]["pid"] not in (None, app), SOON_S, "the app to be restarted")
    daemon.until_ready()

    point(daemon.link, "/somewhere/else")
    daemon.until_reason("link-drifted")
    assert daemon.stop() == 0
    daemon.start()
    until_model(daemon, current="v23", desired="v22", sync="OutOfSync", health="Suspended", stage="linked")
    daemon.until_reason("link-drifted")
    assert os.readlink(daemon.link) == "/somewhere/else", "a restart is no resume"
    assert daemon.status()["operation"] is None

    resumed = ask(daemon, "resume", reason="morning")
    assert (resumed["model"], resumed["suspended"], resumed["changed"]) == ("cache_hub", None, True)
    until_model(daemon, current="v22", desired="v22", sync="Synced", health="Healthy", suspended=None)
    assert target(daemon) == "cache_hub_v22"
    assert daemon.reasons().keys().isdisjoint({"suspended", "switch-waits", "link-drifted"})
    assert [text.partition(":")[2] for text in events(daemon, "suspended")] == [" night shift"]
    assert [text.partition(":")[2] for text in events(daemon, "resumed")] == [" morning"]
    assert ask(daemon, "resume")["changed"] is False


@pytest.mark.thorough
def test_a_person_may_switch_while_paused_and_a_request_that_waited_is_then_void(daemon: Daemon) -> None:
    daemon.start_ready()
    ask(daemon, "pause", model="cache_hub")
    daemon.link.unlink()
    daemon.until_reason("link-drifted")
    assert model(daemon)["stage"] == "warmed"
    assert not os.path.lexists(daemon.link)
    point(daemon.link, f"{daemon.mount}/cache_hub_v23")
    until_model(daemon, stage="linked")
    write(daemon, version="v22")
    until_model(daemon, desired="v22", current="v23")
    assert daemon.cli("switch", "v22").code == 0
    assert daemon.cli("switch", "v23").code == 0
    until_model(daemon, current="v23", desired="v23", sync="Synced", health="Suspended")
    ask(daemon, "resume")
    until(lambda: daemon.events("another version was asked for since"), SOON_S, "the request to be dropped")
    until_model(daemon, current="v23", desired="v23", sync="Synced", health="Healthy")


@pytest.mark.thorough
def test_by_configuration_nothing_is_healed_or_switched_by_itself(daemon: Daemon) -> None:
    daemon.program = (sys.executable, "-c", ONLY_BY_EVENTS)
    daemon.config["models"]["cache_hub"]["sync"] = {"automatic": False, "self_heal": False}
    daemon.start_ready()
    point(daemon.link, "/somewhere/else")
    assert "sync.self_heal" in daemon.until_reason("link-drifted")["text"]
    write(daemon, version="v22")
    until_model(daemon, current="v23", desired="v22", sync="OutOfSync", health="Healthy")
    assert "sync.automatic" in daemon.until_reason("switch-waits")["text"]
    assert target(daemon) == "else"

    write(daemon, sync={"automatic": False, "self_heal": True})
    until(lambda: target(daemon) == "cache_hub_v23", SOON_S, "the link to be healed")
    until(lambda: "link-drifted" not in daemon.reasons(), SOON_S, "that to be reported")
    assert (model(daemon)["current"], daemon.status()["operation"]) == ("v23", None)
    write(daemon, sync={"automatic": True, "self_heal": True})
    until_model(daemon, current="v22", sync="Synced")
