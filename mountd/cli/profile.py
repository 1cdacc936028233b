"""`mountd profile`: which files the app opened at its start, and forgetting that."""

from __future__ import annotations

import click

from mountd.cli.completion import complete_version
from mountd.cli.options import Options, asks_daemon, model_option
from mountd.cli.terminal import say, size
from mountd.client import api
from mountd.client.api import Document


@click.command()
@click.argument("version", required=False, shell_complete=complete_version)
@model_option("The model; required when there are several.")
@click.option("--forget", is_flag=True, help="Remove the record. The next start of the app makes a new one.")
@asks_daemon
def profile(options: Options, *, version: str | None, model: str | None, forget: bool) -> None:
    """Show which files the app opened at its start, and in which order.

    mountd records this each time the app starts and gets ready. A warm loads these files first and in this order, also
    those of another version. With VERSION, shows the record only if it was made with that version. Exits 3 when there
    is none.
    """
    path = options.find()
    if forget:
        answer = api.post(path, "/api/v1/profile/forget", {"model": model, "version": version})
        if not options.print_if_json(answer):
            say(f"removed what was recorded of {answer['model']}, opened by {', '.join(answer['apps'])}")
        return
    document = api.get(path, "/api/v1/profile", model=model, version=version)
    if not options.print_if_json(document):
        _show(document)


def _show(document: Document) -> None:
    from mountd.cli import view

    for start in document["apps"]:
        what = f"{start['app']} with {document['model']} {start['version']}, recorded {start['recorded']}"
        say(what + ("; it may have opened other files, too" if start["partial"] else ""), err=True)
    files = document["files"]
    say(f"{len(files)} files, {size(document['bytes'])}", err=True)
    rows: list[tuple[object, ...]] = [
        (number, f"{file['after_s']:.2f} s", size(file["size"]), file["path"]) for number, file in enumerate(files, 1)
    ]
    right = ("#", "AFTER", "SIZE")
    view.show(view.console(), view.table(("#", "AFTER", "SIZE", "FILE"), rows, right=right))
