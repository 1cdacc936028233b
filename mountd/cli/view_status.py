"""The status document → lines for people: bucket → rclone → mount → link → app, each with its health and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from mountd.cli.labels import duration, joined, word
from mountd.cli.terminal import size
from mountd.cli.times import time_of
from mountd.cli.view import COLOURS, SHORT_DIGEST, table, text
from mountd.cli.view import word as coloured
from mountd.i18n import N_, _

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

Document = dict[str, Any]
HEADINGS = (N_("LAYER"), N_("NAME"), N_("HEALTH"), N_("STATE"))
_SAID_BY = {"rclone": "mounts", "app": "apps"}
"""Layers with output of a process → where it stands in the document."""
Line = tuple[str, str, str, str]
"""layer, name, health, state"""

_PROCESS_HEALTH = {"running": "Healthy", "backoff": "Degraded", "failed": "Degraded", "stopped": "Missing"}


def render(status: Document) -> RenderableType:
    reasons = list(status.get("reasons") or [])
    parts: list[RenderableType] = [headline(status)]
    if operation := status.get("operation"):
        parts.append(text(operation_line(operation), "cyan"))
    parts += [text(scheduled_line(each), "cyan") for each in status.get("scheduled") or []]
    rows = []
    for layer, name, health, state in lines(status):
        mine, reasons = of_layer(reasons, layer, name)
        cell = text(state)
        for reason in mine:
            _append_reason(cell, reason)
        _append_said(cell, (status.get(_SAID_BY.get(layer, "")) or {}).get(name) or {})
        rows.append((coloured(layer), name, coloured(health), cell))
    parts += [text(""), table(HEADINGS, rows)]
    for reason in reasons:  # of nothing that has a line above
        cell = Text()
        _append_reason(cell, reason)
        parts.append(cell)
    return Group(*parts)


def of_layer(reasons: list[Document], layer: str, name: str) -> tuple[list[Document], list[Document]]:
    """Those of that thing, and the others."""
    mine = [each for each in reasons if (each.get("layer"), each.get("object")) == (layer, name)]
    return mine, [each for each in reasons if each not in mine]


def lines(status: Document, now: float | None = None) -> Iterator[Line]:
    """One line for each thing, from the bucket up to the app, then what is on its way out.

    `now`, in seconds since 1970: it says for how long something is as it is, else since when.
    """
    for name, remote in (status.get("remotes") or {}).items():
        yield "bucket", name, remote.get("health", "Unknown"), ""
    mounts = (status.get("mounts") or {}).items()
    for name, mount in mounts:
        yield "rclone", name, _PROCESS_HEALTH.get(mount.get("state", ""), "Progressing"), _process(mount, now)
    for name, mount in mounts:
        yield "mount", name, mount.get("health", "Unknown"), _mount(mount)
    for name, model in (status.get("models") or {}).items():
        yield "link", name, model.get("health", "Unknown"), _model(model)
    for name, app in (status.get("apps") or {}).items():
        versions = [f"{model} {version}" for model, version in (app.get("versions") or {}).items()]
        yield "app", name, app.get("health", "Unknown"), joined([_process(app, now), _load(app.get("load")), *versions])
    for name, outbox in (status.get("outbox") or {}).items():
        yield "outbox", name, outbox.get("health", "Unknown"), _outbox(outbox)
    for name, target in (status.get("notify") or {}).items():
        yield "notify", name, target.get("health", "Unknown"), _notify(target)


def headline(status: Document) -> Text:
    ready, health = bool(status.get("ready")), str(status.get("health", "Unknown"))
    line = Text().append("● ", style="green" if ready else "red")
    line.append(_("ready") if ready else _("not ready"), style="bold green" if ready else "bold red")
    line.append(_(", ")).append(word(health), style=COLOURS.get(health, ""))
    up = duration(float(status.get("uptime_s") or 0))
    version = _("mountd {version}, pid {pid}, up {time}")
    return line.append(
        "    " + version.format(version=status.get("version"), pid=status.get("pid"), time=up), style="dim"
    )


def operation_line(operation: Document) -> str:
    return joined(
        [
            _("operation {id}: {what}").format(id=operation.get("id"), what=action(operation)),
            route(operation),
            _("step {step}").format(step=word(operation.get("step"))),
            *pace(operation),
            _("by {who} since {time}").format(who=operation.get("operator"), time=operation.get("started")),
        ]
    )


def action(operation: Document) -> str:
    """`switch cache_hub`."""
    return f"{word(operation.get('kind'))} {operation.get('model')}"


def route(operation: Document) -> str:
    """`v22 → v23`; of a warm or a drill only what it is about."""
    if operation.get("kind") in ("drill", "warm"):
        return str(operation.get("to"))
    return f"{operation.get('from') or word('nothing')} → {operation.get('to')}"


def pace(thing: Document) -> list[str]:
    """`40 %`, `120 MB/s` and `about 45 s left`, of each what is known."""
    return [
        f"{thing['percent']} %" if thing.get("percent") is not None else "",
        rate(thing.get("bytes_per_s")),
        _("about {time} left").format(time=duration(thing["eta_s"])) if thing.get("eta_s") is not None else "",
    ]


def rate(bytes_per_s: float | None) -> str:
    return f"{bytes_per_s / 1e6:.0f} MB/s" if bytes_per_s else ""


def scheduled_line(scheduled: Document) -> str:
    """`scheduled 17: cache_hub → v23, at 2026-01-31T03:00:00Z, in 2 h 5 m, by root: nightly`"""
    from mountd.cli.times import as_here, until

    left_s = until(scheduled["due"])
    reason = f": {scheduled['reason']}" if scheduled.get("reason") else ""
    what = f"{scheduled['model']} → {scheduled['version']}"
    return joined(
        [
            _("scheduled {id}: {what}").format(id=scheduled["id"], what=what),
            _("at {time}").format(time=as_here(scheduled["due"])),
            _("in {time}").format(time=duration(left_s)) if left_s > 0 else "",
            _("by {who}").format(who=scheduled["operator"]) + reason,
            _("waits: {cause}").format(cause=scheduled["waits"]) if scheduled.get("waits") else "",
        ]
    )


def _append_said(cell: Text, thing: Document) -> None:
    """What a process that is not well said last."""
    for line in thing.get("said") or []:
        cell.append_text(text(f"\n│ {line.get('text', '')}", "dim"))


def _process(thing: Document, now: float | None) -> str:
    count, since = thing.get("restarts") or 0, thing.get("since")
    for_ = _("for {time}").format(time=duration(max(0.0, now - time_of(since)))) if now is not None and since else ""
    return joined(
        [
            word(thing.get("state", "unknown")),
            for_,
            f"pid {thing['pid']}" if thing.get("pid") else "",
            _("1 restart") if count == 1 else _("{count} restarts").format(count=count) if count else "",
            _("since {time}").format(time=since) if since and not for_ else "",
        ]
    )


def _mount(mount: Document) -> str:
    cache, drain = mount.get("cache") or {}, mount.get("drain")
    queued = cache.get("uploads_queued")
    return joined(
        [
            word(mount["stage"]) if mount.get("stage") else "",
            mount.get("path"),
            _("cache {size}").format(size=size(cache["bytes_used"])) if cache.get("bytes_used") else "",
            _("{count} uploads queued").format(count=queued) if queued else "",
            _drain(drain) if drain else "",
        ]
    )


def _model(model: Document) -> str:
    current, desired, stage = model.get("current"), model.get("desired"), model.get("stage")
    percent, sync = model.get("warmed_percent"), model.get("sync")
    return joined(
        [
            _("{version} at {place}").format(version=current or _("no version"), place=model.get("link")),
            _("stage {stage}").format(stage=word(stage)) if stage != "linked" else "",
            _("wanted {version}").format(version=desired) if desired and desired != current else "",
            _("previous {version}").format(version=model["previous"]) if model.get("previous") else "",
            _("digest {digest}").format(digest=str(model["digest"])[:SHORT_DIGEST])
            if model.get("digest") and current
            else "",
            (_("verified") if model.get("verified") else _("unverified")) if current else "",
            _("warmed {percent} %").format(percent=percent) if percent is not None and current else "",
            _("pinned") if model.get("pinned") else "",
            loading_line(model.get("loading")),
            _("sync {state}").format(state=word(sync)) if sync not in {None, "Synced"} else "",
            _source(model.get("source")),
        ]
    )


def _source(source: Document | None) -> str:
    """`git wants v24 (1a2b3c4d5e by Ada <ada@example.com>)`."""
    if source is None or not source.get("version"):
        return ""
    commit, revision = "", str(source.get("revision") or "")[:10]
    if revision:
        commit = " (" + _("{revision} by {author}").format(revision=revision, author=source.get("author")) + ")"
    return _("{source} wants {version}").format(source=source.get("kind"), version=source["version"]) + commit


def loading_line(loading: Document | None) -> str:
    """`loading v23 (data) 40 % of 9 GiB, 120 MB/s, about 45 s left`."""
    if loading is None:
        return ""
    what = _("loading {version} ({level}) {percent} % of {size}").format(
        version=loading["version"],
        level=word(loading["level"]),
        percent=loading["percent"],
        size=size(loading["bytes_total"]),
    )
    waits_for = loading.get("waits_for")
    return joined(
        [what, *pace(loading)[1:], _("waits: {cause}").format(cause=waits_for) if waits_for else ""],
    )


def _load(load: Document | None) -> str:
    """`loading 40 % of 9 GiB, 4 of 10 files, 120 MB/s`; at a first start `loading, 3 GiB in 4 files read, 120 MB/s`."""
    if load is None:
        return ""
    done = load["files_done"]
    if load.get("percent") is None:
        read = _("{size} in {count} files read").format(size=size(load["bytes_done"]), count=done)
        return joined([_("loading"), read, rate(load.get("bytes_per_s"))])
    part = _("loading {percent} % of {size}").format(percent=load["percent"], size=size(load["bytes_total"]))
    files = _("{done} of {total} files").format(done=done, total=load["files_total"])
    return joined([part, files, rate(load.get("bytes_per_s"))])


def _drain(drain: Document) -> str:
    left = _("draining: {left} of {total} files left, {size}").format(
        left=drain["files_left"], total=drain["files"], size=size(drain["bytes_left"])
    )
    open_ = drain.get("open")
    return joined([left, _("{count} open for writing").format(count=open_) if open_ else ""])


def _outbox(outbox: Document) -> str:
    """`3 files wait, 12 MiB, the oldest for 5 m 3 s, 1 failed, 40 uploaded, last outputs/a.wav`."""
    pending, failed, last = outbox.get("pending") or 0, outbox.get("failed") or 0, outbox.get("last") or {}
    waiting = _("1 file waits") if pending == 1 else _("{count} files wait").format(count=pending)
    return joined(
        [
            joined([waiting, size(outbox.get("pending_bytes") or 0)]) if pending else _("nothing waits"),
            _("the oldest for {time}").format(time=duration(outbox["oldest_s"]))
            if pending and outbox.get("oldest_s")
            else "",
            _("{count} being written").format(count=outbox["writing"]) if outbox.get("writing") else "",
            _("{count} failed").format(count=failed) if failed else "",
            _("{count} uploaded").format(count=outbox.get("uploaded") or 0),
            _("last {key}").format(key=last["key"]) if last.get("key") else "",
        ]
    )


def _notify(target: Document) -> str:
    """`2 events wait, last sent 2026-01-01T00:00:00Z, it answers 500`."""
    pending, sent = target.get("pending") or 0, target.get("last_delivered")
    waiting = _("1 event waits") if pending == 1 else _("{count} events wait").format(count=pending)
    return joined(
        [
            waiting if pending else _("nothing waits"),
            _("last sent {time}").format(time=sent) if sent else "",
            str(target.get("last_error") or ""),
        ]
    )


def _append_reason(cell: Text, reason: Document) -> None:
    if cell:
        cell.append("\n")
    if code := reason.get("code"):
        cell.append_text(text(f"{code}: ", "bold yellow"))  # what the handbook's tables are keyed by
    cell.append_text(text(reason.get("text", ""), "yellow"))
    if reason.get("hint"):
        cell.append_text(text(f"\n→ {reason['hint']}", "cyan"))
