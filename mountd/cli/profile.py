"""`mountd profile`: which files the app opened at its start, and forgetting that."""

from __future__ import annotations

import click

from mountd.cli.completion import complete_version
from mountd.cli.labels import joined
from mountd.cli.options import Options, asks_daemon, model_option
from mountd.cli.terminal import say, size
from mountd.client import api
from mountd.client.api import Document
from mountd.i18n import N_, _


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

    \b
    Examples:
      mountd profile
      mountd profile v23
      mountd profile --forget
    """
    path = options.find()
    if forget:
        answer = api.post(path, "/api/v1/profile/forget", {"model": model, "version": version})
        if not options.print_if_json(answer):
            removed = _("removed what was recorded of {model}, opened by {apps}")
            say(removed.format(model=answer["model"], apps=joined(answer["apps"])))
        return
    document = api.get(path, "/api/v1/profile", model=model, version=version)
    if not options.print_if_json(document):
        _show(document)


def _show(document: Document) -> None:
    from mountd.cli import view

    for start in document["apps"]:
        what = _("{app} with {model} {version}, recorded {time}").format(
            app=start["app"], model=document["model"], version=start["version"], time=start["recorded"]
        )
        say(what + (_("; it may have opened other files, too") if start["partial"] else ""), err=True)
    files = document["files"]
    say(_("{count} files, {size}").format(count=len(files), size=size(document["bytes"])), err=True)
    rows: list[tuple[object, ...]] = [
        (number, f"{file['after_s']:.2f} s", size(file["size"]), file["path"]) for number, file in enumerate(files, 1)
    ]
    right = ("#", "AFTER", "SIZE")
    view.show(view.console(), view.table(("#", N_("AFTER"), N_("SIZE"), N_("FILE")), rows, right=right))
