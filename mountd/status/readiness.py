"""What follows from a snapshot: is all ready, how healthy is it and why not, may this app start.

Computed each time, never stored: probes, systemd, metrics, the gate and people all get the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mountd.status.snapshot import (
    CHANGES,
    AppStatus,
    ConfigStatus,
    Health,
    ModelStage,
    ModelStatus,
    MountStatus,
    Reason,
    RemoteStatus,
    Snapshot,
    State,
    Sync,
    size,
)

_ORDER = tuple(Health)
"""Best first, as Health lists them."""
PROBLEMS_SHOWN = 5
"""Of a broken file, in one sentence; `mountd config check` has them all."""


def worst(healths: Iterable[Health]) -> Health:
    return max(healths, key=_ORDER.index, default=Health.HEALTHY)


def remotes(snapshot: Snapshot) -> dict[str, RemoteStatus]:
    """Each remote as the mounts on it see their bucket; the worst known one counts."""
    best_first = (Health.UNKNOWN, *_ORDER)
    seen: dict[str, RemoteStatus] = {}
    for mount in snapshot.mounts.values():
        name, view = mount.remote.partition(":")[0], mount.backend
        seen[name] = max(seen.get(name, view), view, key=lambda each: best_first.index(each.health))
    return seen


def blockers(snapshot: Snapshot, app: str, *, besides: str = "") -> tuple[Reason, ...]:
    """Why `app` may not be started now; empty when it may. It does not judge an app that already runs.

    `besides`: a model that is left out, since the caller takes care of it.
    """
    found = []
    for need in snapshot.apps[app].needs:
        if need == besides:
            continue
        if need in snapshot.models:
            model = snapshot.models[need]
            mount = snapshot.mounts[model.mount]
            if model.linked and model.pinned:
                continue
            if not mount.usable:
                found.append(_waits_for_mount(app, model.mount, mount))
            elif not model.linked or model.mount_restarts != mount.restarts:
                progress = _loaded(model)
                text = f"{app} waits for model {need} ({model.stage}{progress})"
                found.append(Reason("waiting-for-model", text, "app", app))
        elif not snapshot.mounts[need].usable:
            found.append(_waits_for_mount(app, need, snapshot.mounts[need]))
    return tuple(found) + must_stop(snapshot, app)


def must_stop(snapshot: Snapshot, app: str) -> tuple[Reason, ...]:
    """Why `app` must even be stopped: by configuration, none runs on a mount whose cache cannot be used."""
    names = mounts_of(snapshot, snapshot.apps[app])
    return tuple(
        Reason("waiting-for-cache", f"{app} waits for the cache of mount {name}", "app", app, _CACHE_HINT)
        for name in names
        if snapshot.mounts[name].cache_broken and snapshot.mounts[name].cache_stops_apps
    )


_CACHE_HINT = "repair the cache and it starts by itself; cache.on_failure: keep lets it run meanwhile"


def _waits_for_mount(app: str, name: str, mount: MountStatus) -> Reason:
    return Reason("waiting-for-mount", f"{app} waits for mount {name} ({mount.state}, {mount.stage})", "app", app)


def is_ready(snapshot: Snapshot) -> bool:
    """Every app ready; without apps every model linked; without models every mount running.

    An app that a person has stopped is left out, as long as there is another one. An app that runs stays ready in an
    outage of the bucket, and while a mount behind it is replaced; not when that has been down for a minute.
    """
    if snapshot.stopping:
        return False
    if snapshot.apps:
        counted = [app for app in snapshot.apps.values() if app.stopped is None]
        return bool(counted) and all(
            app.state is State.RUNNING
            and not (app.follows_remounts and is_behind_a_remount(snapshot, app))
            and not _gone_mounts(snapshot, app)
            for app in counted
        )
    if snapshot.models:
        return all(model.linked for model in snapshot.models.values())
    return all(mount.usable for mount in snapshot.mounts.values())


def stopped_apps(snapshot: Snapshot, model: str) -> tuple[str, ...]:
    """Apps that need the model and that a person has stopped: nothing but a person starts them again."""
    apps = snapshot.apps.items()
    return tuple(name for name, app in apps if model in app.needs and app.stopped is not None)


def is_behind_a_remount(snapshot: Snapshot, app: AppStatus) -> bool:
    """It runs, and a mount behind it was replaced since it was started: files that it has open there are dead."""
    return app.state in (State.STARTING, State.RUNNING) and any(
        snapshot.mounts[name].restarts != restarts for name, restarts in app.mounts.items() if name in snapshot.mounts
    )


def _gone_mounts(snapshot: Snapshot, app: AppStatus) -> list[str]:
    """Mounts that the app needs and that have been down for longer than a repair takes."""
    names = [name for name in app.mounts if name in snapshot.mounts] or mounts_of(snapshot, app)
    return [name for name in names if snapshot.mounts[name].gone]


def mounts_of(snapshot: Snapshot, app: AppStatus) -> list[str]:
    """The mounts that it needs: those of pinned models are none."""
    models = snapshot.models
    names = [models[need].mount if need in models else need for need in app.needs if not _is_pinned(snapshot, need)]
    return list(dict.fromkeys(names))


def _is_pinned(snapshot: Snapshot, need: str) -> bool:
    return need in snapshot.models and snapshot.models[need].pinned


def is_behind_the_link(snapshot: Snapshot, app: AppStatus) -> bool:
    """It runs, and was started while a link, changed from outside, pointed to another version than now."""
    if app.state not in (State.STARTING, State.RUNNING):
        return False
    needed = ((snapshot.models[name], version) for name, version in app.versions.items() if name in snapshot.models)
    return any(model.linked and model.drift.reason is None and model.current != version for model, version in needed)


def is_serving_disk(snapshot: Snapshot) -> bool:
    """Whether every model that an app needs is linked, and every mount behind it running.

    Without apps all models and mounts count.
    """
    if not snapshot.apps:
        pinned = {model.mount for model in snapshot.models.values() if model.pinned}
        return all(model.linked for model in snapshot.models.values()) and all(
            mount.usable or name in pinned for name, mount in snapshot.mounts.items()
        )
    return not any(blockers(snapshot, app) for app in snapshot.apps)


def health(snapshot: Snapshot) -> Health:
    config = snapshot.config
    trouble = config.problems or config.incomplete or snapshot.journal or snapshot.lacks  # in mountd itself
    return worst(
        [
            # A bucket that is not probed yet, or not now, is left out: the mount on it says why.
            *(remote.health for remote in remotes(snapshot).values() if remote.health is not Health.UNKNOWN),
            *(mount.health for mount in snapshot.mounts.values()),
            *(model_health(model) for model in snapshot.models.values()),
            *(app_health(snapshot, app) for app in snapshot.apps.values()),
            # One that has not begun yet says nothing of what is served.
            *(each.health for each in snapshot.outbox.values() if each.health is not Health.UNKNOWN),
            *([Health.DEGRADED] if trouble else []),
        ]
    )


def model_health(model: ModelStatus) -> Health:
    """Paused is Suspended, unless something worse is there."""
    suspended = Health.SUSPENDED if model.suspended or model.overridden else Health.HEALTHY
    changed = Health.DEGRADED if model.changed or model.fails else Health.HEALTHY
    return worst([model.health, model.drift.health, changed, suspended])


def app_health(snapshot: Snapshot, app: AppStatus) -> Health:
    """One that a person has stopped is Suspended, one that is about to be restarted is Progressing at best."""
    if app.stopped is not None:
        return Health.SUSPENDED
    if app.follows_remounts and is_behind_a_remount(snapshot, app):
        return worst([app.health, Health.PROGRESSING])
    if app.state is State.RUNNING and _gone_mounts(snapshot, app):
        return worst([app.health, Health.DEGRADED])
    return app.health


def reasons(snapshot: Snapshot) -> tuple[Reason, ...]:
    """Everything that is wrong or awaited, from the bucket up to the app: the first is nearest to the cause."""
    layers = [
        *(remote.reason for remote in remotes(snapshot).values()),
        *(model.changed for model in snapshot.models.values()),
        *(of_mount(name, mount) for name, mount in snapshot.mounts.items()),
        *(of_model(name, model, snapshot) for name, model in snapshot.models.items()),
        *(reason for name, model in snapshot.models.items() for reason in out_of_sync(name, model, snapshot)),
    ]
    found = list(dict.fromkeys(reason for reason in layers if reason))
    for name in snapshot.apps:
        found.extend(of_app(name, snapshot))
    found.extend(outbox.reason for outbox in snapshot.outbox.values() if outbox.reason)
    if snapshot.journal and not any(reason.code == snapshot.journal.code for reason in found):
        found.append(snapshot.journal)
    codes = {reason.code for reason in found}
    found.extend({each.code: each for each in snapshot.lacks.values() if each.code not in codes}.values())
    return (*found, *of_config(snapshot.config), *_notify(snapshot))


def of_app(name: str, snapshot: Snapshot) -> tuple[Reason, ...]:
    """Why this app is not well, or does not run."""
    app = snapshot.apps[name]
    if app.stopped is not None:
        text = f"{name} is stopped by {app.stopped}"
        return (Reason("app-stopped", text, "app", name, f"it stays so until: mountd start {name}"),)
    if app.reason:
        return (app.reason,)
    if app.state in (State.STOPPED, State.BACKOFF):
        return blockers(snapshot, name)
    if app.state is State.STARTING:
        return (Reason("app-starting", f"{name} has started and is not ready yet", "app", name),)
    if app.follows_remounts and is_behind_a_remount(snapshot, app):
        text = f"{name} is restarted: its mount was replaced, and files open on the old one are dead"
        return (Reason("app-behind-remount", text, "app", name),)
    if gone := _gone_mounts(snapshot, app):
        text = f"{name} runs, but mount {gone[0]} has been down for more than a minute: what it reads there fails"
        return (Reason("app-without-mount", text, "app", name, f"see why with `mountd logs {gone[0]}`"),)
    return ()


def of_mount(name: str, mount: MountStatus) -> Reason | None:
    """Why this mount is not well, or does not run."""
    if mount.reason or mount.state is State.RUNNING:
        return mount.reason
    return Reason("mount-starting", f"mount {name} is {mount.state} ({mount.stage})", "mount", name)


def of_model(name: str, model: ModelStatus, snapshot: Snapshot) -> Reason | None:
    """Why this model is not live."""
    if model.reason:
        return model.reason
    if model.linked or model.drift.absent or not snapshot.mounts[model.mount].usable:
        return None
    if model.source is not None and model.desired is None:
        return None  # which version is not known yet
    return Reason("model-loading", f"model {name} is being loaded ({model.stage}{_loaded(model)})", "link", name)


def of_config(config: ConfigStatus) -> Iterator[Reason]:
    """Last: what runs does not depend on it."""
    if config.incomplete:
        text = f"only a part of {config.source} is in effect: {config.incomplete}"
        yield Reason("config-incomplete", text, "config", config.source, "restart mountd: systemctl restart mountd")
    if config.problems:
        shown = "; ".join(str(problem) for problem in config.problems[:PROBLEMS_SHOWN])
        more = len(config.problems) - PROBLEMS_SHOWN
        text = f"cannot use {config.source}, mountd keeps the previous configuration: {shown}"
        text += f"; and {more} more" if more > 0 else ""
        yield Reason("config-broken", text, "config", config.source, config.hint)
    for warning in config.warnings:
        yield Reason("config-warning", str(warning), "config", config.source)


def _notify(snapshot: Snapshot) -> Iterator[Reason]:
    """Last, and no reason to be less than Healthy: mountd's own work continues."""
    for name, target in snapshot.notify.items():
        if target.failing:
            text = f"notifications do not reach {name}: {target.last_error}"
            yield Reason("notify-failing", text, "config", name, target.hint)


