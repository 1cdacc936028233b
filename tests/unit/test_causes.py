"""The table of reasons: each code that the package can produce stands in it, with a real command and a real heading."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

import mountd
from mountd.cli.main import COMMANDS, cli
from mountd.status.causes import CAUSES
from tests.support.reason_codes import produced

TOP = Path(mountd.__file__).parents[1]
NOT_IN_A_STATUS = {"digest-differs", "gate-failed", "gate-unanswered", "outbox-mismatch"}
"""Of operations, whose cause their record has as text, and of a result, which is uploaded again."""
LAYERS = {"bucket", "rclone", "mount", "link", "app", "outbox", "config", "journal", "machine", "mountd"}


def test_each_code_that_the_package_can_produce_stands_in_the_table() -> None:
    codes, unknown = produced()
    assert unknown == frozenset(), "teach tests/support/reason_codes.py what these are"
    assert codes - CAUSES.keys() == NOT_IN_A_STATUS


@pytest.mark.parametrize("code", CAUSES)
def test_a_row_of_the_table(code: str) -> None:
    cause = CAUSES[code]
    assert cause.layer in LAYERS
    assert cause.text.endswith((".", ":"))
    assert cause.text.format(object="x")
    page, _, heading = cause.docs.partition("#")
    assert not heading or heading in _anchors(TOP / page), cause.docs
    _assert_is_a_command(cause.command.format(object="x"))


@pytest.mark.parametrize("code", CAUSES)
def test_a_command_takes_what_the_reason_is_of(code: str) -> None:
    """A reason of the bucket has the name of a remote, and what runs on a mount cannot be cancelled by a model."""
    cause = CAUSES[code]
    name, *words = cause.command.split()[1:]
    if name in ("start", "stop", "signal"):
        assert cause.layer == "app"
    if name in ("logs", "restart") and "{object}" in words:
        assert cause.layer in ("rclone", "mount", "app")
    if "--model" in words:
        assert cause.layer == "link"


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _assert_is_a_command(line: str) -> None:
    program, name, *words = line.split()
    assert program == "mountd"
    assert name in COMMANDS
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    if isinstance(command, click.Group):
        command = command.get_command(click.Context(command), words.pop(0))
        assert command is not None
    parser = command.make_parser(click.Context(command))
    _, rest, _ = parser.parse_args(list(words))
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    assert len(rest) == 0, rest
    assert sum(each.required for each in arguments) <= len([word for word in words if not word.startswith("-")])
