"""`mountd explain`: why mountd is not ready, Degraded or OutOfSync, with evidence and the next command."""

from __future__ import annotations

import os
from typing import Any

import click

from mountd.cli.options import Options, asks_daemon
from mountd.cli.terminal import say
from mountd.client import api
from mountd.i18n import _, language_of


@click.command()
@asks_daemon
def explain(options: Options) -> None:
    """Explain in plain words what is wrong, why, and what to do next.

    Follows what is seen (not ready, Degraded, OutOfSync, rolled back) from the app down to its cause, and shows the
    facts that speak for it. Exits 0 when mountd is ready and Healthy, else 1. Where no daemon answers it says what it
    finds out without one, and exits 8.

    \b
    Examples:
      mountd explain
      mountd explain -o json
    """
    from mountd.errors import Unreachable

    try:
        document = api.get(options.find(), "/api/v1/explain", lang=language_of(os.environ))
    except Unreachable as error:
        if options.host is not None and not options.came_over_ssh:
            raise
        from mountd.cli.explain_offline import explanation

        _print(options, explanation(options.config, options.socket, error))
        raise click.exceptions.Exit(error.exit_code) from None
    _print(options, document)
    if not (document["ready"] and document["health"] == "Healthy"):
        raise click.exceptions.Exit(1)


def _print(options: Options, document: Any) -> None:
    if options.print_if_json(document):
        return
    root = document["root"]
    if root is None:
        say(_("mountd is ready and Healthy: there is nothing to explain"), mark="ok   ", colour="green")
        return
    seen, *chain = document["chain"]
    marks = {name: f"{word} " for name, word in (("seen", _("seen")), ("why", _("why")), ("also", _("also")))}
    say(seen["text"], mark=marks["seen"], colour="yellow")
    for depth, link in enumerate(chain):
        last = depth == len(chain) - 1
        say(f"{'  ' * depth}{link['text']}", mark=marks["why"] if last else "     ", colour="red")
    for fact in root["evidence"]:
        say(f"       - {fact}")
    if root["hint"]:
        say(f"       → {root['hint']}")
    if root["command"]:
        say(f"       $ {root['command']}", wrap=False)
    page = _("see {page}").format(page=root["docs"])
    say(f"       {page}", wrap=False)
    for other in document["others"]:
        say(f"{other['text']} ({other['code']})", mark=marks["also"], colour="yellow")
        for fact in other["evidence"][:1]:
            say(f"       - {fact}")
        if other["command"]:
            say(f"       $ {other['command']}", wrap=False)