def _loaded(model: ModelStatus) -> str:
    """How far a model is that is being loaded: its data, or its names."""
    if model.loading is not None and not model.linked:
        found = model.loading
        eta = f", about {found.eta_s:.0f} s left" if found.eta_s is not None else ""
        waits = f", {found.waits_for}" if found.waits_for else ""
        return f", {found.percent} % of {size(found.bytes_total)}{eta}{waits}"
    return f", {model.warmed_percent} %" if model.stage is ModelStage.LISTED else ""


def out_of_sync(name: str, model: ModelStatus, snapshot: Snapshot) -> Iterator[Reason]:
    """What differs from the desired state and stays so, and why."""
    if model.drift.reason and not (model.reason and model.reason.code == model.drift.reason.code):
        yield model.drift.reason
    busy = any(each.model == name and not each.only_loads for each in snapshot.operations)
    # While nothing follows the source a person may ask for another one, and the source still asks for its own.
    wanted = model.desired if model.overridden else model.pending or model.desired
    if model.linked and wanted != model.current and not model.follows and not busy:
        why = "it is paused" if model.suspended else model.overridden or model.window or "sync.automatic is false"
        text = f"{name} is at {model.current} and {wanted} is asked for: it waits while {why}"
        yield Reason("switch-waits", text, "link", name, f"mountd switch {wanted} --model {name}")
    yield from _source(name, model)
    if model.fails and not busy:
        text = f"{name} is at {model.current or 'no version'} and {model.desired} is asked for: {model.fails.cause}"
        hint = model.fails.hint or "`mountd history` shows more; edit the version, or fix the cause"
        yield Reason("switch-failed", text, "link", name, hint)
    if model.suspended:
        text = f"automatic changes of {name} are paused by {model.suspended}"
        yield Reason("suspended", text, "link", name, "`mountd resume` ends it; mountd still watches what runs")


