"""The man page of mountd, made from the help of its commands: `mountd manual` prints it.

`mountd/share/man/mountd.8` is that output; a test keeps the two equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from mountd import __version__
from mountd.cli.terminal import say

NAME = "mountd \\- makes an object-storage bucket a dependable disk for a TTS service"
FILES = {
    "/etc/mountd/mountd.yaml": "The configuration; another one with -c or $MOUNTD_CONFIG.",
    "/etc/mountd/NAME.yaml": "That of the unit mountd@NAME.",
    "/etc/mountd/secrets/": "Keys, readable by root alone, for {file: …} or LoadCredential=.",
    "/etc/default/mountd": "Variables of the unit's environment.",
    "/run/mountd/mountd.sock": "The control socket, for root, mountd's user and control.group.",
    "/var/lib/mountd/": "The journal, incidents, pinned versions.",
    "/var/cache/mountd/": "What rclone keeps of the bucket, a directory for each mount.",
}
ENVIRONMENT = {
    "MOUNTD_CONFIG": "The configuration file, where -c is not given.",
    "MOUNTD_SOCKET": "The control socket, where --socket is not given.",
    "STATE_DIRECTORY, CACHE_DIRECTORY, RUNTIME_DIRECTORY, LOGS_DIRECTORY": "Set by systemd: where mountd keeps its"
    " state, cache and sockets, and, with LogsDirectory=, the evidence of incidents.",
    "CREDENTIALS_DIRECTORY": "Set by systemd: where {credential: NAME} is read.",
}
SIGNALS = {"SIGTERM, SIGINT": "Stop in order.", "SIGHUP": "Load the configuration again."}
EXIT_LINE = re.compile(r" *(\d+)  +(.*)")


@click.command()
def manual() -> None:
    """Print the man page.

    `mountd install` puts it in place; without that: `mountd manual | man -l -`.

    \b
    Examples:
      mountd manual | man -l -
    """
    from mountd.cli.help import leave_click
    from mountd.cli.main import cli

    leave_click()
    say(page(cli), wrap=False, nl=False)


def page(root: click.Group) -> str:
    """roff, for man(1)."""
    return "\n".join(_lines(root)) + "\n"


def _lines(root: click.Group) -> Iterator[str]:
    yield '.\\" Made by `mountd manual`, from the help of its commands.'
    yield f'.TH MOUNTD 8 "" "mountd {__version__}" "System administration"'
    yield from (".SH NAME", NAME, ".SH SYNOPSIS", ".B mountd", '.RI [ OPTIONS ] " COMMAND " [ ARGUMENTS ]')
    yield from (".SH DESCRIPTION", *_prose(root.help or ""))
    yield from (".SH OPTIONS", *_options(click.Context(root, info_name="mountd")))
    yield ".SH COMMANDS"
    for context in _commands(click.Context(root, info_name="mountd")):
        words = [each for each in context.command.collect_usage_pieces(context) if each != "[OPTIONS]"]
        usage = " ".join([context.command_path, *words])
        yield f".SS {_roff(usage)}"
        yield from _prose(context.command.help or "")
        yield from _options(context)
    yield ".SH EXIT STATUS"
    for line in (root.epilog or "").splitlines():
        if found := EXIT_LINE.fullmatch(line):
            yield from _entry(found[1], found[2])
    for title, entries in (("FILES", FILES), ("ENVIRONMENT", ENVIRONMENT), ("SIGNALS", SIGNALS)):
        yield f".SH {title}"
        for name, text in entries.items():
            yield from _entry(name, text)
    yield from (".SH SEE ALSO", ".BR rclone (1),", ".BR fusermount3 (1),", ".BR systemd.service (5)")


def _commands(parent: click.Context) -> Iterator[click.Context]:
    """Each command that does something; of a group those in it."""
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


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            yield from _entry(*record)


def _entry(name: str, text: str) -> Iterator[str]:
    yield from (".TP", f".B {_roff(name)}", _roff(" ".join(text.split())))


def _prose(text: str) -> Iterator[str]:
    """Paragraphs; one that begins with \\b keeps its lines."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        if paragraph.lstrip(" ").startswith("\b"):
            yield from (".nf", *(_roff(line) for line in paragraph.splitlines()[1:]), ".fi")
        else:
            yield _roff(" ".join(paragraph.split()))


def _roff(text: str) -> str:
    r"""As it is: `-` is the sign that can be copied, `\` none of roff, and no line is a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
