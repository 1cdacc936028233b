"""Completion in real shells, on a terminal: what stands on the line after a Tab, from a stand-in daemon."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import IN_CI
from tests.support.standin import STATUS, StandIn
from tests.support.terminal import Terminal
from tests.support.wait import until

SCRIPTS = Path(__file__).parents[2] / "mountd/share/completion"
STARTS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
SOURCES = {
    "bash": "source {script}",
    "zsh": "autoload -U compinit && compinit -u -D && source {script}",
    "fish": "source {script}",
}


@pytest.fixture
def standin(standin: StandIn) -> StandIn:
    versions = [{"version": version} for version in ("v2026-long-23", "w1")]
    standin.answers["GET /api/v1/versions"] = lambda _: (200, {"schema": 1, "versions": versions})
    standin.status = {**STATUS, "operations": [{"id": 1234}], "scheduled": []}
    return standin


@contextmanager
def shell(kind: str, standin: StandIn, home: Path) -> Iterator[Terminal]:
    if not shutil.which(kind):
        (pytest.fail if IN_CI else pytest.skip)(f"no {kind}: ./dev test installs it")
    environment = {
        "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}",
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "PS1": "$ ",
        "MOUNTD_SOCKET": standin.path,
    }
    with Terminal(STARTS[kind], environment, 100, 30) as terminal:
        terminal.press(SOURCES[kind].format(script=SCRIPTS / f"mountd.{kind}") + "; echo rea''dy-now\r")
        terminal.until_shown("ready-now")
        yield terminal


def completes(terminal: Terminal, typed: str, line: str) -> None:
    """`typed` becomes `line` by a Tab; the line is given up then."""
    terminal.press(f"{typed}\t")
    terminal.until_shown(line)
    terminal.press("\x15")  # Ctrl-U
    until(lambda: line not in terminal.text, 60, "an empty line")


@pytest.mark.parametrize("kind", STARTS)
def test_a_tab(kind: str, standin: StandIn, tmp_path: Path) -> None:
    with shell(kind, standin, tmp_path) as terminal:
        completes(terminal, "mountd versi", "mountd versions")
        completes(terminal, "mountd switch v2", "mountd switch v2026-long-23")
        completes(terminal, "mountd switch --mod", "mountd switch --model")
        completes(terminal, "mountd wait --for ver", "mountd wait --for version=")
        completes(terminal, "mountd wait --for version=v20", "mountd wait --for version=v2026-long-23")
        completes(terminal, "mountd wait --for operation=1", "mountd wait --for operation=1234")
        completes(terminal, "mountd switch --model=cache", "mountd switch --model=cache_hub")
        completes(terminal, "mountd restart stor", "mountd restart storage")
        completes(terminal, "mountd drill off", "mountd drill offline")
        assert "Traceback" not in terminal.text


@pytest.mark.parametrize("kind", STARTS)
def test_a_tab_without_a_daemon_says_nothing(kind: str, standin: StandIn, tmp_path: Path) -> None:
    standin.stop()
    with shell(kind, standin, tmp_path) as terminal:
        terminal.press("mountd restart st\t")
        completes(terminal, "\x15mountd versi", "mountd versions")
        for word in ("cannot", "Traceback", "Error"):
            assert word not in terminal.text
