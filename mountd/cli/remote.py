"""The commands that ask the daemon over its socket; what is slow to import is imported where it is used."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from mountd.cli.completion import complete_condition, complete_thing
from mountd.cli.labels import joined, word
from mountd.cli.options import Options, asks_daemon, model_option, timeout_option
from mountd.cli.terminal import can_move, say, size
from mountd.client import api
from mountd.i18n import N_, _

BUCKET_LIMIT_S = 330.0
"""For an answer that comes after a look at the bucket, which mountd itself gives 300 s."""
VERSION_HEADINGS = (
    N_("VERSION"), N_("ROLE"), N_("COMPLETE"), N_("VERIFIED"), N_("SIZE"), N_("FILES"), N_("LEVEL"), N_("DIGEST"),
    N_("WRONG"),
)  # fmt: skip
VERSION_OPTIONAL = ("FILES", "VERIFIED", "SIZE", "LEVEL", "DIGEST")
"""The digest goes last: nothing else says whether two versions are the same."""
_model_option = model_option("The model; required when there are several.")


@click.command()
@click.option("--watch", is_flag=True, help="Stay, and show what changes, until q or Ctrl-C.")
@asks_daemon
def status(options: Options, watch: bool) -> None:
    """Show the health of each layer from the bucket to the app, with reasons.

    Exits 0 when ready and 1 when not. A ready app stays ready during an outage of the bucket. --watch fills the
    terminal: layers, throughput, cache, what is loaded, the running operation and the last events, also while mountd
    restarts. Where stdout is no terminal, it prints the status every second.

    \b
    Examples:
      mountd status
      mountd status --watch
      mountd status -H ada@gpu-1 -o json
    """
    if watch:
        _watch_status(options)
        return
    document = api.get(options.find(), "/api/v1/status")
    if not options.print_if_json(document):
        from mountd.cli import view, view_status

        view.show(view.console(), view_status.render(document))
    if not document.get("ready"):
        raise click.exceptions.Exit(1)


def _watch_status(options: Options) -> None:
    from mountd.cli.follow import watch

    if options.json:
        path = options.find()
        watch(lambda: options.print_json(api.get(path, "/api/v1/status"), indent=None))
        return
    if can_move(sys.stdout):
        from mountd.cli import screen

        screen.watch(options)
        return
    from mountd.cli import view, view_status
    from mountd.errors import MountdError

    console = view.console()

    def render() -> Any:
        try:
            return view_status.render(api.get(options.find(), "/api/v1/status"))
        except MountdError as error:  # a restart of the daemon is worth watching too
            return view.text(f"{error.text}\n→ {error.hint}" if error.hint else error.text, "red")

    watch(lambda: view.show(console, render()))


@click.command()
@_model_option
@asks_daemon
def versions(options: Options, model: str | None) -> None:
    """List the versions in the bucket, and those pinned on this machine.

    Shows whether each is complete, whether a manifest confirms that, its size, how much of it is on this machine
    (metadata, data or pin), and whether it is the current or the previous version; the last column names what is wrong.
    Lists the bucket, which can take minutes when it is slow. While it cannot be listed, shows the pinned versions, and
    exits 1.

    \b
    Examples:
      mountd versions
      mountd versions --model cache_hub -o json
    """
    document = api.get(options.find(), "/api/v1/versions", timeout_s=BUCKET_LIMIT_S, model=model)
    if not options.print_if_json(document):
        _show_versions(document)
    if document.get("unlisted"):
        raise click.exceptions.Exit(1)


def _show_versions(document: dict[str, Any]) -> None:
    from mountd.cli import view

    def row(entry: dict[str, Any]) -> tuple[object, ...]:
        digest = str(entry.get("digest") or "").removeprefix("sha256:")[: view.SHORT_DIGEST]
        return (
            entry["version"],
            word(entry.get("role") or ""),
            view.word("yes") if entry.get("complete") else view.word("no", "red"),
            view.word("yes" if entry.get("verified") else "no", "default"),
            size(entry["bytes"]),
            entry.get("files") if entry.get("files") is not None else "",
            _level(entry),
            digest,
            _wrong(entry),
        )

    rows = [row(entry) for entry in document.get("versions") or []]
    for ignored in document.get("ignored") or []:
        say(_("left out, as it cannot be a path: {key}").format(key=ignored), err=True)
    if document.get("unlisted"):
        say(_("only the pinned versions are listed: {cause}").format(cause=document["unlisted"]), err=True)
    if not rows:
        say(_("no versions of {model} in the bucket").format(model=document.get("model")), err=True)
        return
    on = view.console()
    right = ("SIZE", "FILES")
    view.show(on, view.table(VERSION_HEADINGS, rows, right=right, optional=VERSION_OPTIONAL, width=on.width))


def _level(entry: dict[str, Any]) -> str:
    """While names are being loaded, how far."""
    percent = entry.get("warmed_percent")
    if percent is not None and percent < 100:
        return f"{word('metadata')} {percent} %"
    return word(entry.get("level") or "")


def _wrong(entry: dict[str, Any]) -> str:
    problems = entry.get("problems") or []
    count = entry.get("problem_count", len(problems))
    more = _(", and {count} more").format(count=count - 1) if count > 1 else ""
    said = [
        _("not in the bucket") if entry.get("in_bucket") is False else "",
        _("quarantined") if entry.get("quarantined") else "",
        str(entry.get("changed") or ""),
        f"{problems[0]}{more}" if problems else "",
    ]
    return _("; ").join(each for each in said if each)


@click.command()
@click.option(
    "--for", "condition", required=True, metavar="ready|version=V|operation=ID", shell_complete=complete_condition,
    help="The whole system is ready, a version is live and unchanged, or an operation has finished.",
)  # fmt: skip
@_model_option
@timeout_option("Stop waiting after this time (exit 4).", default="5m")
@asks_daemon
def wait(options: Options, condition: str, model: str | None, timeout: float) -> None:
    """Wait until mountd is ready, a version is live or an operation has finished.

    For scripts: may be called before the daemon has started. Exits 4 on timeout, with the reasons, and 8 when no daemon
    answers by then. For an operation, shows the progress and exits like the command that began it: 0 on success, 5 when
    it was rolled back. For a version, ends once a switch to it has failed, and exits as that does (5 rolled back, 7
    refused), unless mountd tries again by itself or another switch to it is scheduled.

    \b
    Examples:
      mountd wait --for ready --timeout 10m
      mountd wait --for version=v23
      mountd wait --for operation=7
    """
    kind, _sign, value = condition.partition("=")
    fine = condition == "ready" or (kind == "version" and value) or (kind == "operation" and value.isdecimal())
    if not fine:
        raise click.UsageError(f"--for {condition!r}: write ready, version=v23 or operation=7")
    if kind == "version":
        from mountd.settings import names

        names.check_version(value)
    from mountd.cli.follow import wait_for_operation
    from mountd.cli.waiting import wait_for

    if kind == "operation":
        wait_for_operation(options, int(value), timeout)
        return
    document = wait_for(options, condition, model, timeout)
    if not options.print_if_json(document):
        say(_("ready") if condition == "ready" else _("{version} is live").format(version=value))


@click.command()
@click.argument("name", required=False, shell_complete=complete_thing)
@click.option("-f", "--follow", is_flag=True, help="Print new lines as they arrive, until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0),
    metavar="N",
    help="Maximum number of lines.  [default: 100; with --since all]",
)
@click.option(
    "--since",
    metavar="TIME",
    help="Only lines from this long ago on, such as 90s or 10m, or from a time on: 03:00, 2026-01-31T03:00.",
)
@click.option("-p", "--previous", is_flag=True, help="Output of the previous process, to see why it exited.")
@asks_daemon
def logs(
    options: Options, *, name: str | None, follow: bool, lines: int | None, since: str | None, previous: bool
) -> None:
    """Show recent output of rclone and of the app.

    NAME is a mount or an app; without it, all of them. An unfinished line, such as a progress bar, is shown as it is
    now. mountd keeps 2,000 lines of each, and 500 of the previous process. A time without a zone is one of this
    machine.

    \b
    Examples:
      mountd logs webui --since 10m
      mountd logs webui --previous --since 03:00
      mountd logs storage --follow
    """
    chosen: dict[str, Any] = {"name": name, "lines": lines, "previous": 1 if previous else None}
    if since is not None:
        from mountd.cli.times import seconds_ago

        chosen["since"] = seconds_ago(since)

    def show(line: dict[str, Any]) -> None:
        say(f"{line.get('time')} {line.get('name')}: {line.get('text')}")

    if follow:
        for line in api.stream(options.find(), "/api/v1/logs", **chosen, follow=1):
            if not options.print_if_json(line, indent=None):
                show(line)
        return
    document = api.get(options.find(), "/api/v1/logs", **chosen)
    if not options.print_if_json(document):
        for line in document["logs"]:
            show(line)


@click.command()
@click.argument("name", shell_complete=complete_thing)
@timeout_option("Stop waiting after this time (exit 4; mountd keeps trying).", default="15m")
@asks_daemon
def restart(options: Options, name: str, timeout: float) -> None:
    """Restart a mount or an app, and wait until it is running.

    Restarting a mount also restarts its apps, unless their restart.after leaves out `remount`. Exits 1 when it does not
    start.

    \b
    Examples:
      mountd restart storage
      mountd restart webui --timeout 5m
    """
    from mountd.cli.follow import restart as restart_and_wait

    now = restart_and_wait(options, name, timeout)
    if not options.print_if_json({"schema": api.SCHEMA, "name": name, "status": now}):
        say(joined([_("{name} is running").format(name=name), f"pid {now['pid']}" if now.get("pid") else ""]))


@click.command()
@timeout_option("Stop waiting after this time (exit 4; the reload continues).", default="5m")
@asks_daemon
def reload(options: Options, timeout: float) -> None:
    """Load the configuration file again.

    Prints what changed and what restarts. Exits 2 with every problem, and keeps the previous configuration, when the
    file is invalid or a change needs a restart of mountd. mountd also reloads by itself when the file or a secret
    changes.

    \b
    Examples:
      mountd reload
    """
    from mountd.errors import StillRunning, Unreachable

    began = time.monotonic()
    try:
        answer = api.post(options.find(), "/api/v1/reload", {}, timeout_s=timeout)
    except Unreachable:
        if time.monotonic() - began < timeout:
            raise
        raise StillRunning("the reload continues after --timeout", hint="`mountd status` shows its progress") from None
    if options.print_if_json(answer):
        return
    if not answer["changed"]:
        config = api.get(options.find(), "/api/v1/status").get("config") or {}
        last = _("; that reload {summary}").format(summary=config["summary"]) if config.get("summary") else ""
        say(_("nothing has changed since {time}").format(time=config.get("loaded")) + last)
        return
    from mountd.cli import view

    rows = [(place, reload_effect(place, answer["in_place"], answer["restarted"])) for place in answer["changed"]]
    view.show(view.console(), view.table((N_("CHANGED"), N_("EFFECT")), rows))
    say(_("restarted: {names}").format(names=joined(answer["restarted"]) or word("nothing")), err=True)


def reload_effect(place: str, in_place: Sequence[str], restarted: Sequence[str]) -> str:
    """What the changed key at `place` caused, as far as one key shows it."""
    section, _dot, rest = place.partition(".")
    name, _dot, key = rest.partition(".")
    if place in in_place:
        return _("in place")
    if section in ("remotes", "mounts", "models", "apps") and not key:
        return _("added or removed")
    if name in restarted:
        return _("restarts {names}").format(names=name)
    return _("restarts {names}").format(names=joined([*restarted])) if restarted else _("in place")
