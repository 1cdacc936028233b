"""`mountd history` and `mountd events`: who did what and why, and what happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from mountd.cli.completion import complete_code, complete_kind, complete_object, complete_operation, complete_result
from mountd.cli.labels import joined, word
from mountd.cli.options import Options, asks_daemon, model_option
from mountd.cli.terminal import say
from mountd.cli.wrap import padded
from mountd.client import api
from mountd.client.api import Document
from mountd.i18n import N_, _

PAGE = 1000
"""Of a request: for more than that, several are made."""
RETRY_S = 1.0
HEADINGS = (N_("ID"), N_("WHEN"), N_("WHO"), N_("WHAT"), N_("RESULT"), N_("SECONDS"), N_("WHY"))
STEP_HEADINGS = (N_("STEP"), N_("BEGAN"), N_("SECONDS"), N_("OUTCOME"))


def _limit_option(allowed: click.IntRange, default: int) -> Callable[..., Any]:
    text = "Maximum number of entries."
    return click.option("-n", "--limit", type=allowed, metavar="N", default=default, show_default=True, help=text)


@click.command()
@click.argument("operation", required=False, type=click.IntRange(0), metavar="[ID]", shell_complete=complete_operation)
@model_option("Only this model, or drills of this mount.")
@click.option(
    "--kind",
    metavar="KIND",
    shell_complete=complete_kind,
    help="Only this kind: switch, rollback, warm, schedule, drill, …",
)
@click.option(
    "--result",
    metavar="RESULT",
    shell_complete=complete_result,
    help="Only this result: committed, rolled-back, refused, …",
)
@_limit_option(click.IntRange(1), 20)
@click.option(
    "--before",
    type=click.IntRange(0),
    metavar="ID",
    shell_complete=complete_operation,
    help="Only operations older than this one.",
)
@asks_daemon
def history(options: Options, *, operation: int | None, limit: int, before: int | None, **filters: str | None) -> None:
    """Show past operations: who, when, why and the result.

    Newest first. With an ID, shows everything about that operation: its steps and how long each took, the cause of a
    failure and a hint, and what a drill measured.

    \b
    Examples:
      mountd history
      mountd history 12
      mountd history --kind drill -n 5
    """
    path = options.find()
    if operation is not None:
        document = api.get(path, f"/api/v1/history/{operation}")
        if not options.print_if_json(document):
            _show_operation(document)
        return
    operations = list(_pages(path, limit, before, filters))
    if options.print_if_json({"schema": api.SCHEMA, "history": operations}):
        return
    if not operations:
        filtered = any(filters.values()) or before is not None
        say(_("no such operation in the history") if filtered else _("no operations yet"), err=True)
    else:
        _show_table(operations)


def _pages(path: str, limit: int, before: int | None, filters: Mapping[str, Any]) -> Iterator[Document]:
    while limit:
        document = api.get(path, "/api/v1/history", limit=min(limit, PAGE), before=before, **filters)
        yield from document["history"]
        limit, before = limit - len(document["history"]), document["next"]
        if before is None:
            return


def _show_table(operations: list[Document]) -> None:
    from mountd.cli import view

    rows: list[tuple[object, ...]] = [
        (each["id"], _second(each["started"]), _who(each), _what(each), _result(each), _seconds(each), _why(each))
        for each in operations
    ]
    on, optional = view.console(), ("SECONDS", "WHO", "WHEN")
    view.show(on, view.table(HEADINGS, rows, right=("ID", "SECONDS"), optional=optional, width=on.width))


def _show_operation(operation: Document) -> None:
    from mountd.cli import view

    began = _("began {time}").format(time=_second(operation["started"]))
    if operation.get("finished"):
        began = joined([began, _("finished {time}").format(time=_second(operation["finished"]))])
    result, took = _result(operation), operation.get("duration_s")
    if took is not None:
        result = _("{result} after {count} s").format(result=result, count=f"{took:.1f}")
    schedule = operation.get("schedule")
    facts = [
        (_("operation"), f"{operation['id']}: {_what(operation)}"),
        (_("result"), result),
        (_("who"), _who(operation)),
        (_("when"), began),
        (_("scheduled"), _("as operation {id}").format(id=schedule) if schedule else ""),
        (_("reason"), operation.get("reason")),
        (_("cause"), operation.get("cause")),
        (_("hint"), operation.get("hint")),
    ]
    console = view.console()
    for name, value in facts:
        if value:
            view.show(console, view.text(f"{padded(name, 10)} {value}"))
    steps: list[Document] = operation.get("steps") or []
    if steps:
        rows: list[tuple[object, ...]] = [
            (word(step["step"]), _second(step["began"]), _seconds(step), word(step.get("outcome") or "not finished"))
            for step in steps
        ]
        view.show(console, view.table(STEP_HEADINGS, rows, right=("SECONDS",)))
    if operation.get("drill"):
        from mountd.cli.drill import show_measured

        show_measured(operation["drill"])


def _what(operation: Document) -> str:
    """`switch cache_hub v22 → v23`, `warm cache_hub v23`, `drill kill storage`."""
    kind, model, to = word(operation["kind"]), operation["model"], operation["to"]
    if operation["kind"] == "drill":
        return f"{kind} {to} {model}"
    if operation["kind"] == "warm":
        return f"{kind} {model} {to}"
    if operation["kind"] == "schedule":
        return _("switch {model} → {version} at {time}").format(model=model, version=to, time=operation["due"])
    return f"{kind} {model} {operation.get('from') or word('nothing')} → {to}"


def _who(operation: Document) -> str:
    """`tina`, `tina (api)`, `Ada <ada@example.com> (git 1a2b3c4d5e)`."""
    source, revision = operation.get("source"), operation.get("revision")
    if revision:
        return f"{operation['operator']} ({source} {str(revision)[:10]})"
    return f"{operation['operator']} ({source})" if source in ("api", "schedule") else str(operation["operator"])


def _result(operation: Document) -> str:
    if operation.get("result"):
        return word(operation["result"])
    return _("runs: {step}").format(step=word(operation["step"]))


def _why(operation: Document) -> str:
    return _("; ").join(str(operation[key]) for key in ("reason", "cause") if operation.get(key))


def _second(time: str) -> str:
    """As in the journal, without the milliseconds; UTC, like all times that mountd shows."""
    return f"{time.partition('.')[0].rstrip('Z')}Z"


def _seconds(timed: Document) -> str:
    seconds = timed.get("duration_s")
    return "" if seconds is None else f"{seconds:.1f}"


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Print new events as they arrive, until Ctrl-C.")
@click.option(
    "--object",
    "object_",
    metavar="NAME",
    shell_complete=complete_object,
    help="Only this remote, mount, model or app; `mountd` for mountd itself.",
)
@click.option("--code", metavar="CODE", shell_complete=complete_code, help="Only this code, such as app-backoff.")
@click.option(
    "--after", type=click.IntRange(0), metavar="ID", help="The first events after this one instead of the latest."
)
@_limit_option(click.IntRange(0, PAGE), 50)
@asks_daemon
def events(
    options: Options, *, follow: bool, object_: str | None, code: str | None, after: int | None, limit: int
) -> None:
    """Show events; with --follow, new ones too.

    Oldest first. --follow continues without a gap when mountd restarts.

    \b
    Examples:
      mountd events
      mountd events --follow
      mountd events --object webui --code app-backoff
    """
    path = options.find()
    filters: dict[str, Any] = {"object": object_, "code": code}
    if follow:
        for event in _followed(path, after, limit, filters):
            if not options.print_if_json(event, indent=None):
                say(_line(event))
        return
    document = api.get(path, "/api/v1/events", after=after, limit=limit, **filters)
    if not options.print_if_json(document):
        for event in document["events"]:
            say(_line(event))


def _followed(path: str, after: int | None, limit: int, filters: dict[str, Any]) -> Iterator[Document]:
    """Endless. After a daemon has gone away, continues after the last event that was shown."""
    from mountd.errors import Unreachable

    connected = reported = False
    while True:
        try:
            asked = {"follow": 1, "after": after, "limit": limit, **filters}
            for event in api.stream(path, "/api/v1/events", prefix=b"data: ", **asked):
                connected, reported, after = True, False, event["id"]
                yield event
            connected = True
        except Unreachable as error:
            if not connected:
                raise
            if not reported:
                say(_("{cause}; retrying").format(cause=error.text), err=True)
                reported = True
        time.sleep(RETRY_S)


def _line(event: Document) -> str:
    """The object is named once: most sentences begin with it."""
    text = str(event["text"])
    shown = text if str(event["object"]) in text else f"{event['object']}: {text}"
    return f"{event['time']} {event['code']}: {shown}"
