"""The commands that change which version is live: switch, rollback, cancel, pause, resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from mountd.cli.choice import OneOf
from mountd.cli.completion import complete_cancellable, complete_committed, complete_version
from mountd.cli.follow import follow_cancel, follow_operation, print_begun
from mountd.cli.options import Options, asks_daemon, model_option, reason_option, timeout_option
from mountd.cli.progress import SCHEDULE, named, pick_up
from mountd.cli.remote import BUCKET_LIMIT_S
from mountd.cli.terminal import say
from mountd.client import api
from mountd.client.api import Document
from mountd.i18n import _

_TIMEOUT_HELP = (
    "Stop waiting after this time, such as 90s or 5m (exit 4; the operation continues).  [default: the plan's limit]"
)


def _change_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What `switch` and `rollback` share."""
    shared = (
        model_option("The model; required when there are several."),
        click.option("--dry-run", is_flag=True, help="Check, print the plan, and change nothing."),
        click.option("--no-wait", is_flag=True, help="Print the operation's id and return at once."),
        timeout_option(_TIMEOUT_HELP),
        reason_option,
        click.option("--force", is_flag=True, help="Ignore quarantine, changed content and a missing manifest."),
        click.option("--digests", is_flag=True, help="Read the whole version and compare its sha256."),
        asks_daemon,
    )
    for option in reversed(shared):
        command = option(command)
    return command


@click.command()
@click.argument("version", shell_complete=complete_version)
@click.option("--at", metavar="TIME", help="Schedule it for 03:00, 2026-01-31T03:00 or +30m, and return at once.")
@_change_options
def switch(options: Options, version: str, at: str | None, **given: Any) -> None:
    """Switch a model to another version; undo everything on failure.

    Waits, with progress on stderr, until the version is live, the app is ready, the gates have passed and the watch
    period is over. Exits 5 when that failed and the previous version is live again, 6 when another operation is
    running, 7 when the version was refused and nothing was changed. Ctrl-C stops waiting, not the switch: `mountd wait
    --for operation=ID` waits again, `mountd cancel` undoes it.

    With --at, `mountd status` shows the scheduled switch and `mountd cancel` drops it. A time without a zone is one of
    this machine. When mountd does not run at that time, it begins within the hour after it, or is reported as missed.

    \b
    Examples:
      mountd switch v23 --dry-run
      mountd switch v23 --reason "better prosody"
      mountd switch v23 --at 03:00
    """
    if at is not None:
        from mountd.cli.times import moment_ahead

        at = moment_ahead(at)
    _change(options, "/api/v1/switch", version, at=at, **given)


@click.command()
@click.option(
    "--to",
    type=click.IntRange(0),
    metavar="ID",
    shell_complete=complete_committed,
    help="To what was live after this operation of `mountd history`.",
)
@_change_options
def rollback(options: Options, to: int | None, **given: Any) -> None:
    """Switch a model back to its previous version, or an earlier one.

    Works like a switch. The two versions swap roles: a second rollback undoes the first. With --to, exits 3 when there
    is no such operation, 7 when it was not committed.

    \b
    Examples:
      mountd rollback
      mountd history --result committed
      mountd rollback --to 12
    """
    _change(options, "/api/v1/rollback", None, to=to, **given)


def _change(
    options: Options,
    path: str,
    version: str | None,
    *,
    model: str | None,
    dry_run: bool,
    no_wait: bool,
    timeout: float | None,
    reason: str | None,
    force: bool,
    digests: bool,
    **more: object,
) -> None:
    socket_path = options.find()
    flags = {"dry_run": dry_run, "force": force, "digests": digests}
    body: Document = {"version": version, "model": model, "reason": reason, **more}
    body |= {name: True for name, on in flags.items() if on}
    limit_s = (timeout or BUCKET_LIMIT_S) if dry_run else api.POST_TIMEOUT_S
    answer = api.post(socket_path, path, body, timeout_s=limit_s)
    if answer.get("dry_run"):
        if not options.print_if_json(answer):
            from mountd.cli.view_plan import lines

            for line in lines(answer["plan"]):
                say(line)
    elif answer.get("unchanged"):
        if not options.print_if_json(answer):  # a script that wants an id reads stdout, and there is none
            live = _("{version} is already live; nothing to do").format(version=version) if version else ""
            say(live or _("it is already live; nothing to do"), err=no_wait)
    elif more.get("at") is not None:
        _print_scheduled(options, answer["operation"])
    elif no_wait:
        _print_begun(options, answer["operation"], _("{operation} has begun; {advice}"))
    else:
        follow_operation(options, socket_path, answer, timeout)


