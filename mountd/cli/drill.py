"""`mountd drill`: shows the plan, asks for confirmation, injects the fault, and shows what was measured."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from mountd.cli.completion import complete_mount
from mountd.cli.options import output_option, place_options, reason_option
from mountd.cli.terminal import say

if TYPE_CHECKING:
    from mountd.cli.options import Options

Document = dict[str, Any]
POST_LIMIT_S = 30.0
KINDS = ("kill", "hang", "slow", "offline")


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.option(
    "--mount", metavar="NAME", shell_complete=complete_mount, help="The mount; required when there are several."
)
@click.option("--for", "for_", metavar="TIME", help="How long slow and offline last, such as 30s or 2m.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--no-wait", is_flag=True, help="Print the operation's id and return at once.")
@reason_option
@place_options
@output_option
@click.pass_obj
def drill(
    options: Options, *, kind: str, mount: str | None, for_: str | None, yes: bool, no_wait: bool, reason: str | None
) -> None:
    """Inject a fault, and measure detection and recovery.

    \b
    kill     rclone is killed, like a crash
    hang     rclone is stopped, like a hang
    slow     each request to the bucket takes 5 s longer
    offline  the bucket cannot be reached

    Works on the running system: prints the plan first and asks for confirmation. The fault always ends by itself, also
    after Ctrl-C. Exits 1 when detection or recovery took too long, 7 when the system is not healthy enough for a drill.
    """
    from mountd.client import api
    from mountd.errors import UsageError

    if not yes and not sys.stdin.isatty():
        raise UsageError(
            f"cannot drill {kind} without a confirmation: it disturbs what runs, and there is no terminal to ask on",
            hint=f"add --yes: mountd drill {kind} --yes",
        )
    path = options.find()
    body = {"kind": kind, "mount": mount, "for": for_, "reason": reason}
    given = {name: value for name, value in body.items() if value is not None}
    if not yes:
        plan = api.post(path, "/api/v1/drill", {**given, "dry_run": True}, timeout_s=POST_LIMIT_S)["plan"]
        for line in plan["text"]:
            say(line, err=True)
        if not click.confirm("Continue?", err=True):
            say("nothing was changed", err=True)
            raise click.exceptions.Exit(1)
    answer = api.post(path, "/api/v1/drill", given, timeout_s=POST_LIMIT_S)
    if yes:
        for line in answer["plan"]["text"]:
            say(line, err=True)
    if no_wait:
        _print_begun(options, answer["operation"])
    else:
        _follow(options, path, answer)


def _print_begun(options: Options, operation: Document) -> None:
    if options.json:
        options.print_json(operation)
    else:
        say(operation["id"])  # alone on stdout, for scripts
        say(f"operation {operation['id']} has begun; `mountd status` shows its progress", err=True)


def _follow(options: Options, path: str, answer: Document) -> None:
    from mountd.cli.follow import ProgressLine, continues, until_finished
    from mountd.client import api

    operation: Document = answer["operation"]
    progress = ProgressLine()
    try:
        deadline = time.monotonic() + float(answer["timeout_s"])
        operation = until_finished(path, operation, deadline, progress)
    except KeyboardInterrupt:
        say(f"{continues(operation)}, and its fault ends by itself; `mountd status` shows it", err=True)
        raise
    finally:
        progress.end()
    measured: Document | None = operation.get("drill")
    if measured is not None and options.json:
        options.print_json({"schema": 1, "drill": measured})
    elif measured is not None:
        show_measured(measured)
    if operation.get("result") != "passed":
        error = operation.get("error") or {"exit": 1, "text": f"result of the drill: {operation.get('result')}"}
        raise api.failure(error)


def show_measured(measured: Document) -> None:
    from mountd.cli import view

    limits = measured["limits"]
    since = " after its end" if measured["kind"] in ("slow", "offline") else ""
    rows = [
        ("detected", measured["detected_s"], limits["detected_s"]),
        (f"serving again{since}", measured["serving_again_s"], limits["serving_again_s"]),
        (f"ready again{since}", measured["ready_again_s"], limits["ready_again_s"]),
    ]
    cells: list[tuple[object, ...]] = [
        (
            what,
            "never" if took is None else f"{took:.2f} s",
            f"{limit:g} s",
            _verdict(took is not None and took <= limit),
        )
        for what, took, limit in rows
    ]
    outage = bool(since)
    cells.append(_fact("rclone restarted", measured["rclone_restarted"], wanted=False if outage else None))
    cells.append(_fact("app restarted", measured["app_restarted"], wanted=False if outage else None))
    if measured["cached_reads"] is not None:
        cells.append(_fact("cached reads", measured["cached_reads"], wanted=True))
    console = view.console()
    view.show(console, view.table(("WHAT", "MEASURED", "LIMIT", ""), cells, right=("MEASURED", "LIMIT")))
    passed = "passed" if measured["passed"] else "not passed"
    view.show(console, view.text(f"drill {measured['kind']} of {measured['mount']}: {passed}"))


def _fact(what: str, value: bool, *, wanted: bool | None) -> tuple[object, ...]:
    """`wanted` None: shown, but not judged."""
    return what, _plain("yes" if value else "no"), "", "" if wanted is None else _verdict(value is wanted)


def _plain(word: str) -> object:
    from mountd.cli import view

    return view.text(word, "default")


def _verdict(good: bool) -> str:
    return "ok" if good else "fail"
