"""A link that somebody changes under a running daemon: put right within two seconds, or why not is shown."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mountd.client.api import get
from mountd.model.drift import HEALS_PER_WINDOW
from tests.support.daemon import ANSWER_S, ONLY_BY_EVENTS, Daemon
from tests.support.machine import replace_link_by_directory
from tests.support.wait import until

pytestmark = pytest.mark.fuse

SOON_S = 60.0


def model(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status()["models"]["cache_hub"]
    return found


def codes(daemon: Daemon) -> list[str]:
    events = get(str(daemon.socket), "/api/v1/events?object=cache_hub&limit=1000", timeout_s=ANSWER_S)["events"]
    return [event["code"] for event in events]


def target(daemon: Daemon, version: str = "v23") -> str:
    return f"{daemon.mount}/cache_hub_{version}"


def point(link: Path, somewhere: Path | str) -> None:
    """As `ln -sfn` does it, in one step."""
    other = link.with_name(f"other-{threading.get_ident()}")
    other.symlink_to(somewhere)
    other.rename(link)


def empty(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()


def is_right(daemon: Daemon) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(daemon.link) == target(daemon)
    return False


def assert_healed(daemon: Daemon) -> None:
    """By what was heard: how soon is measured where a busy machine matters less."""
    until(lambda: is_right(daemon), SOON_S, "the link to be right again", every_s=0.005)
    until(lambda: (model(daemon)["sync"], model(daemon)["health"]) == ("Synced", "Healthy"), SOON_S, "Synced")


@pytest.fixture
def linked(daemon: Daemon) -> Daemon:
    """Its link lies in a directory of its own, which may be taken away while the app runs."""
    daemon.program = (sys.executable, "-c", ONLY_BY_EVENTS)
    daemon.link = daemon.root / "links" / "cache_hub"
    daemon.link.parent.mkdir()
    daemon.config["models"]["cache_hub"]["link"] = str(daemon.link)
    command = daemon.config["apps"]["webui"]["command"]
    command[command.index("./cache_hub")] = str(daemon.link)
    daemon.start_ready()
    return daemon


@pytest.mark.slow
def test_whatever_is_done_to_the_link_it_is_right_again_and_data_is_never_touched(linked: Daemon) -> None:
    daemon = linked
    app = daemon.status()["apps"]["webui"]["pid"]
    theirs = daemon.root / "theirs"
    theirs.mkdir()
    (theirs / "gpt.pth").write_text("precious")

    changes: list[Callable[[], object]] = [
        daemon.link.unlink,
        lambda: point(daemon.link, theirs),
        lambda: point(daemon.link, target(daemon, "v22")),
        lambda: daemon.link.rename(daemon.link.with_name("moved")),
        lambda: empty(daemon.link.parent),
    ]
    for change in changes:
        change()
        assert_healed(daemon)
    assert (theirs / "gpt.pth").read_text() == "precious"
    assert len(daemon.until_events("link healed", len(changes))) == len(changes)
    causes = [event["cause"] for event in daemon.events("link was changed")]
    assert [str(theirs) in cause for cause in causes[:2]] == [False, True], "where it pointed"
    assert all(str(daemon.link) in cause for cause in causes[:2])
    until(lambda: codes(daemon).count("link-healed") == len(changes), SOON_S, "the events")
    assert codes(daemon).count("link-drifted") >= len(changes)

    # A real directory, with data in it: reported, with what to do, and left.
    replace_link_by_directory(daemon.link, "gpt.pth", "precious")
    reason = daemon.until_reason("link-blocked")
    assert f"mv {daemon.link} {daemon.link}.old" in reason["hint"]
    now = model(daemon)
    assert (now["health"], now["sync"], now["stage"]) == ("Degraded", "OutOfSync", "warmed")
    status = daemon.status()
    assert (status["health"], status["ready"]) == ("Degraded", True), "what runs goes on"
    old = daemon.link.rename(f"{daemon.link}.old")
    assert_healed(daemon)
    assert model(daemon)["stage"] == "linked"
    assert (old / "gpt.pth").read_text() == "precious"
    until(lambda: "link-blocked" in codes(daemon), SOON_S, "the event")

    # Its directory is gone for a while.
    away = daemon.link.parent.rename(daemon.root / "away")
    assert f"mkdir -p {daemon.link.parent}" in daemon.until_reason("link-blocked")["hint"]
    assert not daemon.link.parent.exists()
    daemon.link.parent.mkdir()
    assert_healed(daemon)
    assert (away / "cache_hub.old" / "gpt.pth").read_text() == "precious"
    assert daemon.status()["apps"]["webui"]["pid"] == app

    # A switch still works, and has the link for itself.
    assert daemon.cli("switch", "v22").code == 0
    assert os.readlink(daemon.link) == target(daemon, "v22")


@pytest.mark.thorough
@pytest.mark.slow
def test_somebody_who_changes_it_repeatedly_is_reported_and_slowed_down(linked: Daemon) -> None:
    daemon, over = linked, threading.Event()

    def fight() -> None:
        while not over.wait(0.005):
            with contextlib.suppress(OSError):
                if is_right(daemon):
                    point(daemon.link, "/somewhere/else")

    fighting = threading.Thread(target=fight)
    fighting.start()
    try:
        reason = until(
            lambda: next((each for each in daemon.status()["reasons"] if "repeatedly" in each["text"]), None),
            SOON_S,
            "the fight to be reported",
            every_s=0.1,
        )
        assert reason is not None
        assert (reason["code"], reason["object"]) == ("link-drifted", "cache_hub")
        assert (model(daemon)["sync"], model(daemon)["health"]) == ("OutOfSync", "Degraded")
        looking = time.monotonic() + 3
        until(lambda: time.monotonic() > looking, 10, "some seconds of being fought", every_s=0.5)
        assert len(daemon.until_events("link healed", HEALS_PER_WINDOW)) == HEALS_PER_WINDOW
        assert len(daemon.events("link was changed")) <= HEALS_PER_WINDOW + 1
        assert daemon.status()["ready"]
    finally:
        over.set()
        fighting.join()
    point(daemon.link, target(daemon))  # the one who did it has put it right
    until(lambda: model(daemon)["sync"] == "Synced", SOON_S, "peace")
