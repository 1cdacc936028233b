"""Snapshot → chains: each from what is wrong with a part down to what explains it.

The reasons of a snapshot say what is wrong with each part. Here they are followed from the app to the model, the mount
and the bucket, until nothing deeper explains them: what is left are the roots. What keeps mountd from being ready comes
first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from mountd.status import readiness
from mountd.status.cause import Cause
from mountd.status.causes import cause_of_code
from mountd.status.snapshot import (
    AppStatus,
    Health,
    ModelStatus,
    MountStatus,
    Operation,
    Reason,
    Snapshot,
    State,
    Sync,
)

BY_BUCKET = frozenset({
    "mount-starting", "mount-silent", "mount-down", "mount-not-proven", "cannot-start", "reads-failing", "read-stuck",
    "reopening", "uploads-failing", "uploads-stuck", "uploads-pending",
})  # fmt: skip
"""What a bucket that is not well brings about in a mount."""
NOT_BY_SLOW = frozenset({"mount-down", "mount-not-proven", "cannot-start", "uploads-failing"})
"""Of these what a slow bucket does not bring about."""
OF_ENDPOINT = frozenset({
    "bucket-unreachable", "bucket-silent", "bucket-slow", "bucket-invalid", "credentials-expired", "clock-skew",
    "tls-failure",
})  # fmt: skip
"""What holds for each bucket of a remote, whichever one was asked."""
HIDES = frozenset({"bucket-missing", "bucket-empty", "bucket-invalid", "directory-missing"})
"""A bucket that is so has no content to be found."""
BY_DISK = frozenset({"model-unavailable", "model-loading"})
"""What a mount or bucket that is not well brings about in a model."""
READABLE = frozenset({"cache-bypassed", "uploads-failing", "uploads-pending"})
"""A mount of which this is known is read as ever."""
BY_MOUNT = frozenset({"waiting-for-mount", "waiting-for-cache", "app-behind-remount", "app-without-mount"})
_ENDS = frozenset({"app-exited", "app-killed", "app-down", "app-not-ready"})
"""An app that ends so while its mount is down, or its data cannot be read, ends for it."""
_STARTS = frozenset({"app-starting", "app-behind-remount", "model-loading", "mount-starting"})
"""Says that something begins, not why."""
_FOLLOWS_S = 60.0
"""An app that starts within this time after its mount came back starts for it."""


@dataclass(frozen=True, slots=True)
class FailedChange:
    """The last operation on `model`, which did not succeed; times are UTC, ISO 8601."""

    id: int
    model: str
    to_version: str
    result: str
    cause: str
    hint: str
    operator: str
    finished: str


@dataclass(frozen=True, slots=True)
class Background:
    """What a snapshot does not hold. `said`: last lines of mounts and apps that are not well; `since`: (code, object) →
    when the journal first had it; `crash`: the text of the event when mountd has just come back after a crash;
    `restarted`: apps that have run since then, or that a person or an operation has started."""

    said: Mapping[str, Sequence[str]] = field(default_factory=dict)
    since: Mapping[tuple[str, str], str] = field(default_factory=dict)
    failed: Sequence[FailedChange] = ()
    crash: str = ""
    restarted: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Ground:
    """One link of a chain. `because` is the reason in the status, None for what has none."""

    code: str
    object: str
    because: Reason | None = None
    facts: tuple[str, ...] = ()

    @property
    def cause(self) -> Cause:
        return cause_of_code(self.code)


Chain = tuple[Ground, ...]


class Grounds:
    """Follows what is wrong with each part of one snapshot down to what explains it."""

    def __init__(self, snapshot: Snapshot, background: Background) -> None:
        self._now = snapshot
        self._background = background
        self._remotes = readiness.remotes(snapshot)

    def all(self, *, ready: bool, health: Health) -> Iterator[Chain]:
        """What keeps it from being ready first, then everything else from the bucket up to the app."""
        if self._now.stopping:
            yield (Ground("stopping", "mountd"),)
        found = [*([] if ready else self._not_ready()), *self._everything()]
        yield from found
        if not any(found) and not (ready and health is Health.HEALTHY) and not self._now.stopping:
            yield self._vague()
        yield from self._changes()

    def _not_ready(self) -> Iterator[Chain]:
        now = self._now
        if now.apps:
            for name, app in now.apps.items():
                others_run = any(each.stopped is None for each in now.apps.values())
                if not (app.stopped is not None and others_run):
                    yield self.app(name)
        elif now.models:
            yield from (self.model(name) for name, model in now.models.items() if not model.linked)
        else:
            yield from (self.mount(name) for name, mount in now.mounts.items() if not mount.usable)

    def _everything(self) -> Iterator[Chain]:
        now = self._now
        yield from (self.remote(name) for name in self._remotes)
        yield from (_of(model.changed) for model in now.models.values())
        yield from (self.mount(name) for name in now.mounts)
        yield from (self.model(name) for name in now.models)
        for name, model in now.models.items():
            yield from (self._beneath(reason, name, model) for reason in readiness.out_of_sync(name, model, now))
        yield from (self.app(name) for name in now.apps)
        yield from (self.outbox(name) for name, each in now.outbox.items() if each.health is not Health.HEALTHY)
        yield _of(now.journal)
        yield from (_of(each) for each in now.lacks.values())
        yield from (_of(each) for each in readiness.of_config(now.config) if each.code != "config-warning")

    # -- bucket, mount ----------------------------------------------------------------------------------------------

    def remote(self, name: str) -> Chain:
        status = self._remotes.get(name)
        own = _of(status.reason if status else None, object_=name)
        on_it = (each for each, mount in self._now.mounts.items() if mount.remote.partition(":")[0] == name)
        return (*own, *self._first(map(self._drill, on_it))) if own else ()

    def mount(self, name: str) -> Chain:
        """Down to its bucket; also where only that is not well."""
        mount = self._now.mounts[name]
        remote = mount.remote.partition(":")[0]
        reason = readiness.of_mount(name, mount)
        if reason is None:
            return self._bucket(name)
        if cause_of_code(reason.code).layer == "bucket":  # a start that failed for its bucket
            return (Ground("mount-starting", name, None, _facts_of(name, mount)), Ground(reason.code, remote, reason))
        own = _ground(reason, name, _facts_of(name, mount))
        if drill := self._drill(name):
            return (own, *drill)
        beneath = self._bucket(name) if reason.code in BY_BUCKET else ()
        return (own,) if beneath and _is_slow(beneath) and reason.code in NOT_BY_SLOW else (own, *beneath)

    def _bucket(self, mount: str) -> Chain:
        """Of this mount: another one on the same remote may have another bucket."""
        status = self._now.mounts[mount]
        remote = status.remote.partition(":")[0]
        if status.backend.reason is not None:
            return (*_of(status.backend.reason, object_=remote), *self._drill(mount))
        # Without rclone it is not asked itself.
        return self._endpoint(remote) if status.backend.health is Health.UNKNOWN else ()

    def _endpoint(self, remote: str) -> Chain:
        """What is known of it by whatever bucket was asked."""
        known = self._remotes.get(remote)
        is_of_all = known is not None and known.reason is not None and known.reason.code in OF_ENDPOINT
        return self.remote(remote) if is_of_all else ()

    def outbox(self, name: str) -> Chain:
        status = self._now.outbox[name]
        own = _of(status.reason)
        by_bucket = own and own[0].code in ("outbox-waiting", "outbox-late")
        return (*own, *self._endpoint(status.remote.partition(":")[0])) if by_bucket else own

    def _drill(self, mount: str) -> Chain:
        """The one that brings it about."""
        drills = (each for each in self._now.operations if each.kind == "drill" and each.model == mount)
        return tuple(Ground("drill-running", mount, None, _progress(each)) for each in drills)

    # -- model, app -------------------------------------------------------------------------------------------------

    def model(self, name: str) -> Chain:
        """Why it is not live."""
        now, model = self._now, self._now.models[name]
        reason = readiness.of_model(name, model, now)
        if reason is None and not model.linked:
            if model.drift.absent and model.drift.reason is not None and now.mounts[model.mount].usable:
                return (_ground(model.drift.reason, name),)
            if beneath := self._unread_mount(model.mount):
                return (Ground("model-loading", name), *beneath)
            sync = readiness.out_of_sync(name, model, now)  # such as a source that does not say which version
            reason = next((each for each in sync if each.code not in ("suspended", "sync-suspended")), None)
        if reason is None:
            return () if model.linked else (Ground("model-loading", name),)
        return self._beneath(reason, name, model)

    def _beneath(self, reason: Reason, name: str, model: ModelStatus) -> Chain:
        own = _ground(reason, name)
        if reason.code in BY_DISK:
            return (own, *self._unread_mount(model.mount))
        if reason.code == "waiting-for-content":  # a bucket that answers has said so
            beneath = self._unread_mount(model.mount)
            is_hidden = not self._now.mounts[model.mount].usable or any(each.code in HIDES for each in beneath)
            return (own, *beneath) if is_hidden else (own,)
        if reason.code == "switch-waits":
            why = "suspended" if model.suspended else "sync-suspended" if model.overridden else ""
            sync = readiness.out_of_sync(name, model, self._now)
            return (own, *(Ground(each.code, name, each) for each in sync if each.code == why))
        return (own,)

    def _unread_mount(self, name: str) -> Chain:
        """What may keep its files from being read."""
        mount = self._now.mounts[name]
        is_read = mount.usable and mount.reason is not None and mount.reason.code in READABLE
        return self._bucket(name) if is_read else self.mount(name)

    def app(self, name: str) -> Chain:
        """Why it does not run, or is not well."""
        now, app = self._now, self._now.apps[name]
        reasons = readiness.of_app(name, now)
        ready = app.state is State.RUNNING and app.health is Health.HEALTHY
        if not reasons and ready:
            return ()
        reason = reasons[0] if reasons else Reason("app-starting", f"{name} is {app.state}", "app", name)
        own = _ground(reason, name, _facts_of(name, app))
        beneath: Chain = ()
        if reason.code == "waiting-for-model":
            beneath = self._first(self.model(need) for need in app.needs if need in now.models)
        elif reason.code in BY_MOUNT:
            beneath = self._first(map(self.mount, self._mounts(app, reason.code)))
        elif reason.code in _ENDS:
            down = self._first(self.mount(each) for each in self._mounts(app, "") if not now.mounts[each].usable)
            beneath = down or self._unread_data(app, reason.text)
        chain = (own, *beneath)
        return (*chain, *self._why_it_starts(name, app)) if chain[-1].code in _STARTS else chain

    def _mounts(self, app: AppStatus, code: str) -> list[str]:
        """Those that the reason may be about, worst first."""
        mounts = self._now.mounts
        names = [name for name in dict.fromkeys((*app.mounts, *readiness.mounts_of(self._now, app))) if name in mounts]
        if code == "waiting-for-cache":
            return [name for name in names if mounts[name].cache_broken]
        if code == "app-behind-remount":  # the mount serves again: its reason says why it was down
            return [name for name in names if not mounts[name].usable]
        return sorted(names, key=lambda name: mounts[name].usable)

    def _unread_data(self, app: AppStatus, fact: str) -> Chain:
        """Why it cannot read what it needs and is not on this machine; `fact`: what speaks for that."""
        for need in app.needs:
            model = self._now.models.get(need)
            if model is None or model.pinned or model.level != "metadata":
                continue
            reason, bucket = self._now.mounts[model.mount].reason, self._bucket(model.mount)
            fails = reason is not None and reason.code == "reads-failing"
            if chain := self.mount(model.mount) if fails else bucket if bucket and not _is_slow(bucket) else ():
                return (*chain[:-1], replace(chain[-1], facts=(*chain[-1].facts, fact)))
        return ()

    def _why_it_starts(self, name: str, app: AppStatus) -> Chain:
        """What began it, or keeps it from being ready: an operation, a bucket that does not give its data, a mount that
        was replaced, a crash of mountd."""
        now = self._now
        for operation in now.operations:
            if operation.kind != "drill" and not operation.only_loads and operation.model in app.needs:
                return (Ground("operation-running", operation.model, None, _progress(operation)),)
        if app.state is State.STARTING and (unread := self._unread_data(app, f"{name}: {app.state}, {app.since}")):
            return unread
        for mount in self._mounts(app, ""):
            status = now.mounts[mount]
            if drill := self._drill(mount):
                return drill
            is_replaced = app.mounts.get(mount, status.restarts) != status.restarts
            if status.fault is not None and (is_replaced or _follows(app, status)):
                return (_ground(status.fault, mount, _facts_of(mount, status)),)
        if app.fault is not None:
            return (_ground(app.fault, name),)
        if self._background.crash and name not in self._background.restarted:
            return (Ground("mountd-restarted-after-crash", "mountd", None, (self._background.crash,)),)
        return ()

    @staticmethod
    def _first(chains: Iterable[Chain]) -> Chain:
        return next((each for each in chains if each), ())

    # -- what no reason says ------------------------------------------------------------------------------------------

    def _vague(self) -> Chain:
        """Something that is not well and says nothing: it starts, or stops."""
        now = self._now
        if running := self._operation():
            return running
        for name, mount in now.mounts.items():
            if mount.health is not Health.HEALTHY or not mount.usable:
                return (Ground("mount-starting", name, None, _facts_of(name, mount)),)
        for name, model in now.models.items():
            if not model.linked or readiness.model_health(model) is not Health.HEALTHY:
                return (Ground("model-loading", name),)
        return (Ground("unexplained", "mountd"),)

    def _operation(self, model: str = "") -> Chain:
        """The one that runs, first that of `model`; none that only loads."""
        running = [each for each in self._now.operations if not each.only_loads]
        for operation in sorted(running, key=lambda each: each.model != model):
            code = "drill-running" if operation.kind == "drill" else "operation-running"
            return (Ground(code, operation.model, None, _progress(operation)),)
        return ()

    def _changes(self) -> Iterator[Chain]:
        """What is not as wanted although all is well: a version that was not reached, an operation that failed."""
        now = self._now
        for failed in self._background.failed:
            model = now.models.get(failed.model)
            if model is None or model.current == failed.to_version or model.fails:
                continue
            text = f"{failed.to_version}: {failed.cause}" if failed.cause else f"{failed.to_version}: {failed.result}"
            because = Reason("rolled-back", text, "link", failed.model, failed.hint)
            when = f"{failed.finished} {failed.operator}"
            yield (Ground("rolled-back", failed.model, because, (when,)),)
        for name, model in now.models.items():
            if model.linked and model.sync is Sync.OUT_OF_SYNC and not any(readiness.out_of_sync(name, model, now)):
                yield self._operation(name) or (Ground("switch-waits", name),)


def _is_slow(bucket: Chain) -> bool:
    return bucket[0].code == "bucket-slow"


def _follows(app: AppStatus, mount: MountStatus) -> bool:
    """Whether the app starts since its mount has come back, by the times of both."""
    try:
        passed = datetime.fromisoformat(app.since) - datetime.fromisoformat(mount.since)
    except (ValueError, TypeError):
        return False
    return abs(passed.total_seconds()) <= _FOLLOWS_S


def _ground(reason: Reason, name: str, facts: tuple[str, ...] = ()) -> Ground:
    """What the machine lacks is one cause, whatever part of mountd it was seen in; so is a journal that is not well."""
    is_of_all = cause_of_code(reason.code).layer in ("machine", "journal")
    return Ground(reason.code, "mountd" if is_of_all else name, reason, facts)


def _of(reason: Reason | None, *, object_: str = "") -> Chain:
    return (_ground(reason, object_ or reason.object),) if reason is not None else ()


def _facts_of(name: str, thing: MountStatus | AppStatus) -> tuple[str, ...]:
    stage = (str(thing.stage),) if isinstance(thing, MountStatus) else ()
    restarts = (f"restarts={thing.unasked}",) if thing.unasked else ()
    return (f"{name}: {', '.join((str(thing.state), *stage, *restarts, *([thing.since] if thing.since else ())))}",)


def _progress(operation: Operation) -> tuple[str, ...]:
    percent = f", {operation.percent} %" if operation.percent is not None else ""
    who = f"{operation.kind} {operation.to_version} ({operation.operator}, {operation.started})"
    return (f"{who}: {operation.step}{percent}",)
