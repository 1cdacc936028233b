"""Each command of mountd with its options, examples and exit codes, from what click knows of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import click

from mountd.cli.main import EXIT_CODES, cli
from pages.blocks import table

COMMON = ("config", "socket", "host", "output")
"""Of many commands: described once, named in the last line of each command that takes them."""
_OPTION = re.compile(r"(?<![\w`-])(--?[a-z](?:[\w.-]*\w)?|\$[A-Z_]+)")


def contexts() -> list[click.Context]:
    """Each command that does something, in the order of `mountd --help`."""
    return list(_commands(click.Context(cli, info_name="mountd")))


def render() -> str:
    root = click.Context(cli, info_name="mountd")
    common = [each for each in cli.params if each.name in COMMON]
    parts = [
        "## Options of many commands\n\n" + table(("option", "meaning"), [*_rows(root, common)]),
        *map(_command, contexts()),
    ]
    return "\n\n".join(parts)


def render_exit_codes() -> str:
    return table(("exit code", "meaning"), [(str(code), text) for code, text in EXIT_CODES.items()])


def _commands(parent: click.Context) -> Iterator[click.Context]:
    assert isinstance(parent.command, click.Group)
    for name in parent.command.list_commands(parent):
        command = parent.command.get_command(parent, name)
        if command is None or command.hidden:
            continue
        context = click.Context(command, info_name=name, parent=parent)
        if isinstance(command, click.Group):
            yield from _commands(context)
        else:
            yield context


def _command(context: click.Context) -> str:
    command = context.command
    words = [each for each in command.collect_usage_pieces(context) if each != "[OPTIONS]"]
    own = [each for each in command.params if each.name not in COMMON]
    rows = list(_rows(context, own))
    usage = " ".join([context.command_path, *words, *(["[OPTIONS]"] if rows else [])])
    parts = [f"## {context.command_path}", f"```text\n{usage}\n```"]
    parts += _help(command.help or "")
    if rows:
        parts.append(table(("option", "meaning"), rows))
    shared = [f"`{max(each.opts, key=len)}`" for each in command.params if each.name in COMMON]
    if shared:
        parts.append(f"Also takes {', '.join(shared)}.")
    return "\n\n".join(parts)


def _rows(context: click.Context, parameters: list[click.Parameter]) -> Iterator[tuple[str, str]]:
    for parameter in parameters:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            yield f"`{record[0]}`", escaped(_meaning(" ".join(record[1].split())))


def _meaning(text: str) -> str:
    """click's `[default: 5]` and `[1<=x<=9]` at the end as words."""
    text = re.sub(r" \[(default: [^];]*); (x>=\d+|\d+<=x<=\d+)\]$", r" [\1] [\2]", text)
    text = re.sub(r" \[(default: [^]]*)\]", lambda found: f" {found[1].capitalize()}.", text)
    return re.sub(r" \[(\d+)<=x<=(\d+)\]$", r" From \1 to \2.", re.sub(r" \[x>=(\d+)\]$", r" At least \1.", text))


def _help(text: str) -> Iterator[str]:
    """Its paragraphs; one that begins with \\b keeps its lines: examples, or a list."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph.lstrip(" ").startswith("\b"):
            lines = [line.strip() for line in paragraph.splitlines()[1:]]
            kind = "sh" if all(line.startswith("mountd ") for line in lines) else "text"
            yield f"```{kind}\n" + "\n".join(lines) + "\n```"
        else:
            yield escaped(" ".join(paragraph.split()))


@cache
def _own_options() -> frozenset[str]:
    commands = (cli, *(each.command for each in contexts()))
    return frozenset(
        name for command in commands for each in command.params for name in (*each.opts, *each.secondary_opts)
    )


def escaped(text: str) -> str:
    """Options and placeholders as they are: Markdown takes neither `--` nor `<` for its own.

    What is in backticks stays. Raises ValueError for an option outside of them that no command of mountd has: it is
    part of another program's command, which is marked as a whole.
    """

    def mark(found: re.Match[str]) -> str:
        if found[1].startswith("-") and found[1] not in _own_options():
            raise ValueError(f"mountd has no option {found[1]}: put the whole command in backticks in {text!r}")
        return f"`{found[1]}`"

    parts = text.split("`")
    parts[::2] = [_OPTION.sub(mark, part).replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)
