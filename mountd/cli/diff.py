"""`mountd diff`: wanted against live."""

from __future__ import annotations

import click

from mountd.cli.labels import word
from mountd.cli.options import Options, asks_daemon, model_option
from mountd.cli.terminal import say
from mountd.client import api
from mountd.i18n import N_, _

HEADINGS = (N_("MODEL"), N_("WHAT"), N_("OF"), N_("WANTED"), N_("LIVE"))
VALUES = (N_("as configured"), N_("none"), N_("not set"), N_("unknown"))
"""What stands in the document where there is no version, target or flag to name, or no difference."""


@click.command()
@model_option("Only this model.  [default: all]")
@click.option("--all", "everything", is_flag=True, help="Show what does not differ, too.")
@asks_daemon
def diff(options: Options, model: str | None, everything: bool) -> None:
    """Show where what is live differs from what is wanted.

    Compares the version with what the source or the configuration wants, the link with where it should point, the flags
    of the running rclone with the configuration, and the state of rclone and of the apps. Exits 0 when all is Synced
    and nothing differs, else 1.

    \b
    Examples:
      mountd diff
      mountd diff --all -o json
    """
    document = api.get(options.find(), "/api/v1/diff", model=model)
    if not options.print_if_json(document):
        from mountd.cli import view

        rows: list[tuple[object, ...]] = [
            (
                each["model"],
                word(item["kind"]),
                item["object"],
                value(item["kind"], item["wanted"]),
                view.text(value(item["kind"], item["live"]), "red" if item["differs"] else ""),
            )
            for each in document["models"]
            for item in each["compared"]
            if everything or item["differs"]
        ]
        for each in document["models"]:
            say(f"{each['model']}: {word(each['sync'])}", err=True)
        if rows:
            view.show(view.console(), view.table(HEADINGS, rows))
    if document["differs"]:
        raise click.exceptions.Exit(1)


def value(kind: str, text: str) -> str:
    """As the document has it, with its words in the language of the reader; names, paths and flags stay."""
    if text in VALUES:
        return _(text)
    if kind == "link":
        link, arrow, target = text.rpartition(" → ")
        return f"{link}{arrow}{value('', target)}"
    if kind == "process":
        state, with_it, version = text.partition(" with ")
        said = word(state)
        return _("{state} with {version}").format(state=said, version=value("", version)) if with_it else said
    return text
