"""`mountd diff`: wanted against live."""

from __future__ import annotations

import click

from mountd.cli.options import Options, asks_daemon, model_option
from mountd.cli.terminal import say
from mountd.client import api


@click.command()
@model_option("Only this model.  [default: all]")
@click.option("--all", "everything", is_flag=True, help="Show what does not differ, too.")
@asks_daemon
def diff(options: Options, model: str | None, everything: bool) -> None:
    """Show where what is live differs from what is wanted.

    Compares the version with what the source or the configuration wants, the link with where it should point, the flags
    of the running rclone with the configuration, and the state of rclone and of the apps. Exits 0 when all is Synced
    and nothing differs, else 1.
    """
    document = api.get(options.find(), "/api/v1/diff", model=model)
    if not options.print_if_json(document):
        from mountd.cli import view

        rows: list[tuple[object, ...]] = [
            (
                each["model"],
                item["kind"],
                item["object"],
                item["wanted"],
                view.text(item["live"], "red" if item["differs"] else ""),
            )
            for each in document["models"]
            for item in each["compared"]
            if everything or item["differs"]
        ]
        for each in document["models"]:
            say(f"{each['model']}: {each['sync']}", err=True)
        if rows:
            view.show(view.console(), view.table(("MODEL", "WHAT", "OF", "WANTED", "LIVE"), rows))
    if document["differs"]:
        raise click.exceptions.Exit(1)
