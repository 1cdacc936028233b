"""`mountd drill`: says what will happen, asks, rehearses the fault, and shows what was measured."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from mountd.cli.completion import complete_mount
from mountd.cli.options import output_option, place_options
from mountd.cli.terminal import say

if TYPE_CHECKING:
    from mountd.cli.options import Options

Document = dict[str, Any]
POST_LIMIT_S = 30.0
KINDS = ("kill", "hang", "slow", "offline")


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.option(
    "--mount", metavar="NAME", shell_complete=complete_mount, help="Which mount; needed when there are several."
)
@click.option("--for", "for_", metavar="TIME", help="How long slow and offline last, as in 30s or 2m.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@click.option("--no-wait", is_flag=True, help="Begin it, print its id, and return.")
@click.option("--reason", metavar="TEXT", help="Why; kept in the history.")
@place_options
@output_option
@click.pass_obj
def drill(
    options: Options, *, kind: str, mount: str | None, for_: str | None, yes: bool, no_wait: bool, reason: str | None
) -> None:
    """Rehearse a fault, and measure how it is found and mended.

    \b
    kill     rclone is killed, as if it had crashed
    hang     rclone is frozen, as if it hung
    slow     each request to the bucket takes 5 s longer
    offline  the bucket cannot be reached

    On the running system: says first what will happen to whom, and asks. The fault always ends by itself, also when you
    press Ctrl-C. Exits 1 when it was not found and mended in time, 7 when the system is not healthy enough for a drill.
    """
    from mountd.client import api
    from mountd.errors import UsageError

    if not yes and not sys.stdin.isatty():
        raise UsageError(
            f"cannot drill {kind} without being asked to: it disturbs what runs, and there is no terminal to ask at",
            hint=f"add --yes: mountd drill {kind} --yes",
        )
    path = options.find()
    body = {"kind": kind, "mount": mount, "for": for_, "reason": reason}
    given = {name: value for name, value in body.items() if value is not None}
    if not yes:
        plan = api.post(path, "/api/v1/drill", {**given, "dry_run": True}, timeout_s=POST_LIMIT_S)["plan"]
        for line in plan["text"]:
            say(line, err=True)
        if not click.confirm("Go on?", err=True):
            say("nothing was done", err=True)
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
        say(f"operation {operation['id']} has begun; `mountd status` shows how far it is", err=True)


def _follow(options: Options, path: str, answer: Document) -> None:
    from mountd.cli.follow import ProgressLine, goes_on, until_finished
    from mountd.client import api

    operation: Document = answer["operation"]
    progress = ProgressLine()
    try:
        deadline = time.monotonic() + float(answer["timeout_s"])
        operation = until_finished(path, operation, deadline, progress)
    except KeyboardInterrupt:
        say(f"{goes_on(operation)}, and ends its fault by itself; `mountd status` shows it", err=True)
        raise
    finally:
        progress.end()
    measured: Document | None = operation.get("drill")
    if measured is not None and options.json:
        options.print_json({"schema": 1, "drill": measured})
    elif measured is not None:
        show_measured(measured)
    if operation.get("result") != "passed":
        error = operation.get("error") or {"exit": 1, "text": f"the drill ended: {operation.get('result')}"}
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
    cells.append(_told("rclone restarted", measured["rclone_restarted"], wanted=False if outage else None))
    cells.append(_told("app restarted", measured["app_restarted"], wanted=False if outage else None))
    if measured["cached_reads"] is not None:
        cells.append(_told("cached reads", measured["cached_reads"], wanted=True))
    console = view.console()
    view.show(console, view.table(("WHAT", "MEASURED", "LIMIT", ""), cells, right=("MEASURED", "LIMIT")))
    passed = "passed" if measured["passed"] else "not passed"
    view.show(console, view.text(f"drill {measured['kind']} of {measured['mount']}: {passed}"))


def _told(what: str, value: bool, *, wanted: bool | None) -> tuple[object, ...]:
    """`wanted` None: it is told, and nothing depends on it."""
    return what, _plain("yes" if value else "no"), "", "" if wanted is None else _verdict(value is wanted)


def _plain(word: str) -> object:
    from mountd.cli import view

    return view.text(word, "default")


def _verdict(good: bool) -> str:
    return "ok" if good else "fail"
