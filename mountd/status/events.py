"""Two snapshots → what happened between them, as events for the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mountd import codes
from mountd.status import readiness
from mountd.status.load import LoadHistory
from mountd.status.snapshot import AppStatus, ConfigStatus, DriftStatus, ModelStatus, MountStatus, Snapshot

_Supervised = Mapping[str, MountStatus] | Mapping[str, AppStatus]


@dataclass(frozen=True, slots=True)
class Happening:
    """`code` for scripts, `object` is the name of a remote, mount, model or app, `text` for people.

    `data`: further fields for programs.
    """

    code: str
    object: str
    text: str
    data: Mapping[str, str] | None = None


def between(before: Snapshot, after: Snapshot) -> list[Happening]:
    """From the bucket up to the app; what has not changed is left out."""
    found = _remotes(before, after)
    found += _states("mount", before.mounts, after.mounts)
    for name, model in after.models.items():
        old = before.models.get(name)
        if model.linked and (old is None or not old.linked or old.current != model.current):
            found.append(Happening("model-linked", name, f"{name} is at {model.current}"))
        found += _drift(name, old.drift if old else DriftStatus(), model.drift)
        found += _content(name, old, model)
        found += _loads(name, old.loads if old else LoadHistory(), model.loads)
        found += _source(name, old, model)
    found += _states("app", before.apps, after.apps)
    for name, app in after.apps.items():
        if app.killed and (name not in before.apps or not before.apps[name].killed):
            found.append(Happening("app-ignored-signal", name, app.killed))
    found += _outboxes(before, after)
    if readiness.is_ready(before) != readiness.is_ready(after):
        code = "ready" if readiness.is_ready(after) else "not-ready"
        found.append(Happening(code, "mountd", readiness.gist(after)))
    return found + _config(before.config, after.config) + _lacks(before, after)


def _lacks(before: Snapshot, after: Snapshot) -> list[Happening]:
    """What the machine lacks, however many parts of mountd wait for it."""
    old = {reason.code: reason for reason in before.lacks.values()}
    new = {reason.code: reason for reason in after.lacks.values()}
    found = [Happening(code, "mountd", reason.text) for code, reason in new.items() if code not in old]
    return found + [
        Happening("recovered", "mountd", f"{code} is over: no part of mountd waits for it any more", {codes.OF: code})
        for code in old
        if code not in new
    ]


def _content(name: str, before: ModelStatus | None, after: ModelStatus) -> list[Happening]:
    """What a live version holds in the bucket; that of another version is no restoration."""
    known, now = before.changed if before else None, after.changed
    if now is not None and now != known:
        return [Happening(now.code, name, now.text)]
    if before is not None and known is not None and now is None and before.current == after.current:
        return [Happening("content-restored", name, f"{after.current} holds again what it was made live with")]
    return []


def _drift(name: str, before: DriftStatus, after: DriftStatus) -> list[Happening]:
    """By counting: a link may be healed between two snapshots, and while the journal is slow more than once."""
    code = after.reason.code if after.reason else "link-drifted"
    found = [Happening(code, name, after.last)] * (after.times - before.times)
    found += [Happening("link-healed", name, f"the link of {name} was put right")] * (after.heals - before.heals)
    return found


def _loads(name: str, before: LoadHistory, after: LoadHistory) -> list[Happening]:
    """By counting: data may begin to come and be here between two snapshots."""
    found = []
    if after.begun > before.begun:
        found.append(Happening("data-loading", name, f"{name} loads {after.what}"))
    if after.waits > before.waits:
        found.append(Happening("data-waits", name, f"{name}: {after.cause}"))
    if after.done > before.done:
        found.append(Happening("data-loaded", name, f"{name} has loaded {after.result}"))
    return found


def _source(name: str, before: ModelStatus | None, after: ModelStatus) -> list[Happening]:
    """What the source of the wanted version says, whether it can be read, and who holds another version against it."""
    found = []
    old, new = before.source if before else None, after.source
    if new is not None:
        if new.code and new.code != (old.code if old else ""):
            found.append(Happening(new.code, name, new.cause))
        elif old is not None and old.code and not new.code:
            found.append(Happening("desired-read", name, f"the wanted version of {name} can be read again: {new.said}"))
        if new.read is not None and (old is None or (old.version, old.revision) != (new.version, new.revision)):
            found.append(Happening("desired-declared", name, f"{new.place} wants {new.said}"))
    if after.overridden and after.overridden != (before.overridden if before else None):
        found.append(Happening("sync-suspended", name, f"automatic sync of {name} is suspended: {after.overridden}"))
    if (before.window if before else "") != after.window:
        code = "sync-window-closed" if after.window else "sync-window-opened"
        found.append(Happening(code, name, after.window or f"{name} may be switched by itself again"))
    return found


def _outboxes(before: Snapshot, after: Snapshot) -> list[Happening]:
    """Why results wait, and that they do not any more; each upload is an event of its own."""
    found = []
    for name, outbox in after.outbox.items():
        known = before.outbox[name].reason if name in before.outbox else None
        code = known.code if known else ""
        if outbox.reason is not None and outbox.reason.code != code:
            found.append(Happening(outbox.reason.code, name, outbox.reason.text))
        elif outbox.reason is None and code:
            found.append(Happening("outbox-recovered", name, f"{code} of outbox {name} is over"))
    return found


def _config(before: ConfigStatus, after: ConfigStatus) -> list[Happening]:
    """The first one to be read is no reload."""
    if after.incomplete and after.incomplete != before.incomplete:
        return [Happening("config-incomplete", after.source, f"only a part of it is in effect: {after.incomplete}")]
    if after.problems and after.problems != before.problems:
        problems = "; ".join(str(problem) for problem in after.problems[: readiness.PROBLEMS_SHOWN])
        return [Happening("config-broken", after.source, problems)]
    if before.loaded and after.loaded != before.loaded:
        return [Happening("config-reloaded", after.source, after.summary)]
    if before.problems and not after.problems:
        return [Happening("config-reloaded", after.source, "the file is valid again, and says what is in use")]
    return []


def _remotes(before: Snapshot, after: Snapshot) -> list[Happening]:
    old, found = readiness.remotes(before), []
    for name, remote in readiness.remotes(after).items():
        known = old[name].reason if name in old else None
        if (known and known.code) == (remote.reason and remote.reason.code):
            continue
        if remote.reason:
            found.append(Happening(remote.reason.code, name, remote.reason.text))
        elif known:
            found.append(Happening("bucket-answers", name, f"{name} answers again"))
    return found


def _states(kind: str, before: _Supervised, after: _Supervised) -> list[Happening]:
    found = []
    for name, status in after.items():
        old = before.get(name)
        if old is None or old.state is status.state:
            continue
        why = f": {status.reason.text}" if status.reason else ""
        found.append(Happening(f"{kind}-{status.state}", name, f"{name} is {status.state}{why}"))
    return found
