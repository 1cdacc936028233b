"""Nothing from outside reaches a terminal raw, whatever the command line prints and however."""

from __future__ import annotations

import ast
import errno
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

import mountd.cli
from mountd.cli import labels, main, report, terminal, view, view_status
from mountd.cli.options import Options
from mountd.errors import Bug, Busy, ConfigError, MountdError, Problem
from tests.support.hostile import HOSTILE, raw_controls

OURS = re.compile("\x1b\\[[0-9;?]*[a-zA-Z]|\r")
"""What rich and the progress line write."""


PRINTING = re.compile(
    r"print|.*\b(secho|echo|print_exc|echo_via_pager|on\.print|\w+\.file\.write)|.*\bstd(out|err)\.(.*\.)?write"
)


def printing(path: Path) -> list[str]:
    """The calls there that write to a stream; what a script in a text does is not one of them."""
    calls = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
    return sorted(ast.unparse(call) for call in calls if PRINTING.fullmatch(ast.unparse(call.func)))


def test_only_one_place_prints() -> None:
    found = {path.name: printing(path) for path in Path(mountd.cli.__file__).parent.glob("*.py")}
    assert found.pop("terminal.py")
    for name in ("store_probe.py", "outbox_probe.py"):
        assert len(found.pop(name)) == 1  # a program of its own, whose output doctor reads
    # What it draws is made safe by Printable, and written as it was captured.
    written, *drawn = found.pop("view.py")
    assert written.startswith("on.file.write(")
    assert "captured.get()" in written
    assert drawn == ["on.print(Printable(drawing))"] * 2
    assert not any(found.values()), found


