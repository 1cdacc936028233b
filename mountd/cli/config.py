"""The commands about the configuration file: check it, show its effect, and show what rclone would get."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mountd.api.documents import SCHEMA, failures
from mountd.api.documents.commands import ConfigCheckDocument, ConfigRenderDocument, ConfigShowDocument
from mountd.cli.options import Options, config_option, reads_file
from mountd.cli.terminal import say
from mountd.errors import ConfigError, Problem
from mountd.i18n import _

if TYPE_CHECKING:
    from mountd.settings.load import Loaded


@click.group()
@config_option
def config() -> None:
    """Check and show the configuration, and what rclone gets.

    \b
    Examples:
      mountd config check
      mountd config show
    """


@config.command(short_help="Check the file and its secrets.")
@reads_file
def check(options: Options) -> None:
    """Check the file and the secrets it refers to; show every problem at once.

    If rclone is installed, checks rclone's flags and the options of remotes too. `mountd doctor` checks the machine:
    users, programs, directories. systemd credentials can be checked only inside the unit. Exits 2 on a problem, 0 on
    warnings.

    \b
    Examples:
      mountd config check
      mountd config check -c ./mountd.yaml -o json
    """
    from mountd.cli.examine_config import examine, source_of

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
        (_("1 remote"), _("{count} remotes"), len(settings.remotes)),
        (_("1 mount"), _("{count} mounts"), len(settings.mounts)),
        (_("1 model"), _("{count} models"), len(settings.models)),
        (_("1 app"), _("{count} apps"), len(settings.apps)),
    )
    counts = _(", ").join(one if count == 1 else many.format(count=count) for one, many, count in parts)
    say(_("{file} is valid: {counts}").format(file=source, counts=counts))


@config.command(short_help="Show the effective configuration.")
@reads_file
def show(options: Options) -> None:
    """Show the effective configuration with every default; secrets are masked.

    \b
    Examples:
      mountd config show
    """
    import yaml

    from mountd.daemon.shutdown import stop_times
    from mountd.settings.masking import effective

    loaded = _load(options)
    limit_s = stop_times(loaded.settings).total_s
    shown = effective(loaded.settings)
    document = ConfigShowDocument(schema=SCHEMA, source=str(loaded.source), config=shown, stop_s=limit_s)
    if options.print_if_json(document):
        return
    say(
        f"# {loaded.source} with every default. Stopping takes at most {limit_s:g} s:\n"
        "# keep systemd's TimeoutStopSec, or a container's grace period, above it.",
        wrap=False,
    )
    say(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120), nl=False, wrap=False)


@config.command(short_help="Show rclone.conf and rclone's command lines.")
@reads_file
def render(options: Options) -> None:
    """Show rclone.conf and the files beside it (secrets masked), and the command line of each mount.

    \b
    Examples:
      mountd config render
    """
    from mountd.cli import render as rclone_files

    loaded = _load(options)
    files, commands = rclone_files.render(loaded.settings)
    conf = next(iter(files.values()))
    if options.print_if_json(ConfigRenderDocument(schema=SCHEMA, rclone_conf=conf, files=files, mounts=commands)):
        return
    say("\n\n".join(f"# {path}\n{text.rstrip()}" for path, text in files.items()), wrap=False)
    for name, command in commands.items():
        for warning in command["warnings"]:
            say(_("warning: {text}").format(text=warning), err=True)
        say(f"\n# mount {name}\n" + " \\\n    ".join(shlex.quote(word) for word in command["argv"]), wrap=False)


@config.command()
def schema() -> None:
    """Print the JSON Schema of the file, for editors.

    \b
    Examples:
      mountd config schema > mountd.schema.json
    """
    from mountd.settings import jsonschema

    say(jsonschema.render(), nl=False, wrap=False)


def _print_found(options: Options, source: Path, problems: Iterable[Problem], warnings: Iterable[Problem]) -> None:
    """All of it as a document, else the warnings alone; the failure that follows shows the problems."""
    found = ConfigCheckDocument(
        schema=SCHEMA,
        source=str(source),
        problems=failures.problems(problems),
        warnings=failures.problems(warnings),
    )
    if not options.print_if_json(found):
        _warn(warnings)


def _load(options: Options) -> Loaded:
    """The chosen file; prints its warnings on stderr, but not with JSON. Raises ConfigError."""
    from mountd.cli.examine_config import source_of
    from mountd.settings.load import load

    loaded = load(source_of(options.config, options.socket), streams=True)
    if not options.json:
        _warn(loaded.warnings)
    return loaded


def _warn(warnings: Iterable[Problem]) -> None:
    for warning in warnings:
        say(_("warning: {text}").format(text=warning), err=True)
