"""What a wheel carries is what the code says: the man page, completion; and each file has its place on a machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import click
import pytest

from mountd.cli.main import cli, main
from mountd.cli.manual import page
from mountd.install.carried import FILES, SHARE

ROOT = Path(__file__).parents[2]
PAGE = SHARE / "man/mountd.8"


def test_the_man_page_is_that_of_the_commands() -> None:
    """Else: ./dev mountd manual > mountd/share/man/mountd.8"""
    assert PAGE.read_text() == page(cli)


def test_the_man_page_has_every_command_with_its_options() -> None:
    text = PAGE.read_text()
    for name in cli.list_commands(click.Context(cli)):
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert f".SS mountd {name}" in text
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert option.replace("-", "\\-") in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff here")
def test_groff_understands_every_line() -> None:
    words = ["groff", "-K", "utf8", "-man", "-Tutf8", "-ww", str(PAGE)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert "MOUNTD(8)" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_that_of_the_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Else: ./dev mountd completion SHELL > mountd/share/completion/mountd.SHELL"""
    assert main(["completion", shell]) == 0
    assert (SHARE / f"completion/mountd.{shell}").read_text() == capsys.readouterr().out


def test_each_file_has_its_place_and_the_examples_come_along() -> None:
    assert all((SHARE / each.source).is_file() for each in FILES)
    units = {f"systemd/{path.name}" for path in (ROOT / "systemd").iterdir()}
    assert units <= {each.source for each in FILES}
    assert {path.name for path in (SHARE / "config").iterdir()} == {path.name for path in (ROOT / "config").iterdir()}
