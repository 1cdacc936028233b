"""The commands about the configuration file: check it, show its effect, and show what rclone would get."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mountd.api.documents import SCHEMA, failures
from mountd.api.documents.commands import ConfigCheckDocument, ConfigRenderDocument, ConfigShowDocument
from mountd.cli.options import config_option, output_option
from mountd.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mountd.cli.options import Options
    from mountd.errors import Problem
    from mountd.settings.load import Loaded


@click.group()
@config_option
def config() -> None:
    """Check and show the configuration, and what rclone gets."""


@config.command(short_help="Check the file and its secrets.")
@config_option
@output_option
@click.pass_obj
def check(options: Options) -> None:
    """Check the file and the secrets it refers to; show every problem at once.

    If rclone is installed, checks rclone's flags and the options of remotes too. `mountd doctor` checks the machine:
    users, programs, directories. systemd credentials can be checked only inside the unit. Exits 2 on a problem, 0 on
    warnings.
    """
    from mountd.cli.examine_config import examine, source_of
    from mountd.errors import ConfigError

    source = source_of(options.config, options.socket)
    try:
        found = examine(source, streams=True)
    except ConfigError as error:
        _print_found(options, source, error.problems, [])
        raise
    _print_found(options, source, found.problems, found.warnings)
    settings = found.settings
    if found.problems or settings is None:
        raise ConfigError(str(source), [*found.problems], hint="`mountd config schema` shows every key and its values")
    if options.json:
        return
    parts = (
        ("remote", len(settings.remotes)),
        ("mount", len(settings.mounts)),
        ("model", len(settings.models)),
        ("app", len(settings.apps)),
    )
    counts = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in parts)
    say(f"{source} is valid: {counts}")


@config.command(short_help="Show the effective configuration.")
@config_option
@output_option
@click.pass_obj
def show(options: Options) -> None:
    """Show the effective configuration with every default; secrets are masked."""
    loaded = _load(options, warn=not options.json)
    from mountd.daemon.shutdown import stop_times
    from mountd.settings.show import effective

    limit_s = stop_times(loaded.settings).total_s
    shown = effective(loaded.settings)
    if options.json:
        source = str(loaded.source)
        options.print_json(ConfigShowDocument(schema=SCHEMA, source=source, config=shown, stop_s=limit_s))
        return
    import yaml

    say(
        f"# {loaded.source} with every default. Stopping takes at most {limit_s:g} s:\n"
        "# keep systemd's TimeoutStopSec, or a container's grace period, above it.",
        wrap=False,
    )
    say(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120), nl=False, wrap=False)


@config.command(short_help="Show rclone.conf and rclone's command lines.")
@config_option
@output_option
@click.pass_obj
def render(options: Options) -> None:
    """Show rclone.conf and the files beside it (secrets masked), and the command line of each mount."""
    loaded = _load(options, warn=not options.json)
    from mountd.cli.render import render as rendered

    files, commands = rendered(loaded.settings)
    if options.json:
        conf = next(iter(files.values()))
        options.print_json(ConfigRenderDocument(schema=SCHEMA, rclone_conf=conf, files=files, mounts=commands))
        return
    import shlex

    say("\n\n".join(f"# {path}\n{text.rstrip()}" for path, text in files.items()), wrap=False)
    for name, command in commands.items():
        for warning in command["warnings"]:
            say(f"warning: {warning}", err=True)
        say(f"\n# mount {name}\n" + " \\\n    ".join(shlex.quote(word) for word in command["argv"]), wrap=False)


@config.command()
def schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    from mountd.settings.jsonschema import render as rendered

    say(rendered(), nl=False, wrap=False)


def _print_found(options: Options, source: Path, problems: Iterable[Problem], warnings: Iterable[Problem]) -> None:
    """All of it as a document, else the warnings alone; the failure that follows shows the problems."""
    if options.json:
        found = ConfigCheckDocument(
            schema=SCHEMA,
            source=str(source),
            problems=failures.problems(problems),
            warnings=failures.problems(warnings),
        )
        options.print_json(found)
    else:
        _warn(warnings)


def _load(options: Options, *, warn: bool) -> Loaded:
    """The chosen file; prints its warnings on stderr. Raises ConfigError."""
    from mountd.cli.examine_config import source_of
    from mountd.settings.load import load

    loaded = load(source_of(options.config, options.socket), streams=True)
    if warn:
        _warn(loaded.warnings)
    return loaded


def _warn(warnings: Iterable[Problem]) -> None:
    for warning in warnings:
        say(f"warning: {warning}", err=True)
