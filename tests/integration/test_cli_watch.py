"""`status --watch` on a real terminal, against a stand-in daemon: what it shows, and how it leaves."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_cli_host import FarMachine
from tests.support.standin import OPERATION, STATUS, StandIn
from tests.support.terminal import ENTERS, LEAVES, SHOWS_CURSOR, Terminal
from tests.support.wait import until

RATES = [0.0, 1e6, 2e7, 1.2e8, 9e7, 3e7] * 20
TRAFFIC = {
    "schema": 1,
    "interval_s": 5,
    "mounts": {
        "storage": {
            "fetched_bytes_per_s": RATES,
            "uploaded_bytes_per_s": [0.0] * len(RATES),
            "cache_bytes": [5 << 30],
            "cache_limit_bytes": 20 << 30,
        }
    },
}
EVENTS = [
    {
        "id": id_,
        "time": f"2026-01-01T00:{id_:02}:05.123Z",
        "code": "app-ready",
        "object": "webui",
        "text": f"打开 {id_}",
    }
    for id_ in range(1, 31)
]
LOADING = {
    "version": "v24", "level": "data", "percent": 63, "bytes_done": 1, "bytes_total": 9 << 30, "bytes_per_s": 1e8,
    "eta_s": 45.0, "waits_for": "",
}  # fmt: skip
BUSY: dict[str, Any] = {
    **STATUS,
    "models": {"cache_hub": {**STATUS["models"]["cache_hub"], "loading": LOADING}},
    "operation": {**OPERATION, "percent": 40},
    "operations": [{**OPERATION, "percent": 40}],
}


@pytest.fixture
def standin(standin: StandIn) -> StandIn:
    standin.status = BUSY
    standin.answers["GET /api/v1/events"] = lambda _: (200, {"schema": 1, "events": EVENTS})
    standin.answers["GET /api/v1/traffic"] = lambda _: (200, TRAFFIC)
    standin.answers["GET /api/v1/history/17"] = lambda _: (200, {"schema": 1, "steps": [{"step": "preflight"}]})
    return standin


@contextmanager
def watching(
    standin: StandIn, columns: int = 80, rows: int = 24, *words: str, **environment: str
) -> Iterator[Terminal]:
    argv = [sys.executable, "-m", "mountd", "--socket", standin.path, "status", "--watch", *words]
    wanted = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **environment}
    with Terminal(argv, wanted, columns, rows) as terminal:
        yield terminal


def test_it_shows_all_there_is(standin: StandIn) -> None:
    with watching(standin, 120, 40) as terminal:
        text = terminal.until_shown(
            "● ready, Degraded",
            "打开 30",
            "打开 29",
            "! bucket  compshare  Degraded",
            "bucket-unreachable: cannot list 存储桶: refused",
            "→ check the network",
            "  rclone  storage    Healthy   running, for ",
            "v22 at /srv/hub",
            "operation 17: switch cache_hub v22 → v23, by root",
            "✓ preflight  ▶ warm  verify",
            "40 %",
            "cache_hub v24 (data), 100 MB/s, about 45 s left",
            "storage  ↓ 28.6 MiB/s",
            "cache 5.0 GiB of 20.0 GiB",
            "q: quit",
        )
        assert text.index("打开 30") < text.index("打开 29"), "the newest event first"
        until(lambda: terminal.lines[-1] == "q: quit", 60, "the last line")
        assert ENTERS in terminal.raw


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (60, 15), (40, 10), (20, 5), (10, 2), (200, 3)])
def test_what_matters_most_fits_into_each_size(standin: StandIn, columns: int, rows: int) -> None:
    with watching(standin, columns, rows) as terminal:
        terminal.until_shown("● ready"[:columns])
        if rows >= 5:
            terminal.until_shown("compshare"[: columns - 12], "operation"[:columns])
        if rows >= 10:
            terminal.until_shown("storage  ↓", "Last events")
        terminal.press("q")
        assert terminal.ended() == 0


def test_the_steps_of_a_switch(standin: StandIn) -> None:
    """One without gates, which says so by what it has begun."""
    begun = ("preflight", "warm", "verify", "stop", "flip", "start", "ready", "watch")
    steps = [{"step": step} for step in begun]
    standin.answers["GET /api/v1/history/17"] = lambda _: (200, {"schema": 1, "steps": steps})
    standin.status = {**BUSY, "operations": [{**OPERATION, "step": "watch"}]}
    with watching(standin, 120, 40) as terminal:
        terminal.until_shown("✓ start  ✓ ready  ▶ watch  commit")
        terminal.resize(60, 30)
        terminal.until_shown("✓✓✓✓✓✓✓ ▶ watch  commit")
        standin.status = {**BUSY, "operations": [{**OPERATION, "step": "flip-back"}]}
        terminal.until_shown("undoing: ▶ flip-back  start-old")


def test_another_size_is_drawn_at_once(standin: StandIn) -> None:
    with watching(standin, 120, 40) as terminal:
        terminal.until_shown("打开 20")
        terminal.resize(60, 12)
        until(lambda: "打开 20" not in terminal.text and "● ready" in terminal.text, 60, "the small screen")
        terminal.resize(100, 40)
        terminal.until_shown("打开 20")


@pytest.mark.parametrize(
    ("leave", "code"), [("q", 0), ("\x04", 0), ("\x03", 130), ("TERM", 143), ("HUP", 129)], ids=repr
)
def test_it_leaves_the_terminal_as_it_was(standin: StandIn, leave: str, code: int) -> None:
    with watching(standin) as terminal:
        terminal.until_shown("● ready")
        assert terminal.modes() != terminal.modes_before, "keys come at once"
        if len(leave) == 1:
            terminal.press(leave)
        else:
            terminal.process.send_signal(signal.Signals[f"SIG{leave}"])
        assert terminal.ended() == code
        assert terminal.modes() == terminal.modes_before
        assert terminal.raw.count(ENTERS) == terminal.raw.count(LEAVES) == 1
        assert terminal.raw.rindex(SHOWS_CURSOR) < len(terminal.raw)
        assert b"Traceback" not in terminal.raw


def test_other_keys_change_nothing(standin: StandIn) -> None:
    with watching(standin) as terminal:
        terminal.until_shown("● ready")
        terminal.press("x\x1b[A\n")
        asked = len(standin.asked)
        until(lambda: len(standin.asked) > asked + 1, 60, "further questions")
        assert terminal.process.poll() is None
        terminal.press("Q")
        assert terminal.ended() == 0


def test_a_daemon_that_restarts_is_waited_for(standin: StandIn) -> None:
    with watching(standin) as terminal:
        terminal.until_shown("● ready", "v22 at /srv/hub")
        standin.stop()
        told = "no daemon answers, trying again", "cannot reach mountd at /", "the last answer is"
        terminal.until_shown(*told, "v22 at /srv/hub")  # what was known last stays
        standin.status = {**STATUS, "ready": False}
        standin.start()
        terminal.until_shown("● not ready")
        until(lambda: "trying again" not in terminal.text, 60, "the failure to go")


def test_a_daemon_that_is_still_to_start(standin: StandIn) -> None:
    standin.stop()
    with watching(standin) as terminal:
        terminal.until_shown("no daemon answers, trying again", "q: quit")
        standin.start()
        terminal.until_shown("● ready")


def test_a_daemon_that_does_not_answer_does_not_keep_it(standin: StandIn) -> None:
    asked, go = threading.Event(), threading.Event()

    def silent(_: object) -> tuple[int, object]:
        asked.set()
        go.wait(120)
        return 200, BUSY

    standin.answers["GET /api/v1/status"] = silent
    try:
        with watching(standin) as terminal:
            terminal.until_shown("waiting for the daemon")
            assert asked.wait(60)
            terminal.press("q")
            assert terminal.ended() == 0
    finally:
        go.set()


def test_a_daemon_without_traffic(standin: StandIn) -> None:
    answered = (404, {"schema": 1, "error": {"exit": 3, "text": "cannot answer GET /api/v1/traffic: not found"}})
    standin.answers["GET /api/v1/traffic"] = lambda _: answered
    with watching(standin) as terminal:
        terminal.until_shown("● ready", "打开 30")
        assert "not found" not in terminal.text
        assert "↓" not in terminal.text


def test_a_wrong_address_ends_it(standin: StandIn) -> None:
    with watching(standin, 80, 24, "-H", "http://user@host") as terminal:
        assert terminal.ended() == 2
        assert terminal.modes() == terminal.modes_before
        assert b"cannot use an address" in terminal.raw


def test_in_chinese_nothing_is_out_of_line(standin: StandIn) -> None:
    with watching(standin, 80, 24, LC_ALL="zh_CN.UTF-8") as terminal:
        terminal.until_shown("● 就绪，降级", "最近事件", "q：退出", "切换 cache_hub v22 → v23")
        lines = terminal.lines
        assert lines[-1] == "q：退出"
        assert sum("compshare" in line for line in lines) == 1


def test_without_colours(standin: StandIn) -> None:
    with watching(standin, NO_COLOR="1") as terminal:
        terminal.until_shown("● ready", "打开 30")
        assert not any(code in terminal.raw for code in (b"\x1b[31m", b"\x1b[32m", b"\x1b[33m", b"\x1b[1;32m"))


def test_a_terminal_that_cannot_move_its_cursor(standin: StandIn) -> None:
    with watching(standin, TERM="dumb") as terminal:
        until(lambda: terminal.raw.count(b"ready, Degraded") >= 2, 60, "two blocks")
        assert b"\x1b" not in terminal.raw
        terminal.press("\x03")
        assert terminal.ended() == 130


def test_what_comes_from_outside_moves_no_cursor(standin: StandIn) -> None:
    hostile = {**EVENTS[0], "text": "webui \x1b[2J\x1b[?1049l said\r\nall"}
    standin.answers["GET /api/v1/events"] = lambda _: (200, {"schema": 1, "events": [hostile]})
    with watching(standin) as terminal:
        terminal.until_shown("webui \\x1b[2J\\x1b[?1049l said")
        assert LEAVES not in terminal.raw


@pytest.mark.parametrize("way", ["ssh", "http"])
def test_a_daemon_on_another_machine(standin: StandIn, tmp_path: Path, way: str) -> None:
    far = FarMachine(tmp_path, Path(standin.path))
    with relayed(standin.path) as address:
        host = "gpu-1" if way == "ssh" else f"http://{address}"
        argv = [sys.executable, "-m", "mountd", "status", "--watch", "-H", host]
        with Terminal(argv, {**far.environment, "LC_ALL": "C.UTF-8"}, 80, 24) as terminal:
            terminal.until_shown("● ready", "v22 at /srv/hub", "打开 30")
            terminal.press("q")
            assert terminal.ended() == 0
            assert terminal.modes() == terminal.modes_before
    assert [words[0] for words in far.asked] == (["-t"] if way == "ssh" else [])


@contextmanager
def relayed(path: str) -> Iterator[str]:
    """The address of a TCP port on loopback that leads to the socket."""

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as there:
                there.connect(path)
                there.sendall(self.request.recv(65536))
                while data := there.recv(65536):
                    self.request.sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
