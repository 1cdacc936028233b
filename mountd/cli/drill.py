"""`mountd drill`: shows the plan, asks for confirmation, injects the fault, and shows what was measured."""

from __future__ import annotations

import os
import sys
from math import ceil
from typing import TYPE_CHECKING

import click

from mountd.cli.choice import OneOf
from mountd.cli.completion import complete_mount
from mountd.cli.follow import print_begun, until_finished
from mountd.cli.labels import duration, joined, word
from mountd.cli.options import Options, asks_daemon, reason_option
from mountd.cli.progress import named
from mountd.cli.terminal import say
from mountd.client import api
from mountd.client.api import Document
from mountd.errors import UsageError
from mountd.i18n import ENGLISH, M_, N_, _, language_of

if TYPE_CHECKING:
    from rich.text import Text

DRILL_HEADINGS = (N_("WHAT"), N_("MEASURED"), N_("LIMIT"), "")
KINDS = ("kill", "hang", "slow", "offline")
DELAY_S = 5.0
"""How much longer each request to a slow bucket takes, as in `mountd.operation.drill_plan`."""
_FAULTS = {
    "kill": (
        N_("rclone, which serves mount {mount}, is killed, as if it had crashed."),
        N_("Reads through {mount} fail until mountd has mounted it again, a few seconds."),
    ),
    "hang": (
        N_("rclone, which serves mount {mount}, is frozen, as if it hung."),
        N_(
            "Reads through {mount} wait until mountd has noticed (at most {detected}), then fail until it is mounted "
            "again, a few seconds."
        ),
    ),
    "slow": (
        N_("For {time} each request of mount {mount} to its bucket takes {delay} longer."),
        N_("What is cached goes on at full speed; what is not, waits."),
    ),
    "offline": (
        N_("For {time} mount {mount} cannot reach its bucket."),
        N_("What is cached goes on at full speed; what is not, fails."),
    ),
}
"""Of a plan, in another language than the daemon's: what happens, and what comes of it."""
_AROUND = N_(
    "So that it happens to nobody else, {mount} is remounted through a small proxy on this machine before, and without "
    "it after."
)


@click.command()
@click.argument("kind", type=OneOf(KINDS))
@click.option(
    "--mount", metavar="NAME", shell_complete=complete_mount, help="The mount; required when there are several."
)
@click.option("--for", "for_", metavar="TIME", help="How long slow and offline last, such as 30s or 2m.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--no-wait", is_flag=True, help="Print the operation's id and return at once.")
@reason_option
@asks_daemon
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

    \b
    Examples:
      mountd drill kill
      mountd drill offline --for 1m --yes
    """
    if not yes and not sys.stdin.isatty():
        raise UsageError(
            M_(
                "cannot drill {kind} without a confirmation: it disturbs what runs, and there is no terminal to ask on",
                kind=kind,
            ),
            hint=M_("add --yes: {command}", command=f"mountd drill {kind} --yes"),
        )
    path = options.find()
    body = {"kind": kind, "mount": mount, "for": for_, "reason": reason}
    if not yes:
        _show_plan(api.post(path, "/api/v1/drill", {**body, "dry_run": True}))
        if not click.confirm(_("Continue?"), err=True):
            say(_("nothing was changed"), err=True)
            raise click.exceptions.Exit(1)
    answer = api.post(path, "/api/v1/drill", body)
    operation: Document = answer["operation"]
    if yes:
        _show_plan(answer)
    if no_wait:
        begun = _("operation {id} has begun; `mountd status` shows its progress")
        print_begun(options, operation, begun.format(id=operation["id"]))
        return
    interrupted = _("{operation} continues, and its fault ends by itself; `mountd status` shows it")
    interrupted = interrupted.format(operation=named(operation))
    ended = until_finished(path, operation, answer["timeout_s"], interrupted)
    measured: Document | None = ended["drill"]
    if measured is not None and not options.print_if_json({"schema": api.SCHEMA, "drill": measured}):
        show_measured(measured)
    if ended["result"] != "passed":
        raise api.failure(ended["error"])


def _show_plan(answer: Document) -> None:
    for line in plan_lines(answer["plan"]):
        say(line, err=True)


def plan_lines(plan: Document) -> list[str]:
    """In English as the daemon words it, else from the same values."""
    if language_of(os.environ) == ENGLISH or plan["kind"] not in _FAULTS:
        return [*plan["text"]]
    lasts = plan["for_s"] is not None
    values = {
        "apps": joined(plan["apps_restarted"]),
        "delay": duration(DELAY_S),
        "detected": duration(ceil(plan["limits"]["detected_s"])),
        "mount": plan["mount"],
        "time": duration(plan["for_s"]) if lasts else "",
    }
    apps = _("No app is restarted.")
    if plan["apps_restarted"] and lasts:
        apps = _("{apps}: restarted at both of these remounts, and not in between.")
    elif plan["apps_restarted"]:
        apps = _("{apps}: restarted, as files of the old mount that are open are dead.")
    lines = [*map(_, _FAULTS[plan["kind"]]), *([_(_AROUND)] if lasts else []), apps]
    return [line.format(**values) for line in lines]


def show_measured(measured: Document) -> None:
    from mountd.cli import view

    is_outage = measured["kind"] in ("slow", "offline")
    rows: list[tuple[object, ...]] = []
    for what, key in (
        (_("detected"), "detected_s"),
        (_("serving again after its end") if is_outage else _("serving again"), "serving_again_s"),
        (_("ready again after its end") if is_outage else _("ready again"), "ready_again_s"),
    ):
        took, limit = measured[key], measured["limits"][key]
        good = took is not None and took <= limit
        rows.append((what, word("never") if took is None else f"{took:.2f} s", f"{limit:g} s", _verdict(good)))
    unwanted = False if is_outage else None
    facts = [
        (_("rclone restarted"), measured["rclone_restarted"], unwanted),
        (_("app restarted"), measured["app_restarted"], unwanted),
    ]
    if measured["cached_reads"] is not None:
        facts.append((_("cached reads"), measured["cached_reads"], True))
    for what, value, wanted in facts:  # not judged where nothing is wanted
        yes_or_no = view.word("yes" if value else "no", "default")
        rows.append((what, yes_or_no, "", "" if wanted is None else _verdict(value is wanted)))
    console = view.console()
    view.show(console, view.table(DRILL_HEADINGS, rows, right=("MEASURED", "LIMIT")))
    passed = _("passed") if measured["passed"] else _("not passed")
    drilled = _("drill {fault} of {mount}").format(fault=measured["kind"], mount=measured["mount"])
    view.show(console, view.text(f"{drilled}: {passed}"))


def _verdict(good: bool) -> Text:
    from mountd.cli import view

    return view.word("ok" if good else "fail")