def is_sync_waiting(snapshot: Snapshot, name: str) -> bool:
    """Whether the model is out of sync only until something is over that needs no person: a switch that runs, or a
    closed sync window that a pending version waits for.

    Not when a switch to that version has failed before: else its retries would hide that it is never reached.
    """
    model = snapshot.models[name]
    if model.sync is not Sync.OUT_OF_SYNC:
        return False
    failed = model.unmet.version if model.unmet is not None else None
    changes = (each for each in snapshot.operations if each.kind in CHANGES and each.model == name)
    if any(each.to_version != failed for each in changes):
        return True
    is_held = not model.automatic or model.suspended is not None or model.overridden is not None
    in_window = bool(model.window) and not is_held and model.drift.reason is None
    return in_window and model.pending not in (None, failed)


def _source(name: str, model: ModelStatus) -> Iterator[Reason]:
    """What is wrong with the source of the wanted version, and who holds another version against it."""
    source = model.source
    if source is not None and source.code:
        yield Reason(source.code, source.cause, "link", name, source.hint)
    if model.overridden:
        wanted = f", which wants {source.version}" if source is not None and source.version else ""
        text = f"automatic sync of {name} is suspended: {model.overridden}"
        yield Reason("sync-suspended", text, "link", name, f"`mountd resume` follows its source again{wanted}")


