"""What libraries report is a line of mountd's own log, and never many of a kind."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from mountd.daemon.foreign_logs import KINDS, LINES, WINDOW_S, Foreign, Limiter

EVERYTHING = """
import asyncio, logging, sys, threading, warnings
from aiohttp.http_exceptions import BadHttpMessage
from mountd.daemon import logs
from mountd.settings.schema import LogSettings
logs.FLUSH_S = 60.0
writer = logs.configure(LogSettings(format="json"))
for number in range(1000):
    try:
        raise BadHttpMessage("garbage \\x1b[31m " + "x" * 5000)
    except BadHttpMessage as error:
        logging.getLogger("aiohttp.server").exception("Error handling request from %s", number, exc_info=error)
logging.getLogger("watchdog").warning("%s and %s", "one")  # its words do not fit
logging.getLogger("asyncio").error("lone \\ud800 surrogate")
logging.getLogger("quiet").info("not reported")
warnings.warn("old-fashioned", DeprecationWarning)
warnings.warn("take care", UserWarning)
class Broken:
    def __del__(self):
        raise ValueError("in a finalizer")
Broken()
thread = threading.Thread(target=lambda: 1 // 0)
thread.start()
thread.join()
async def main():
    asyncio.get_running_loop().call_soon(lambda: [].pop())
    asyncio.create_task(asyncio.sleep(0)).add_done_callback(lambda _: {}["gone"])
    async def fail():
        raise RuntimeError("nobody asks")
    asyncio.create_task(fail())
    await asyncio.sleep(0.01)
asyncio.run(main())
writer.close()
"""


def test_everything_is_json_and_little_of_it() -> None:
    done = subprocess.run([sys.executable, "-c", EVERYTHING], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(line["event"] == "a library reports" for line in lines)
    garbage = [line for line in lines if line["source"] == "aiohttp.server"]
    assert len(garbage) == LINES
    assert all("exception" not in line and len(line["cause"]) < 600 for line in garbage), "no fault of ours"
    reported = [line["text"] + line.get("cause", "") for line in lines]
    for part in ("%s and %s", "surrogate", "take care", "in a finalizer", "ZeroDivisionError", "IndexError"):
        assert any(part in text for text in reported), part
    for part in ("KeyError", "nobody asks"):
        assert any(part in text for text in reported), part
    assert not any("not reported" in text for text in reported)
    assert "Traceback" in next(line["exception"] for line in lines if "IndexError" in line.get("cause", ""))
    assert len(done.stderr) < 30_000


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def test_an_error_without_a_text_is_reported_too() -> None:
    foreign, error = Foreign(), Unspeakable()
    with capture_logs() as logs:
        foreign.report("python", "a thread has failed", error)
        foreign.emit(logging.LogRecord("library", logging.ERROR, "", 0, error, ("word",), None))
        foreign.emit(logging.LogRecord("library", logging.ERROR, "", 0, "it failed: %s", (error,), None))
    without = "a Unspeakable whose text cannot be had: ValueError"
    assert logs[0]["cause"] == f"Unspeakable: {without}"
    assert "Unspeakable" in logs[0]["exception"]
    assert [each["text"] for each in logs[1:]] == [without, "it failed: %s"]


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, WINDOW_S)), max_size=200))
def test_of_each_kind_a_few_in_a_window_and_none_is_forgotten(messages: list[tuple[int, float]]) -> None:
    now = 0.0
    limiter = Limiter(lambda: now)
    admitted: dict[int, list[float]] = {}
    left_out: dict[int, int] = {}
    for kind, pause_s in messages:
        now += pause_s
        before = limiter.admit(str(kind))
        if before is None:
            left_out[kind] = left_out.get(kind, 0) + 1
            continue
        assert before == left_out.pop(kind, 0)
        times = admitted.setdefault(kind, [])
        times.append(now)
        assert len([each for each in times if each > now - WINDOW_S]) <= 2 * LINES


def test_kinds_are_bounded() -> None:
    limiter = Limiter(lambda: 0.0)
    for number in range(KINDS * 3):
        assert limiter.admit(str(number)) == 0
    assert len(limiter._windows) == KINDS


def test_how_bad_it_is_and_how_many_more_there_were() -> None:
    foreign, now = Foreign(), 0.0
    foreign._limiter = Limiter(lambda: now)
    with capture_logs() as logs:
        for number in range(LINES + 3):
            foreign.emit(logging.LogRecord("library", logging.WARNING, "", 0, "full: %d", (number,), None))
        now += WINDOW_S
        foreign.emit(logging.LogRecord("library", logging.ERROR, "", 0, "full: %d", (99,), None))
    assert [each["log_level"] for each in logs] == ["warning"] * LINES + ["error"]
    assert [each.get("left_out") for each in logs] == [None] * LINES + [3]
    assert (logs[-1]["source"], logs[-1]["text"], "cause" in logs[-1]) == ("library", "full: 99", False)
