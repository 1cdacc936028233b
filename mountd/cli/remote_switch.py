"""The commands that change which version is live: switch, rollback, cancel, pause, resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mountd.cli.completion import complete_version
from mountd.cli.options import model_option, output_option, place_options, reason_option, timeout_option
from mountd.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from mountd.cli.options import Options

Document = dict[str, Any]
POST_LIMIT_S = 30.0
_TIMEOUT_HELP = "Stop waiting after this time, as in 90s or 5m (exit 4; it goes on).  [default: its own limits]"


def _change_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What `switch` and `rollback` share."""
    shared = (
        model_option("Which model; needed when there are several."),
        click.option("--dry-run", is_flag=True, help="Check, print what would be done, and change nothing."),
        click.option("--no-wait", is_flag=True, help="Begin it, print its id, and return."),
        timeout_option(_TIMEOUT_HELP),
        reason_option,
        click.option(
            "--force",
            is_flag=True,
            help="Also when it is in quarantine, has changed since it was live, or has no manifest.",
        ),
        click.option("--digests", is_flag=True, help="Read every byte of the version, and compare its sha256."),
        place_options,
        output_option,
        click.pass_obj,
    )
    for option in reversed(shared):
        command = option(command)
    return command


@click.command()
@click.argument("version", shell_complete=complete_version)
@_change_options
def switch(options: Options, version: str, **given: Any) -> None:
    """Switch a model to another version, or undo it all.

    Waits, with progress on stderr, until the version is live, its app ready, its gates passed and the time of watching
    over. Exits 5 when that failed and the former version is back, 7 when the version was refused and nothing was
    changed, 6 when another operation runs. Ctrl-C stops the waiting, not the switch: `mountd wait --for operation=ID`
    waits for it again, `mountd cancel` undoes it.
    """
    _change(options, "/api/v1/switch", version, **given)


@click.command()
@_change_options
def rollback(options: Options, **given: Any) -> None:
    """Switch a model back to its previous version.

    A switch like any other, and the two versions swap their roles: a second rollback undoes the first.
    """
    _change(options, "/api/v1/rollback", None, **given)


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
) -> None:
    from mountd.cli.follow import follow_operation
    from mountd.cli.remote import BUCKET_LIMIT_S
    from mountd.client import api

    socket_path = options.find()
    flags = {"dry_run": dry_run, "force": force, "digests": digests}
    body: Document = {"version": version, "model": model, "reason": reason}
    body = {name: value for name, value in body.items() if value is not None}
    body |= {name: True for name, on in flags.items() if on}
    limit_s = (timeout or BUCKET_LIMIT_S) if dry_run else POST_LIMIT_S
    answer = api.post(socket_path, path, body, timeout_s=limit_s)
    if answer.get("dry_run"):
        _print_plan(options, answer)
    elif answer.get("unchanged"):
        _print_unchanged(options, answer, version, quiet=no_wait)
    elif no_wait:
        _print_begun(options, answer["operation"])
    else:
        follow_operation(options, socket_path, answer, timeout)


def _print_plan(options: Options, answer: Document) -> None:
    if options.json:
        options.print_json(answer)
        return
    for line in answer["plan"]["text"]:
        say(line)


def _print_unchanged(options: Options, answer: Document, version: str | None, *, quiet: bool) -> None:
    if options.json:
        options.print_json(answer)
    else:  # who asked for an id reads stdout, and there is none
        say(f"{version or 'it'} is live already; nothing to do", err=quiet)


def _print_begun(options: Options, operation: Document, state: str = "has begun") -> None:
    """The id alone on stdout, for scripts."""
    from mountd.cli.follow import named, pick_up

    if options.json:
        options.print_json(operation)
    else:
        say(operation["id"])
        say(f"{named(operation)} {state}; {pick_up(operation)}", err=True)


@click.command()
@model_option("The operation on this model; needed when several run.")
@click.option("--no-wait", is_flag=True, help="Ask for it, and return.")
@timeout_option(_TIMEOUT_HELP)
@place_options
@output_option
@click.pass_obj
def cancel(options: Options, model: str | None, no_wait: bool, timeout: float | None) -> None:
    """Undo the operation that runs.

    Waits until the former version is live again. Exits 3 when nothing runs, 6 when it is only just being begun, 7 when
    it cannot be undone any more (it is committed, or undoes itself as a drill does), and 1 when the undoing failed.
    """
    from mountd.cli.follow import follow_cancel
    from mountd.client import api

    socket_path = options.find()
    answer = api.post(socket_path, "/api/v1/cancel", {"model": model} if model else {}, timeout_s=POST_LIMIT_S)
    if no_wait:
        _print_begun(options, answer["operation"], "is being undone")
    else:
        follow_cancel(options, socket_path, answer, timeout)


@click.command()
@model_option("Only of this model.  [default: all]")
@reason_option
@place_options
@output_option
@click.pass_obj
def pause(options: Options, model: str | None, reason: str | None) -> None:
    """Stop automatic changes until `mountd resume`.

    No edited version is switched to, no link is put right, nothing leaves the cache, nothing failed is tried again.
    Mounts and apps are still watched and restarted, and `mountd switch` works as ever. Outlasts a restart of mountd.
    """
    _suspend(options, "/api/v1/pause", {"model": model, "reason": reason})


@click.command()
@model_option("Only of this model.  [default: all]")
@place_options
@output_option
@click.pass_obj
def resume(options: Options, model: str | None) -> None:
    """Let automatic changes go on after `mountd pause`.

    What has waited is done at once, such as the switch to a version that the configuration names.
    """
    _suspend(options, "/api/v1/resume", {"model": model})


def _suspend(options: Options, path: str, body: Document) -> None:
    from mountd.client import api

    given = {name: value for name, value in body.items() if value is not None}
    answer = api.post(options.find(), path, given, timeout_s=POST_LIMIT_S)
    if options.json:
        options.print_json(answer)
        return
    for model in answer["models"]:
        who = model.get("suspended")
        already = "" if model.get("changed", True) else ", as before"
        say(f"{model['model']}: " + (f"paused by {who}" if who else f"automatic changes go on{already}"))
