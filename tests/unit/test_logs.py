"""mountd's own log: never in the daemon's way, says what it had to drop, and shows no control characters."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading

import pytest
import structlog

from mountd.daemon import logs
from mountd.daemon.logs import LONGEST_VALUE, Writer
from tests.support.wait import until

SOON_S = 60.0


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that writes may get no processor for longer than a second."""
    monkeypatch.setattr(logs, "FLUSH_S", SOON_S)


class StalledReader(io.StringIO):
    """Takes nothing until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.released = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.began.set()
        self.released.wait(SOON_S)
        return super().write(text)


class FailingReader(io.StringIO):
    """Fails twice, then takes what comes."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.failures = [failure] * 2

    def write(self, text: str) -> int:
        if self.failures:
            raise self.failures.pop()
        return super().write(text)


def test_what_a_reader_that_stalls_has_missed_is_counted_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "QUEUE_LINES", 3)
    stream = StalledReader()
    writer = Writer(stream)
    writer.render_dropped = lambda lines: f"{lines} lost\n"
    assert writer.write("0\n") == 2
    assert stream.began.wait(SOON_S)
    for number in range(1, 6):
        writer.write(f"{number}\n")
    stream.released.set()
    until(lambda: stream.getvalue().count("\n") == 5, SOON_S, "all that was queued", every_s=0.001)
    writer.write("6\n")
    writer.close()
    assert stream.getvalue() == "0\n2 lost\n1\n2\n3\n6\n"


def test_what_is_queued_is_written_at_the_end_but_no_reader_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    writer = Writer(stream)
    for number in range(100):
        writer.write(f"{number}\n")
    writer.close()
    assert stream.getvalue() == "".join(f"{number}\n" for number in range(100))
    monkeypatch.setattr(logs, "FLUSH_S", 0.01)
    stalled = StalledReader()
    writer = Writer(stalled)
    writer.write("x\n")
    assert stalled.began.wait(SOON_S)
    writer.close()
    assert stalled.getvalue() == "", "it still takes nothing"
    stalled.released.set()


@pytest.mark.parametrize("failure", [BrokenPipeError(32, "broken pipe"), ValueError("I/O operation on closed file")])
def test_a_reader_that_fails_costs_its_lines_alone(failure: Exception) -> None:
    stream = FailingReader(failure)
    writer = Writer(stream)
    for text in ("a\n", "b\n", "c\n"):
        writer.write(text)
    writer.close()
    assert stream.getvalue() == "c\n"


@pytest.mark.parametrize(
    ("shown", "value", "cleaned"),
    [
        (True, "a\x1b[2J\n\tb", "a\\x1b[2J\n\tb"),
        (False, "a\x1b[2J", "a\x1b[2J"),
        (False, "x" * LONGEST_VALUE, "x" * LONGEST_VALUE),
        (False, "x" * (LONGEST_VALUE + 1), "x" * (LONGEST_VALUE - 1) + "…"),
        (True, {"a": ["\x07", 5, None]}, {"a": ["\\x07", 5, None]}),
        (True, ("\x07",), ["\\x07"]),
        (True, 1.5, 1.5),
    ],
    ids=["shown", "as it is", "long", "too long", "nested", "tuple", "number"],
)
def test_a_value_from_outside_is_bounded_and_where_it_is_shown_without_control_characters(
    shown: bool, value: object, cleaned: object
) -> None:
    assert logs._clean(None, "info", {"event": value}, shown=shown) == {"event": cleaned}


@pytest.mark.parametrize(
    ("level", "kept"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["info", "warning", "error", "critical"]),
        ("warning", ["warning", "error", "critical"]),
        ("error", ["error", "critical"]),
    ],
)
def test_the_level_counts_from_the_next_line_on(monkeypatch: pytest.MonkeyPatch, level: str, kept: list[str]) -> None:
    monkeypatch.setattr(logs, "_level", logging.INFO)  # which is given back
    logs.set_level(level)
    found = []
    for method in ("debug", "info", "warning", "error", "critical"):
        try:
            found.append(logs._drop_below_level(None, method, {"event": method})["event"])
        except structlog.DropEvent:
            continue
    assert found == kept


PIPED = """
import structlog
from mountd.daemon import logs
from mountd.settings.schema import LogSettings
logs.FLUSH_S = 60.0
writer = logs.configure(LogSettings(level="warning"))
structlog.get_logger().info("nobody needs to know")
structlog.get_logger().warning("it is full", mount="m")
writer.write(writer.render_dropped(3))
writer.close()
"""


def test_what_is_no_terminal_and_no_journal_gets_json_also_of_what_was_dropped() -> None:
    done = subprocess.run([sys.executable, "-c", PIPED], capture_output=True, text=True, timeout=60, check=True)
    full, dropped = map(json.loads, done.stderr.splitlines())
    assert (full["event"], full["level"], full["mount"], full["timestamp"][-1]) == ("it is full", "warning", "m", "Z")
    assert (dropped["lines"], dropped["level"]) == (3, "warning")
