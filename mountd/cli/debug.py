"""`mountd debug`: everything that helps to find a fault, in one archive without secrets; with and without a daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mountd.api.documents import SCHEMA
from mountd.api.documents.commands import DebugDocument
from mountd.cli.options import Options, reads_file
from mountd.cli.terminal import say, size

if TYPE_CHECKING:
    from mountd.cli.bundle import Bundle

LOOK_S = 30.0


@click.command()
@click.option("--file", metavar="FILE", type=click.Path(), help="The archive.  [default: mountd-debug-TIME.tar.gz]")
@reads_file
def debug(options: Options, *, file: str | None) -> None:
    """Collect a support bundle: configuration, states, logs, events, incidents, metrics; without secrets.

    Works with and without a daemon; run it as root or as the user that runs mountd. What cannot be had is named in its
    notes.txt, and so is each secret that could not be read here: its value cannot be looked for. Look through the
    archive before you pass it on. At most 20 MiB before compression, within about a minute.

    \b
    Examples:
      mountd debug
      mountd debug --file /tmp/mountd.tar.gz
    """
    from mountd.cli import bundle, bundle_parts, known_secrets
    from mountd.cli.examine_config import source_of
    from mountd.settings.redaction import Redactor

    config = Path(os.path.abspath(source_of(options.config, options.socket)))
    socket = options.socket or os.environ.get("MOUNTD_SOCKET", "")

    def look() -> tuple[bundle_parts.BundlePlace, known_secrets.KnownSecrets]:
        place = bundle_parts.look(config, socket, options.config)
        files = bundle_parts.rclone_files(place.settings)
        return place, known_secrets.collect(place.config, place.unit, place.pids, files)

    # Without the secrets nothing can be cleaned of them, so there is no bundle.
    place, secrets = bundle.within(LOOK_S, "read the secrets that must not be in the bundle", look)
    made = bundle.Bundle(Redactor(secrets.values))
    made.notes += [f"a secret that cannot be read here, and was not looked for: {each}" for each in secrets.unread]
    made.gather(bundle_parts.parts(place))
    path = Path(file or bundle.default_name())
    written = made.write(path)
    if options.print_if_json(_document(path, written, made)):
        return
    for note in made.notes:
        say(made.redactor.text(note), mark="note ", colour="yellow")
    say(f"{path}: {len(made.files)} files, {size(written)}, for you alone; look through it before you pass it on")


def _document(path: Path, written: int, made: Bundle) -> DebugDocument:
    notes = [made.redactor.text(note) for note in made.notes]
    return DebugDocument(
        schema=SCHEMA, path=os.path.abspath(path), bytes=written, files=sorted(made.files), notes=notes
    )