def _print_scheduled(options: Options, operation: Document) -> None:
    from mountd.cli.times import as_here

    sentence = _("{model} is switched to {version} at {time}; `mountd cancel {id}` drops it").format(
        model=operation["model"], version=operation["to"], time=as_here(operation["due"]), id=operation["id"]
    )
    print_begun(options, operation, sentence)


def _print_begun(options: Options, operation: Document, sentence: str) -> None:
    print_begun(options, operation, sentence.format(operation=named(operation), advice=pick_up(operation)))


@click.command()
@click.argument("version", shell_complete=complete_version)
@click.option(
    "--level",
    type=OneOf(["metadata", "data", "pin"]),
    help="metadata: names and sizes; data: every file, into the cache; pin: a verified copy on this machine.  [default:"
    " the model's warm.level]",
)
@model_option("The model; required when there are several.")
@click.option("--no-wait", is_flag=True, help="Print the operation's id and return at once.")
@timeout_option("Stop waiting after this time, such as 90s or 5m (exit 4; the operation continues).")
@reason_option
@asks_daemon
def warm(
    options: Options,
    version: str,
    *,
    level: str | None,
    model: str | None,
    no_wait: bool,
    timeout: float | None,
    **given: Any,
) -> None:
    """Load a version ahead of a switch to it.

    Changes nothing that is live. Waits, with progress on stderr. Exits 6 when another operation is running on the
    model, 7 when the version was refused, such as for a wrong digest. Ctrl-C stops waiting, not the loading; `mountd
    cancel` stops that, and what has been loaded stays. A switch of the model takes over from a warm that runs.

    \b
    Examples:
      mountd warm v24
      mountd warm v24 --level pin --no-wait
    """
    socket_path = options.find()
    body: Document = {"version": version, "model": model, "level": level, **given}
    answer = api.post(socket_path, "/api/v1/warm", body)
    if no_wait:
        _print_begun(options, answer["operation"], _("{operation} has begun; {advice}"))
    else:
        follow_operation(options, socket_path, answer, timeout)


@click.command()
@click.argument(
    "operation", required=False, type=click.IntRange(0), metavar="[ID]", shell_complete=complete_cancellable
)
@model_option("The model of the operation; required when several run.")
@click.option("--no-wait", is_flag=True, help="Return at once.")
@timeout_option(_TIMEOUT_HELP)
@asks_daemon
def cancel(options: Options, operation: int | None, model: str | None, no_wait: bool, timeout: float | None) -> None:
    """Undo the running operation, or drop a scheduled switch.

    Without an ID the running operation is meant, and where none runs the only scheduled switch. Waits until the
    previous version is live again. Exits 3 when there is nothing to cancel, 6 when it is still being started, 7 when it
    can no longer be undone (it is committed, or undoes itself like a drill), and 1 when undoing failed.

    \b
    Examples:
      mountd cancel
      mountd cancel 17
    """
    socket_path = options.find()
    answer = api.post(socket_path, "/api/v1/cancel", {"model": model, "id": operation})
    if answer["operation"]["kind"] == SCHEDULE:
        if not options.print_if_json(answer["operation"]):
            say(_("{operation} is cancelled").format(operation=named(answer["operation"])))
    elif no_wait:
        _print_begun(options, answer["operation"], _("{operation} is being undone; {advice}"))
    else:
        follow_cancel(options, socket_path, answer, timeout)


@click.command()
@model_option("Only this model.  [default: all]")
@reason_option
@asks_daemon
def pause(options: Options, model: str | None, reason: str | None) -> None:
    """Stop automatic changes until `mountd resume`.

    mountd does not switch to an edited version, begin a scheduled switch, repair a link, evict from the cache or retry
    a failed switch. It still watches and restarts mounts and apps, and `mountd switch` works. Survives a restart of
    mountd.

    \b
    Examples:
      mountd pause --reason "the bucket is moved"
      mountd pause --model cache_hub
    """
    _suspend(options, "/api/v1/pause", {"model": model, "reason": reason})


@click.command()
@model_option("Only this model.  [default: all]")
@asks_daemon
def resume(options: Options, model: str | None) -> None:
    """Resume automatic changes after `mountd pause`.

    Pending changes begin at once, such as a switch to the version in the configuration.

    \b
    Examples:
      mountd resume
    """
    _suspend(options, "/api/v1/resume", {"model": model})


def _suspend(options: Options, path: str, body: Document) -> None:
    answer = api.post(options.find(), path, body)
    if options.print_if_json(answer):
        return
    for model in answer["models"]:
        who = model.get("suspended")
        resumed = (
            _("automatic changes resumed") if model.get("changed", True) else _("automatic changes resumed already")
        )
        say(f"{model['model']}: " + (_("paused by {who}").format(who=who) if who else resumed))
