"""`mountd logs`: progress bars as they are now, one process or the one before, and only what is new enough."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mountd.client.api import get
from tests.support.daemon import ANSWER_S, Daemon, Result
from tests.support.hostile import raw_controls
from tests.support.wait import until

pytestmark = pytest.mark.fuse

SOON_S = 60.0
# Loads with a bar of 18 KB that is not ended before a file is there; says what would do harm on a terminal.
APP = r"""
import os, sys, time
say = sys.stdout.buffer
say.write(f"process {os.getpid()} starts\n".encode() + b"\x1b[2J\x9b31m \xff\xc2\x9b31m \xe2\x80\xae\0\n")
for percent in range(1000):
    say.write(b"\r%5.1f%% of gpt.pth" % (percent / 10))
say.flush()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
say.write(b"\rloaded\nlast words")
say.flush()
os.unlink(sys.argv[1])
sys.exit(3)
"""


def texts(result: Result) -> list[str]:
    assert result.code == 0, result
    return [row["text"] for row in result.json["logs"]]


def until_bar(daemon: Daemon) -> None:
    """By the API: a command for each look would keep the machine busy."""

    def last() -> str:
        rows = get(str(daemon.socket), "/api/v1/logs", timeout_s=ANSWER_S, name="webui")["logs"]
        return str(rows[-1]["text"]) if rows else ""

    until(lambda: last() == " 99.9% of gpt.pth", SOON_S, "the end of the bar")


def test_logs(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon()
    script, go_on = tmp_path / "app.py", tmp_path / "go-on"
    script.write_text(APP)
    app = daemon.config["apps"]["webui"]
    app["command"] = [sys.executable, "-I", "-S", str(script), str(go_on)]
    del app["ready"]
    daemon.start_ready()
    until_bar(daemon)
    missing = daemon.cli("logs", "webui", "--previous")
    assert (missing.code, "previous process of webui" in missing.err) == (3, True), missing

    first = daemon.status()["apps"]["webui"]["pid"]
    go_on.touch()
    second = until(
        lambda: (pid := daemon.status()["apps"]["webui"]["pid"]) not in (None, first) and pid, SOON_S, "more"
    )
    began = time.monotonic()
    before = texts(daemon.cli("logs", "webui", "--previous", "-o", "json"))
    assert before[0] == f"process {first} starts"
    assert before[-2:] == ["loaded", "last words"]
    assert not any("of gpt.pth" in text for text in before)
    assert texts(daemon.cli("logs", "webui", "-p", "-n", "1", "-o", "json")) == ["last words"]
    until_bar(daemon)
    whole = texts(daemon.cli("logs", "webui", "--since", "1h", "-o", "json"))
    assert f"process {first} starts" in whole
    assert f"process {second} starts" in whole
    until(lambda: time.monotonic() - began > 1.0, SOON_S, "a second")
    assert texts(daemon.cli("logs", "webui", "--since", "100ms", "-o", "json")) == []
    assert daemon.cli("logs", "--previous", "--follow").code == 2

    shown = daemon.cli("logs", "webui")
    assert shown.code == 0
    assert raw_controls(shown.out) == []
    assert "\\x1b[2J\ufffd31m \ufffd\\x9b31m \\u202e\\x00" in shown.out
