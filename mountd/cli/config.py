"""The commands about the configuration file: check it, show what it means, and what rclone would be given."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from mountd.cli.options import config_option, output_option

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mountd.cli.options import Asked
    from mountd.errors import Problem
    from mountd.settings.load import Loaded


@click.group()
@config_option
def config() -> None:
    """Check and show the configuration, and what rclone is given."""


@config.command(short_help="Check the file and the secrets it refers to.")
@config_option
@output_option
@click.pass_obj
def check(asked: Asked) -> None:
    """Check the file and the secrets that it refers to; show every problem at once.

    Exits 2 when something is wrong; warnings alone exit 0.
    """
    from mountd.errors import ConfigError
    from mountd.settings.load import check_secrets

    try:
        loaded = _load(asked, warn=not asked.json)
        if problems := check_secrets(loaded.settings, loaded.lines):
            raise ConfigError(str(loaded.source), problems)
    except ConfigError as error:
        if asked.json:
            asked.print_json({"schema": 1, "source": error.source, "problems": _plain(error.problems), "warnings": []})
        raise
    if asked.json:
        warnings = _plain(loaded.warnings)
        asked.print_json({"schema": 1, "source": str(loaded.source), "problems": [], "warnings": warnings})
        return
    settings = loaded.settings
    parts = (
        ("remote", len(settings.remotes)),
        ("mount", len(settings.mounts)),
        ("model", len(settings.models)),
        ("app", len(settings.apps)),
    )
    counts = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in parts)
    click.echo(f"{loaded.source} is valid: {counts}")


@config.command(short_help="Show the effective configuration.")
@config_option
@output_option
@click.pass_obj
def show(asked: Asked) -> None:
    """Show the effective configuration, with every default; secrets are masked."""
    loaded = _load(asked, warn=not asked.json)
    from mountd.daemon.shutdown import stop_times
    from mountd.settings.show import effective

    limit_s = stop_times(loaded.settings).total_s
    shown = effective(loaded.settings)
    if asked.json:
        asked.print_json({"schema": 1, "source": str(loaded.source), "config": shown, "stop_s": limit_s})
        return
    import yaml

    click.echo(
        f"# {loaded.source} with every default. Stopping takes at most {limit_s:g} s:\n"
        "# keep systemd's TimeoutStopSec, or a container's grace period, above it."
    )
    click.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120), nl=False)


@config.command(short_help="Show rclone.conf and rclone's command lines.")
@config_option
@output_option
@click.pass_obj
def render(asked: Asked) -> None:
    """Show the rclone.conf and the files beside it (secrets masked), and the command line of each mount."""
    loaded = _load(asked, warn=not asked.json)
    from mountd.cli.render import render as rendered

    files, commands = rendered(loaded.settings)
    if asked.json:
        asked.print_json({"schema": 1, "rclone_conf": next(iter(files.values())), "files": files, "mounts": commands})
        return
    import shlex

    click.echo("\n\n".join(f"# {path}\n{text.rstrip()}" for path, text in files.items()))
    for name, command in commands.items():
        for warning in command["warnings"]:
            click.echo(f"warning: {warning}", err=True)
        click.echo(f"\n# mount {name}\n" + " \\\n    ".join(shlex.quote(word) for word in command["argv"]))


@config.command()
def schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    from mountd.settings.jsonschema import render as rendered

    click.echo(rendered(), nl=False)


def _load(asked: Asked, *, warn: bool) -> Loaded:
    """The file that was asked for, its warnings on stderr. Raises ConfigError."""
    from mountd.settings.load import config_path, load

    loaded = load(config_path(asked.config, os.environ))
    if warn:
        for warning in loaded.warnings:
            click.echo(f"warning: {warning}", err=True)
    return loaded


def _plain(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    return [{"path": problem.path, "line": problem.line, "text": problem.text} for problem in problems]
