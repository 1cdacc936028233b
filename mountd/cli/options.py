"""What several commands share: where the daemon is, how to print, how long to wait."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from mountd.cli.choice import OneOf
from mountd.cli.completion import complete_model
from mountd.cli.terminal import say_json

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

OVER_SSH = "over-ssh"
"""The command that `-H` runs on the other machine, with all words in one; not for people."""
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_S = 3650 * _SECONDS["d"]


class Options:
    """What every command takes, before or after its name; the object of every click context."""

    def __init__(self) -> None:
        self.config: str | None = None
        self.socket: str | None = None
        self.host: str | None = None
        self.words: list[str] = []
        """of the whole command line, as they were written"""
        self.came_over_ssh = False
        """from a `-H` of another machine: the daemon of this one is meant"""
        self.output = "table"
        self.answered = False
        """a document is on stdout already, so that a failure adds none"""

    @property
    def json(self) -> bool:
        return self.output == "json"

    @property
    def goes_over_ssh(self) -> bool:
        return self.host is not None and not self.came_over_ssh and not self.host.startswith(("http://", "https://"))

    def find(self) -> str:
        """The path of the daemon's socket, or the address of its TCP port. Raises Unreachable, UsageError."""
        if self.host is not None and not self.came_over_ssh:
            from mountd.client import tcp

            tcp.parse(self.host)
            return self.host
        from mountd.client.find import find

        return find(self.socket, self.config)

    def print_json(self, document: Mapping[str, object], *, indent: int | None = 2) -> None:
        self.answered = True
        say_json(document, indent=indent)

    def print_if_json(self, document: Mapping[str, object], *, indent: int | None = 2) -> bool:
        """Print `document` when `-o json` asks for it; whether it did."""
        if self.json:
            self.print_json(document, indent=indent)
        return self.json


def duration(text: str) -> float:
    """`500ms 2s 5m 1m30s 1h` → seconds, as in the configuration (whose parser would bring pydantic with it)."""
    text = text.strip()
    if text != "0" and not _DURATION.fullmatch(text):
        raise click.BadParameter(f"{text!r} is not a duration: write 500ms, 2s, 5m or 1h")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    if seconds > _LONGEST_S:
        raise click.BadParameter(f"{text[:40]!r} is longer than ten years")
    return seconds


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None and ctx.obj is not None and param.name:
        setattr(ctx.obj, param.name, value)


def _remembered(*names: str, **attributes: Any) -> Callable[[Decorated], Decorated]:
    return click.option(*names, expose_value=False, callback=_remember, **attributes)


def config_option(command: Decorated) -> Decorated:
    return _remembered("-c", "--config", metavar="FILE", type=click.Path(), help="Configuration file.")(command)


def place_options(command: Decorated) -> Decorated:
    """`-c`, `--socket` and `-H`: which daemon."""
    host = _remembered(
        "-H",
        "--host",
        metavar="HOST",
        help="Daemon on another machine: [USER@]HOST over ssh, http(s)://HOST:PORT with the token in $MOUNTD_TOKEN.",
    )
    socket = _remembered("--socket", metavar="PATH", type=click.Path(), help="Control socket of the daemon.")
    return host(socket(config_option(command)))


def output_option(command: Decorated) -> Decorated:
    kinds = OneOf(["table", "json"])
    return _remembered("-o", "--output", type=kinds, help="Output format.  [default: table]")(command)


def asks_daemon(function: Callable[..., Any]) -> Callable[..., Any]:
    """`-c`, `--socket`, `-H`, `-o`, and Options as the first argument; with a host of ssh it runs there."""

    @functools.wraps(function)
    def run(options: Options, *args: Any, **given: Any) -> Any:
        if options.goes_over_ssh:
            from mountd.cli.over_ssh import run_there

            assert options.host is not None
            raise click.exceptions.Exit(run_there(options.host, options.words))
        return function(options, *args, **given)

    return place_options(output_option(click.pass_obj(run)))


def reads_file(function: Callable[..., Any]) -> Callable[..., Any]:
    """`-c`, `-o`, and Options as the first argument."""
    return config_option(output_option(click.pass_obj(function)))


def model_option(help_text: str) -> Callable[[Decorated], Decorated]:
    """`--model`, given to the command as a name or None."""
    return click.option("--model", metavar="NAME", shell_complete=complete_model, help=help_text)


reason_option = click.option("--reason", metavar="TEXT", help="Reason, kept in the history.")


def timeout_option(help_text: str, *, default: str | None = None) -> Callable[[Decorated], Decorated]:
    """`--timeout`, given to the command as seconds or None."""
    return click.option(
        "--timeout", type=duration, metavar="TIME", default=default, show_default=default is not None, help=help_text
    )
