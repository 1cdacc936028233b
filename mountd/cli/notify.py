"""`mountd notify`: a message to a target, to see that it arrives."""

from __future__ import annotations

import click

from mountd.cli.completion import complete_target
from mountd.cli.options import Options, asks_daemon
from mountd.cli.terminal import say
from mountd.client import api
from mountd.i18n import _

LIMIT_S = 150.0
"""More than a target's own timeout can be."""


@click.command()
@click.argument("target", shell_complete=complete_target)
@asks_daemon
def notify(options: Options, target: str) -> None:
    """Send a test message to a target of notifications.

    Waits until it is delivered. It counts for no limit, and is tried once. Exits 1 when it is not delivered, with the
    reason.

    \b
    Examples:
      mountd notify ops
    """
    answer = api.post(options.find(), "/api/v1/notify", {"target": target}, timeout_s=LIMIT_S)
    if not options.print_if_json(answer):
        say(_("a test message was delivered to {target}").format(target=answer["target"]))