def headline(snapshot: Snapshot) -> str:
    """A sentence for systemd's STATUS=: what is served, or what is awaited."""
    if snapshot.stopping:
        drains = [f"{name} uploads, {mount.drain}" for name, mount in snapshot.mounts.items() if mount.drain]
        return f"Stopping: {'; '.join(drains)}." if drains else "Stopping."
    if snapshot.operation:
        operation = snapshot.operation
        if operation.kind == "drill":
            return f"Drill {operation.to_version} of {operation.model} is running, step {operation.step}."
        doing = _DOING.get(operation.kind, operation.kind.capitalize())
        to = "" if operation.only_loads else "to "
        return f"{doing} {operation.model} {to}{operation.to_version}, step {operation.step}."
    if is_ready(snapshot):
        return f"Ready: {gist(snapshot)}."
    why = gist(snapshot)
    return f"Not ready: {why.removesuffix('.')}." if why else "Starting."


_DOING = {"switch": "Switching", "rollback": "Rolling back", "warm": "Loading"}


def gist(snapshot: Snapshot) -> str:
    """The versions that are served when all is ready; else the first reason why it is not, "" without one."""
    if is_ready(snapshot):
        versions = [f"{name} {model.current}" for name, model in snapshot.models.items()]
        if not versions:
            return "every mount is there"
        return f"{' and '.join(versions)} {'is' if len(versions) == 1 else 'are'} live"
    why = reasons(snapshot)
    return why[0].text if why else ""
