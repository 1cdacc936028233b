"""Every command line of mountd on a page is one that click takes: command, options and arguments exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from tests.support.docs_pages import PAGES, command_lines, commands, inline, parse, ways

SHOWN = [page for page in PAGES if page.name != "CHANGELOG.md"]
"""The changelog names what is gone as well."""
NO_COMMANDS = ("mountd stops", "mountd needs", "mountd has started")
"""What mountd logs or reports."""


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_each_command_line_can_be_typed(page: Path) -> None:
    wrong = [said for line in command_lines(page.read_text()) for said in map(why_not, commands(line)) if said]
    assert wrong == []


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_each_command_in_running_text_can_be_typed(page: Path) -> None:
    named = [text for text in inline(page.read_text()) if re.match(r"mountd [a-z-]", text) and text not in NO_COMMANDS]
    wrong = [said for text in named for said in map(why_not, ways(text)) if said]
    assert wrong == []


def why_not(words: list[str]) -> str:
    try:
        parse(words)
    except click.exceptions.Exit:
        pass  # --help, --version
    except click.MissingParameter as error:
        if words and not words[1:]:
            return ""  # only named
        return f"{' '.join(words)}: {error.format_message()}"
    except click.UsageError as error:
        return f"{' '.join(words)}: {error.format_message()}"
    return ""


@pytest.mark.parametrize(
    "line",
    [
        "mountd swich v22",
        "mountd switch v22 --dryrun",
        "mountd status now",
        "mountd drill fire",
    ],
)
def test_a_wrong_one_is_seen(line: str) -> None:
    (words,) = commands(line)
    assert why_not(words)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mountd status   # comment", [["status"]]),
        ("kubectl -n x exec y -c mountd -- mountd status -o json", [["status", "-o", "json"]]),
        ("/opt/mountd/bin/mountd install && mountd doctor", [["install"], ["doctor"]]),
        ("printf x | sudo mountd init --keys - >out", [["init", "--keys", "-"]]),
        ("MOUNTD_CONFIG=x mountd config check", [["config", "check"]]),
        ("systemctl restart mountd", []),
        ('mountd switch v22 --reason "better prosody"', [["switch", "v22", "--reason", "better prosody"]]),
    ],
)
def test_commands_are_found_in_a_line(line: str, expected: list[list[str]]) -> None:
    assert commands(line) == expected
