"""Fifty who ask for a switch at once: one gets it, all others learn who has it, and it happens once."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pytest

from mountd.client import api
from tests.support import quick_app
from tests.support.daemon import Daemon
from tests.support.wait import until

pytestmark = pytest.mark.fuse

ASKING = 50
ANSWER_S, END_S = 60.0, 100.0


@dataclass(frozen=True, slots=True)
class Answer:
    """How one of them was answered: `exit` as of a command, 0 where an operation was begun."""

    exit: int
    text: str
    holder: str


@pytest.mark.parametrize(
    ("commands", "start_s"),
    [
        pytest.param(5, 0.0, id="mostly-over-the-socket"),
        pytest.param(ASKING, 20.0, id="all-by-the-command", marks=[pytest.mark.long, pytest.mark.timeout(240)]),
    ],
)
def test_of_fifty_switches_at_once_exactly_one_wins(daemon: Daemon, commands: int, start_s: float) -> None:
    """`commands` of them are the real `mountd switch`. The new app starts for `start_s` seconds, and for as long as not
    all others have their answer."""
    hold = daemon.root / "hold"
    app = daemon.config["apps"]["webui"]
    app["command"] = [
        *(sys.executable, "-I", "-S", str(Path(quick_app.__file__))),
        *(str(daemon.web_port), str(daemon.link), str(hold)),
    ]
    app["ready"]["timeout"] = f"{END_S:g}s"
    before = daemon.start_ready()["apps"]["webui"]
    hold.touch()

    barrier = threading.Barrier(ASKING)
    asked: list[Callable[[threading.Barrier], Answer]] = [lambda at: command(daemon, at)] * commands
    asked += [lambda at: over_socket(daemon, at)] * (ASKING - commands)
    shown: list[Answer] = []
    with ThreadPoolExecutor(ASKING) as pool:
        try:
            began = time.monotonic()
            futures = [pool.submit(each, barrier) for each in asked]
            for future in as_completed(futures, timeout=ANSWER_S + start_s):
                shown.append(future.result())
                # Who has won over the socket learns so at once, a command only at the end.
                if len(shown) == ASKING - all(each.exit for each in shown):
                    break
            # Others are refused as soon as it is claimed; it shows once the journal has it, and its app holds it up.
            until(lambda: daemon.status()["operation"] is not None, ANSWER_S, "the operation of the one who won")
            time.sleep(max(0.0, began + start_s - time.monotonic()))  # how long such an app takes is what is tried
        finally:
            hold.unlink()
        shown = [future.result(END_S) for future in futures]

    refused = [each for each in shown if each.exit != 0]
    assert len(refused) == ASKING - 1, "exactly one wins"
    for each in refused:
        assert each.exit == 6, each
        assert re.search(r"\S+.*v22.*\d+ s", each.holder), f"operator, target and age: {each.holder!r}"
        assert each.holder in each.text
    assert daemon.cli("wait", "--for", "version=v22", "--timeout", f"{END_S:g}s").code == 0
    ended = api.get(str(daemon.socket), "/api/v1/history")["history"]
    assert [(each["kind"], each["to"], each["result"]) for each in ended] == [("switch", "v22", "committed")]
    page, after = daemon.page(), daemon.status()["apps"]["webui"]
    assert page["version"] == "v22"
    assert page["pid"] == after["pid"] != before["pid"]
    assert len(daemon.until_events("app says", text="loading v22")) == 1


def command(daemon: Daemon, at_once: threading.Barrier) -> Answer:
    """`mountd switch`, which returns when its operation has ended."""
    at_once.wait(ANSWER_S)
    ended = daemon.cli("switch", "v22", "-o", "json", timeout_s=ANSWER_S + END_S)
    error = ended.json.get("error") or {"exit": ended.code, "text": "", "holder": ""}
    assert error["exit"] == ended.code
    return Answer(ended.code, error["text"], error.get("holder", ""))


def over_socket(daemon: Daemon, at_once: threading.Barrier) -> Answer:
    """What the command asks, and not more: it learns at once whether it was taken."""
    at_once.wait(ANSWER_S)
    status, document = api.request(str(daemon.socket), "POST", "/api/v1/switch", {"version": "v22"}, timeout_s=ANSWER_S)
    if status == 202:
        return Answer(0, "", "")
    assert status == 409, document
    error = document["error"]
    return Answer(error["exit"], error["text"], error["holder"])
