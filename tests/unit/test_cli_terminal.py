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
from mountd.cli import main, report, terminal, view, view_status
from mountd.cli.options import Options
from mountd.errors import ConfigError, MountdError, Problem
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


SAYS = """
import sys
from mountd.daemon import logs
from mountd.settings.schema import LogSettings
from tests.support.hostile import HOSTILE
import structlog
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
