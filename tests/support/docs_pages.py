"""The pages for people, as tests see them: headlines, links, blocks of code, and command lines of mountd."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from mountd.cli.main import cli
from mountd.cli.options import Options

TOP = Path(__file__).parents[2]
DOCS = sorted((TOP / "docs").glob("*.md"))
PAGES = [*DOCS, *(TOP / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
_FENCE = re.compile(r"^( *)```([a-z]*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_PATHS = dict.fromkeys(("DIR", "FILE", "PATH"), "/srv/x")
_VALUES = {"COMMAND": "status", "L": "data", "ID": "7", "N": "7", "TIME": "5m", **_PATHS}
"""For placeholders whose type is checked."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code between fences; `text` as far to the left as its fence."""

    language: str
    text: str


def blocks(text: str) -> list[Block]:
    found = []
    for match in _FENCE.finditer(text):
        lines = [line.removeprefix(match[1]) for line in match[3].splitlines()]
        found.append(Block(match[2], "\n".join(lines) + "\n"))
    return found


def indented(text: str) -> list[str]:
    """The lines of blocks that are code because they are indented."""
    return [line[4:] for line in prose(text).splitlines() if line.startswith("    ")]


def prose(text: str) -> str:
    """Without the fenced blocks."""
    return _FENCE.sub("", text)


def inline(text: str) -> list[str]:
    """What stands between backticks; in a table without the backslash before a bar."""
    return [found.replace("\\|", "|") for found in _INLINE.findall(prose(text))]


def headlines(text: str) -> list[tuple[int, str]]:
    """Depth and words of each."""
    return [(len(marks), words) for marks, words in re.findall(r"^(#+) (.+?) *$", prose(text), re.MULTILINE)]


def anchors(text: str) -> set[str]:
    """Those of the headlines, as GitHub and the site make them."""
    found: set[str] = set()
    for _, words in headlines(text):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", words).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


def links(text: str) -> list[str]:
    """The targets of links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(text)))


def command_lines(text: str) -> Iterator[str]:
    """Every line of a block of shell that holds a command of mountd, with its continuation lines."""
    for block in blocks(text):
        if block.language in ("sh", ""):
            yield from _with_mountd(block.text.replace("\\\n", " ").splitlines())
    yield from _with_mountd(indented(text))


def _with_mountd(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        if re.search(r"(^|[\s/(])mountd( |$)", line) and commands(line):
            yield line


def commands(line: str) -> list[list[str]]:
    """The words behind each `mountd` that the line runs."""
    lexer = shlex.shlex(line.replace("\u2026", "x"), posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    try:
        words = list(lexer)
    except ValueError:
        return []
    found: list[list[str]] = []
    current: list[str] | None = None
    begins = True
    for word in words:
        if set(word) <= set("|&;()"):
            current, begins = None, True
        elif set(word) <= set("<>"):
            current = None
        elif current is not None:
            current.append(word)
        elif (begins or words[words.index(word) - 1] == "--") and word.rpartition("/")[2] == "mountd":
            current, begins = [], False
            found.append(current)
        else:
            begins = word in ("sudo", "exec", "--") or "=" in word
    return found


def parse(words: Sequence[str]) -> None:
    """As click does, and runs nothing. Raises click.UsageError for a command, an option or an argument that is none."""
    filled = [_VALUES.get(word, word) for word in words]
    context = cli.make_context("mountd", filled, obj=Options(), resilient_parsing=False)
    command: click.Command = cli
    rest = [*context._protected_args, *context.args]
    while isinstance(command, click.Group):
        if not rest:
            return
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        assert name is not None
        command = found
        context = command.make_context(name, rest, parent=context)
        rest = [*context._protected_args, *context.args]


def ways(text: str) -> Iterator[list[str]]:
    """Of a command in running text: with its optional parts, and with the first of its alternatives; without what
    reads its output."""
    text = re.sub(r"\[([^]]*)\]", r" \1 ", text.partition(" | ")[0]).replace("\u2026", "x")
    words = [word.partition("|")[0] for word in text.split() if word not in (",", "&")]
    yield words[1:]
