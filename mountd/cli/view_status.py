"""The status document → lines for people: bucket → rclone → mount → link → app, each with its health and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from mountd.cli.terminal import size
from mountd.cli.view import COLOURS, SHORT_DIGEST, duration, table, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

Document = dict[str, Any]
_SAID_BY = {"rclone": "mounts", "app": "apps"}
"""Layers with output of a process → where it stands in the document."""
Line = tuple[str, str, str, str]
"""layer, name, health, state"""

_PROCESS_HEALTH = {"running": "Healthy", "backoff": "Degraded", "failed": "Degraded", "stopped": "Missing"}


def render(status: Document) -> RenderableType:
    reasons = list(status.get("reasons") or [])
    parts: list[RenderableType] = [_headline(status)]
    if operation := status.get("operation"):
        parts.append(_operation_line(operation))
    parts += [_scheduled_line(each) for each in status.get("scheduled") or []]
    rows = []
    for layer, name, health, state in lines(status):
        mine = [reason for reason in reasons if (reason.get("layer"), reason.get("object")) == (layer, name)]
        reasons = [reason for reason in reasons if reason not in mine]
        cell = text(state)
        for reason in mine:
            _append_reason(cell, reason)
        _append_said(cell, (status.get(_SAID_BY.get(layer, "")) or {}).get(name) or {})
        rows.append((layer, name, text(health), cell))
    parts += [text(""), table(("LAYER", "NAME", "HEALTH", "STATE"), rows)]
    for reason in reasons:  # of nothing that has a line above
        cell = Text()
        _append_reason(cell, reason)
        parts.append(cell)
    return Group(*parts)


def lines(status: Document) -> Iterator[Line]:
    """One line for each thing, from the bucket up to the app."""
    for name, remote in (status.get("remotes") or {}).items():
        yield "bucket", name, remote.get("health", "Unknown"), ""
    mounts = (status.get("mounts") or {}).items()
    for name, mount in mounts:
        yield "rclone", name, _PROCESS_HEALTH.get(mount.get("state", ""), "Progressing"), _process(mount)
    for name, mount in mounts:
        cache = mount.get("cache") or {}
        facts = [mount.get("stage"), mount.get("path")]
        if cache.get("bytes_used"):
            facts.append(f"cache {size(cache['bytes_used'])}")
        if cache.get("uploads_queued"):
            facts.append(f"{cache['uploads_queued']} uploads queued")
        if drain := mount.get("drain"):
            facts.append(_drain(drain))
        yield "mount", name, mount.get("health", "Unknown"), _joined(facts)
    for name, model in (status.get("models") or {}).items():
        yield "link", name, model.get("health", "Unknown"), _model(model)
    for name, app in (status.get("apps") or {}).items():
        versions = [f"{model} {version}" for model, version in (app.get("versions") or {}).items()]
        yield "app", name, app.get("health", "Unknown"), _joined([_process(app), _load(app.get("load")), *versions])
    for name, outbox in (status.get("outbox") or {}).items():
        yield "outbox", name, outbox.get("health", "Unknown"), _outbox(outbox)


def _headline(status: Document) -> Text:
    ready, health = bool(status.get("ready")), str(status.get("health", "Unknown"))
    line = Text().append("● ", style="green" if ready else "red")
    line.append("ready" if ready else "not ready", style="bold green" if ready else "bold red")
    line.append(", ").append(health, style=COLOURS.get(health, ""))
    up = duration(float(status.get("uptime_s") or 0))
    return line.append(f"    mountd {status.get('version')}, pid {status.get('pid')}, up {up}", style="dim")


def _operation_line(operation: Document) -> Text:
    to_alone = operation.get("kind") in ("drill", "warm")
    facts = [
        f"operation {operation.get('id')}: {operation.get('kind')} {operation.get('model')}",
        str(operation.get("to")) if to_alone else f"{operation.get('from') or 'nothing'} → {operation.get('to')}",
        f"step {operation.get('step')}",
        f"{operation['percent']} %" if operation.get("percent") is not None else "",
        f"{operation['bytes_per_s'] / 1e6:.0f} MB/s" if operation.get("bytes_per_s") else "",
        f"about {duration(operation['eta_s'])} left" if operation.get("eta_s") is not None else "",
        f"by {operation.get('operator')} since {operation.get('started')}",
    ]
    return text(_joined(facts), "cyan")


def _scheduled_line(scheduled: Document) -> Text:
    """`scheduled 17: cache_hub → v23, at 2026-01-31T03:00:00Z, in 2 h 5 m, by root: nightly`"""
    from mountd.cli.times import as_here, until

    left_s = until(scheduled["due"])
    reason = f": {scheduled['reason']}" if scheduled.get("reason") else ""
    facts = [
        f"scheduled {scheduled['id']}: {scheduled['model']} → {scheduled['version']}",
        f"at {as_here(scheduled['due'])}",
        f"in {duration(left_s)}" if left_s > 0 else "",
        f"by {scheduled['operator']}{reason}",
        f"waits: {scheduled['waits']}" if scheduled.get("waits") else "",
    ]
    return text(_joined(facts), "cyan")


def _append_said(cell: Text, thing: Document) -> None:
    """What a process that is not well said last."""
    for line in thing.get("said") or []:
        cell.append_text(text(f"\n│ {line.get('text', '')}", "dim"))


def _process(thing: Document) -> str:
    count = thing.get("restarts") or 0
    restarts = f"{count} restart{'s' if count != 1 else ''}" if count else ""
    since = f"since {thing['since']}" if thing.get("since") else ""
    pid = f"pid {thing['pid']}" if thing.get("pid") else ""
    return _joined([thing.get("state", "unknown"), pid, restarts, since])


def _model(model: Document) -> str:
    current, desired = model.get("current"), model.get("desired")
    facts = [
        f"{current or 'no version'} at {model.get('link')}",
        f"stage {model.get('stage')}" if model.get("stage") != "linked" else "",
        f"wanted {desired}" if desired and desired != current else "",
        f"previous {model['previous']}" if model.get("previous") else "",
        f"digest {str(model['digest'])[:SHORT_DIGEST]}" if model.get("digest") and current else "",
        ("verified" if model.get("verified") else "unverified") if current else "",
        f"warmed {model['warmed_percent']} %" if model.get("warmed_percent") is not None and current else "",
        "pinned" if model.get("pinned") else "",
        _loading(model.get("loading")),
        f"sync {model['sync']}" if model.get("sync") not in {None, "Synced"} else "",
        _source(model.get("source")),
    ]
    return _joined(facts)


def _source(source: Document | None) -> str:
    """`git wants v24 (1a2b3c4d5e by Ada <ada@example.com>)`."""
    if source is None or not source.get("version"):
        return ""
    commit = f" ({str(source['revision'])[:10]} by {source.get('author')})" if source.get("revision") else ""
    return f"{source.get('kind')} wants {source['version']}{commit}"


def _loading(loading: Document | None) -> str:
    """`loading v23 (data) 40 % of 9 GiB, 120 MB/s, about 45 s left`."""
    if loading is None:
        return ""
    facts = [
        f"loading {loading['version']} ({loading['level']}) {loading['percent']} % of {size(loading['bytes_total'])}",
        f"{loading['bytes_per_s'] / 1e6:.0f} MB/s" if loading.get("bytes_per_s") else "",
        f"about {duration(loading['eta_s'])} left" if loading.get("eta_s") is not None else "",
        f"waits: {loading['waits_for']}" if loading.get("waits_for") else "",
    ]
    return _joined(facts)


def _load(load: Document | None) -> str:
    """`loading 40 % of 9 GiB, 4 of 10 files, 120 MB/s`; at a first start `loading, 3 GiB in 4 files read, 120 MB/s`."""
    if load is None:
        return ""
    rate = f"{load['bytes_per_s'] / 1e6:.0f} MB/s" if load.get("bytes_per_s") else ""
    if load.get("percent") is None:
        return _joined(["loading", f"{size(load['bytes_done'])} in {load['files_done']} files read", rate])
    files = f"{load['files_done']} of {load['files_total']} files"
    return _joined([f"loading {load['percent']} % of {size(load['bytes_total'])}", files, rate])


def _outbox(outbox: Document) -> str:
    """`3 files (2 MiB) wait, the oldest for 20 s, 97 uploaded, last outputs/spk_1.wav at …`."""
    waiting = outbox.get("pending") or 0
    oldest = f", the oldest for {duration(outbox['oldest_s'])}" if outbox.get("oldest_s") else ""
    last = outbox.get("last") or {}
    facts = [
        f"{waiting} file{'s' if waiting != 1 else ''} ({size(outbox['pending_bytes'])}) to upload{oldest}"
        if waiting
        else "",
        f"{outbox['writing']} being written" if outbox.get("writing") else "",
        f"{outbox.get('uploaded', 0)} uploaded",
        f"{outbox['failed']} failed" if outbox.get("failed") else "",
        f"last {last['key']} at {last['time']}" if last else "",
    ]
    return _joined(facts)


def _drain(drain: Document) -> str:
    open_ = f", {drain['open']} open for writing" if drain.get("open") else ""
    return f"draining: {drain['files_left']} of {drain['files']} files left, {size(drain['bytes_left'])}{open_}"


def _joined(facts: list[Any]) -> str:
    return ", ".join(str(fact) for fact in facts if fact)


def _append_reason(cell: Text, reason: Document) -> None:
    if cell:
        cell.append("\n")
    if code := reason.get("code"):
        cell.append_text(text(f"{code}: ", "bold yellow"))  # what the handbook's tables are keyed by
    cell.append_text(text(reason.get("text", ""), "yellow"))
    if reason.get("hint"):
        cell.append_text(text(f"\n→ {reason['hint']}", "cyan"))