def test_say(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say(HOSTILE)
    terminal.say(HOSTILE, err=True, mark="fail", colour="red")
    out, err = capsys.readouterr()
    assert raw_controls(out) == raw_controls(err) == []
    assert "声音\n\tb\\x1b[2J" in out
    assert err.startswith("fail")


def test_json_is_what_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    Options().print_json({"text": HOSTILE})
    out = capsys.readouterr().out
    assert raw_controls(out) == []
    assert json.loads(out) == {"text": HOSTILE}
    assert "声音" in out


@pytest.mark.parametrize(
    "error",
    [
        MountdError(HOSTILE, hint=HOSTILE),
        ConfigError(HOSTILE, [Problem(HOSTILE, 1, HOSTILE)]),
        click.UsageError(HOSTILE),
        RuntimeError(HOSTILE),
    ],
    ids=lambda error: type(error).__name__,
)
def test_failures(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    report.report(error, json_too=True)
    out, err = capsys.readouterr()
    assert raw_controls(out) == raw_controls(err) == []
    assert json.loads(out)["error"]["text"]


def help_of_click() -> None:
    main.cli.main(["--help"], standalone_mode=False)


def drawn() -> None:
    view.show(Console(width=80), view.text("x"))


def drawn_live() -> None:
    with Live(console=Console(width=80, force_terminal=True), auto_refresh=False) as live:
        live.update(Text("x"), refresh=True)


def left() -> None:
    sys.stdout.write("x")
    terminal.flush()


@pytest.mark.parametrize(
    "write", [lambda: terminal.say("x"), lambda: terminal.say_json({}), help_of_click, drawn, drawn_live, left]
)
def test_an_output_that_cannot_be_written(
    write: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OSError, match="No space left") as failed:
            write()
        assert report.report(failed.value, json_too=True) == 1
    err = capsys.readouterr().err
    assert err.startswith("mountd: ")
    assert "no space left on device" in err
    assert "stdout" in err


@pytest.mark.parametrize(
    ("number", "code", "text"),
    [
        (errno.ENOSPC, 1, "no space left on device"),
        (errno.EBADF, 20, "OSError: [Errno 9] Bad file descriptor"),
        (errno.EIO, 20, "OSError: [Errno 5] Input/output error"),
    ],
)
def test_the_same_error_elsewhere_is_not_one_of_the_output(
    number: int, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OSError, match="Errno") as failed:
        raise OSError(number, os.strerror(number))
    assert report.report(failed.value, json_too=True) == code
    out, err = capsys.readouterr()
    assert text in json.loads(out)["error"]["text"]
    assert "stdout" not in err
    assert ("Traceback" in err) is (code == 20)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_rich_draws(is_terminal: bool) -> None:
    file = io.StringIO()
    on = Console(file=file, force_terminal=is_terminal, width=200, highlight=False, markup=False, emoji=False)
    table = Table()
    table.add_column(Text(HOSTILE))
    table.add_row(Text(HOSTILE))
    view.show(on, table)
    view.show(on, view.text(HOSTILE))
    view.show(on, view.table((HOSTILE,), [[HOSTILE]]))
    reason = {"code": HOSTILE, "text": HOSTILE, "layer": "app", "object": HOSTILE, "hint": HOSTILE}
    view.show(
        on, view_status.render({"reasons": [reason], "health": HOSTILE, "version": HOSTILE, "apps": {HOSTILE: {}}})
    )
    if is_terminal:
        with Live(console=on, auto_refresh=False) as live:
            live.update(view.Printable(Text(HOSTILE)), refresh=True)
    assert raw_controls(OURS.sub("", file.getvalue())) == []


def test_a_line_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.write_over(HOSTILE)
    err = capsys.readouterr().err
    assert err.startswith(terminal.ERASED)
    assert raw_controls(err.removeprefix(terminal.ERASED)) == []
    assert "\n" not in err


class Terminal(io.StringIO):
    """One whose width nobody knows."""

    def isatty(self) -> bool:
        return True


def test_progress_stays_on_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for length, kept in ((78, "x" * 78), (79, "x" * 79), (80, "x" * 78 + "…"), (500, "x" * 78 + "…")):
        shown = Terminal()
        monkeypatch.setattr(sys, "stderr", shown)
        terminal.write_over("x" * length)
        assert shown.getvalue() == terminal.ERASED + kept, "the last column would begin the next line"


@pytest.mark.parametrize(("off", "coloured"), [(None, True), ("", True), ("1", False)])
def test_colours_are_for_terminals_and_can_be_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], off: str | None, coloured: bool
) -> None:
    if off is None:
        monkeypatch.delenv("NO_COLOR", raising=False)
    else:
        monkeypatch.setenv("NO_COLOR", off)
    terminal.say(": text", mark="fail", colour="red")
    assert capsys.readouterr().out == "fail: text\n", "no terminal"
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    terminal.say(": text", mark="fail", colour="red")
    assert shown.getvalue() == ("\x1b[31mfail\x1b[0m: text\n" if coloured else "fail: text\n")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (1024**4, "1.0 TiB"),
        (2048 * 1024**4, "2048.0 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert terminal.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 m 0 s"),
        (303, "5 m 3 s"),
        (3600, "1 h 0 m"),
        (7800, "2 h 10 m"),
        (86399, "23 h 59 m"),
        (86400 * 3 + 4 * 3600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert labels.duration(seconds) == text


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["status", "-o", "json"], True),
        (["-o", "json", "status"], True),
        (["status", "-ojson"], True),
        (["status", "--output=json"], True),
        (["status", "--output", "json", "--nope"], True),
        (["status"], False),
        (["status", "-o", "table", "json"], False),
        (["status", "--", "-o", "json"], False),
        (["status", "-ojson", "--", "x"], True),
        (["status", "-o"], False),
    ],
    ids=str,
)
def test_whether_json_is_wanted_is_known_also_of_wrong_words(words: list[str], wanted: bool) -> None:
    assert report.wants_json(words) is wanted


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (BrokenPipeError(errno.EPIPE, "x"), 141),
        (Busy("cannot x: y", hint="wait", holder="tina"), 6),
        (Bug("cannot x: y"), 20),
        (click.UsageError("wrong"), 2),
        (OSError(errno.EMFILE, "too many"), 1),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, BaseException) else "",
)
def test_how_a_command_ends(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.report(error, json_too=True) == code
    out, err = capsys.readouterr()
    if code > 100:
        assert (out, err) == ("", ""), "nobody is there to read it"
        return
    document = json.loads(out)["error"]
    assert (document["exit"], document["holder"]) == (code, "tina" if code == 6 else "")
    assert document["text"] in err
    assert ("report it" in err) is (code == 20)


SAYS = """
import sys
from mountd.daemon import logs
from mountd.settings.schema import LogSettings
from tests.support.hostile import HOSTILE
import structlog
logs.FLUSH_S = 60.0
writer = logs.configure(LogSettings(format=sys.argv[1]))
log = structlog.get_logger()
log.info(HOSTILE, text=HOSTILE, keys={"x": HOSTILE}, many=[HOSTILE])
log.info("long", text="x" * 5_000_000)
try:
    raise RuntimeError(HOSTILE)
except RuntimeError:
    log.exception("failed")
writer.close()
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_the_log(form: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAYS, form],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert raw_controls(OURS.sub("", done.stderr)) == []
    assert "声音" in done.stderr
    assert "RuntimeError" in done.stderr
    assert len(done.stderr) < 100_000


@pytest.mark.parametrize(
    ("environ", "on_terminal", "elsewhere"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"CLICOLOR": "0"}, False, False),
        ({"CLICOLOR_FORCE": "1"}, True, True),
        ({"CLICOLOR_FORCE": "0"}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": ""}, True, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "dumb", "CLICOLOR_FORCE": "1"}, True, True),
    ],
    ids=str,
)
def test_when_colours_are_shown(
    environ: dict[str, str], on_terminal: bool, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for stream, wanted in ((Terminal(), on_terminal), (io.StringIO(), elsewhere)):
        assert terminal.is_coloured(stream) is wanted
        monkeypatch.setattr(sys, "stdout", stream)
        view.show(view.console(), view.word("Degraded"))
        terminal.say(": x", mark="fail", colour="red")
        assert ("\x1b[33m" in stream.getvalue()) is wanted
        assert ("\x1b[31m" in stream.getvalue()) is wanted
        assert ("\x1b" in stream.getvalue()) is wanted


def test_what_is_coloured_in_a_pipe_is_not_broken_into_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    on = view.console()
    view.show(on, view.table(("NAME", "HEALTH"), [("x" * 300, view.word("Healthy"))], width=on.width))
    assert len(stream.getvalue().splitlines()) == 2
    assert "\x1b[32m" in stream.getvalue()
