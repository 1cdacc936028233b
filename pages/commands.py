"""Each command of mountd with its options, examples and exit codes, from what click knows of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from mountd.cli.main import EXIT_CODES, cli
from pages.blocks import table

COMMON = ("config", "socket", "host", "output")
"""Of many commands: described once, named in the last line of each command that takes them."""


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
            yield f"`{record[0]}`", _escaped(_meaning(" ".join(record[1].split())))


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
            yield _escaped(" ".join(paragraph.split()))


def _escaped(text: str) -> str:
    """Options and placeholders as they are: Markdown takes neither `--` nor `<` for its own."""
    parts = text.split("`")
    option = re.compile(r"(?<![\w`-])(--?[a-z](?:[\w.-]*\w)?|\$[A-Z_]+)")
    parts[::2] = [option.sub(r"`\1`", part).replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)
