"""The commands for one app: start it, stop it, send it a signal."""

from __future__ import annotations

import click

from mountd.cli.completion import complete_app, complete_signal
from mountd.cli.labels import joined
from mountd.cli.options import Options, asks_daemon, timeout_option
from mountd.cli.terminal import say
from mountd.client import api
from mountd.i18n import _

_reason_option = click.option("--reason", metavar="TEXT", help="Reason, kept in the events.")


@click.command()
@click.argument("app", shell_complete=complete_app)
@timeout_option("Stop waiting after this time (exit 4; mountd keeps trying).", default="15m")
@_reason_option
@asks_daemon
def start(options: Options, app: str, timeout: float, reason: str | None) -> None:
    """Start an app that was stopped or has failed, and wait until it is running.

    It starts when what it needs is there. Exits 1 when it does not start, 6 while a switch of its model is running.

    \b
    Examples:
      mountd start webui
    """
    from mountd.cli.follow import start as start_and_wait

    now = start_and_wait(options, app, timeout, reason)
    if not options.print_if_json({"schema": api.SCHEMA, "name": app, "status": now}):
        say(joined([_("{name} is running").format(name=app), f"pid {now['pid']}" if now.get("pid") else ""]))


@click.command()
@click.argument("app", shell_complete=complete_app)
@timeout_option("Stop waiting after this time (exit 4; it is still being stopped).", default="5m")
@_reason_option
@asks_daemon
def stop(options: Options, app: str, timeout: float, reason: str | None) -> None:
    """Stop an app until `mountd start`, or until mountd itself restarts.

    Meanwhile nothing else starts it: no crash, no remount, no switch; a switch of its model asks no gates. It is
    Suspended, and mountd is ready as long as another app serves. Exits 6 while a switch of its model is running.

    \b
    Examples:
      mountd stop webui --reason "GPU for training"
    """
    from mountd.cli.follow import stop as stop_and_wait

    now = stop_and_wait(options, app, timeout, reason)
    if not options.print_if_json({"schema": api.SCHEMA, "name": app, "status": now}):
        say(_("{name} is stopped until `mountd start {name}`, or until mountd restarts").format(name=app))


@click.command()
@click.argument("app", shell_complete=complete_app)
@click.argument("name", metavar="SIGNAL", shell_complete=complete_signal)
@_reason_option
@asks_daemon
def signal(options: Options, app: str, name: str, reason: str | None) -> None:
    """Send a signal to the main process of an app.

    One of HUP, INT, QUIT, ABRT, USR1, USR2, TERM, KILL and WINCH, also written SIGHUP. mountd restarts an app that
    exits by it as after a crash. Exits 7 when no process of it runs.

    \b
    Examples:
      mountd signal webui HUP
    """
    answer = api.post(options.find(), "/api/v1/signal", {"name": app, "signal": name, "reason": reason})
    if not options.print_if_json(answer):
        sent = _("{signal} was sent to {name}, pid {pid}")
        say(sent.format(signal=answer["signal"], name=app, pid=answer["pid"]))
