"""The snapshot as documents: `mountd status`, `/readyz`, and the versions of a model."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from typing_extensions import TypedDict

from mountd.api.documents import SCHEMA, Schema, document
from mountd.api.documents.failures import ProblemDocument, problems
from mountd.api.documents.notify import NotifyDocument, notify
from mountd.api.documents.operations import RunningDocument
from mountd.api.documents.outbox import OutboxDocument, outbox_document
from mountd.model.content import Content
from mountd.process.child import Ring
from mountd.status import readiness
from mountd.status.snapshot import (
    AppStatus,
    ConfigStatus,
    Health,
    ModelStatus,
    MountStatus,
    Operation,
    Snapshot,
    State,
)
from mountd.text import storable
from mountd.warm.pins import PinRecord

SAID_LINES = 5
SAID_CHARACTERS = 300
NOT_WELL = (State.BACKOFF, State.FAILED)
PROBLEMS_SHOWN = 100
"""Of a version: a manifest may name 100,000 files that are not there."""


class ReasonDocument(TypedDict):
    code: str
    text: str
    layer: str
    object: str
    hint: str


class RemoteDocument(TypedDict):
    health: str


class CacheDocument(TypedDict):
    bytes_used: int
    files: int
    uploads_queued: int


class DrainDocument(TypedDict):
    files: int
    files_left: int
    bytes_left: int
    open: int


class MountDocument(TypedDict):
    state: str
    stage: str
    health: str
    path: str
    remote: str
    pid: int | None
    restarts: int
    since: str
    cache: CacheDocument
    drain: DrainDocument | None
    said: list[SaidDocument]


class LoadingDocument(TypedDict):
    """Data of `version` that are on their way to this machine."""

    version: str
    level: str
    percent: int
    bytes_done: int
    bytes_total: int
    bytes_per_s: float
    eta_s: float | None
    waits_for: str


class SourceDocument(TypedDict):
    """What says from outside which version is wanted; `error`: why it cannot be read now."""

    kind: str
    place: str
    version: str | None
    revision: str | None
    author: str
    message: str
    read: str | None
    error: str | None


class ModelDocument(TypedDict):
    """`pending`: the declared version that mountd switches to by itself as soon as it may, or tries again."""

    mount: str
    stage: str
    health: str
    current: str | None
    previous: str | None
    desired: str | None
    pending: str | None
    sync: str
    suspended: str | None
    source: SourceDocument | None
    window: str
    link: str
    target: str | None
    digest: str | None
    verified: bool
    warmed_percent: int
    level: str
    pinned: bool
    loading: LoadingDocument | None


class AppLoadDocument(TypedDict):
    """The app's own load, while it starts; totals and percent are null when no start of it is recorded."""

    percent: int | None
    files_done: int
    files_total: int | None
    bytes_done: int
    bytes_total: int | None
    bytes_per_s: float


class SaidDocument(TypedDict):
    """A line of output; cut to a bounded length, with the secrets of mountd masked as in its log."""

    time: str
    text: str


class AppDocument(TypedDict):
    """`stopped`: who has stopped it and why, until it is started or mountd restarts. `said`: what it said last, while
    it is not well."""

    state: str
    health: str
    needs: list[str]
    pid: int | None
    restarts: int
    since: str
    versions: dict[str, str]
    load: AppLoadDocument | None
    stopped: str | None
    said: list[SaidDocument]


class ScheduledSwitchDocument(TypedDict):
    """A switch for a later time: the id is for `mountd cancel`; `waits`: why it has not begun, once it is due."""

    id: int
    model: str
    version: str
    due: str
    operator: str
    reason: str
    asked: str
    waits: str


class ConfigDocument(TypedDict):
    source: str
    loaded: str
    summary: str
    problems: list[ProblemDocument]
    warnings: list[ProblemDocument]


class StatusDocument(Schema):
    version: str
    pid: int
    uptime_s: float
    ready: bool
    health: str
    reasons: list[ReasonDocument]
    remotes: dict[str, RemoteDocument]
    mounts: dict[str, MountDocument]
    models: dict[str, ModelDocument]
    apps: dict[str, AppDocument]
    outbox: dict[str, OutboxDocument]
    operation: RunningDocument | None
    operations: list[RunningDocument]
    scheduled: list[ScheduledSwitchDocument]
    config: ConfigDocument
    notify: dict[str, NotifyDocument]


class AliveDocument(Schema):
    alive: bool


class ReadyDocument(Schema):
    ready: bool
    reasons: list[ReasonDocument]


class VersionDocument(TypedDict):
    version: str
    complete: bool
    verified: bool
    bytes: int
    files: int
    level: str | None
    warmed_percent: int | None
    in_bucket: bool | None
    role: str | None
    digest: str | None
    quarantined: bool
    problems: list[str]
    problem_count: int
    changed: str | None


class VersionsDocument(Schema):
    model: str
    versions: list[VersionDocument]
    ignored: list[str]
    unlisted: str | None


def status(snapshot: Snapshot, rings: Mapping[str, Ring], *, version: str, pid: int, uptime_s: float) -> StatusDocument:
    """`rings`: the output of each mount and app, whose last lines are shown where something is wrong."""
    return document(
        StatusDocument,
        snapshot,
        schema=SCHEMA,
        version=version,
        pid=pid,
        uptime_s=round(uptime_s, 1),
        ready=readiness.is_ready(snapshot),
        health=readiness.health(snapshot),
        reasons=_reasons(snapshot),
        remotes={name: document(RemoteDocument, remote) for name, remote in readiness.remotes(snapshot).items()},
        mounts={name: _mount(mount, said(mount, rings.get(name))) for name, mount in snapshot.mounts.items()},
        models={
            name: document(
                ModelDocument,
                model,
                health=readiness.model_health(model),
                suspended=model.suspended or model.overridden,
                source=document(SourceDocument, model.source, error=model.source.cause or None)
                if model.source
                else None,
                loading=document(LoadingDocument, model.loading) if model.loading else None,
            )
            for name, model in snapshot.models.items()
        },
        apps={
            name: document(
                AppDocument,
                app,
                health=readiness.app_health(snapshot, app),
                restarts=app.unasked,
                versions=dict(app.versions),
                load=document(AppLoadDocument, app.load) if app.load else None,
                said=said(app, rings.get(name)),
            )
            for name, app in snapshot.apps.items()
        },
        outbox={name: outbox_document(outbox) for name, outbox in snapshot.outbox.items()},
        operation=_running(snapshot.operation) if snapshot.operation else None,
        operations=[_running(operation) for operation in snapshot.operations],
        scheduled=[document(ScheduledSwitchDocument, each) for each in snapshot.scheduled],
        config=config(snapshot.config),
        notify={name: notify(target) for name, target in snapshot.notify.items()},
    )


def ready(snapshot: Snapshot) -> ReadyDocument:
    return ReadyDocument(schema=SCHEMA, ready=readiness.is_ready(snapshot), reasons=_reasons(snapshot))


def _reasons(snapshot: Snapshot) -> list[ReasonDocument]:
    return [document(ReasonDocument, reason) for reason in readiness.reasons(snapshot)]


def said(thing: MountStatus | AppStatus, ring: Ring | None) -> list[SaidDocument]:
    """The last lines of what is down or degraded, also of the process before; none of what is well."""
    if ring is None or not (thing.state in NOT_WELL or thing.health is Health.DEGRADED):
        return []
    lines = ring.last(SAID_LINES)
    return [SaidDocument(time=line.time, text=storable(line.text, SAID_CHARACTERS)) for line in lines]


def _mount(mount: MountStatus, lines: list[SaidDocument]) -> MountDocument:
    return document(
        MountDocument,
        mount,
        restarts=mount.unasked,
        cache=document(CacheDocument, mount.cache),
        drain=document(DrainDocument, mount.drain) if mount.drain else None,
        said=lines,
    )


def _running(operation: Operation) -> RunningDocument:
    return document(RunningDocument, operation, **{"from": operation.from_version, "to": operation.to_version})


def config(found: ConfigStatus) -> ConfigDocument:
    return document(ConfigDocument, found, problems=problems(found.problems), warnings=problems(found.warnings))


def versions(
    model: str,
    contents: Sequence[Content],
    live: ModelStatus,
    *,
    levels: Mapping[str, str | None],
    pinned: Mapping[str, PinRecord],
    quarantined: Container[str],
    changed: Mapping[str, str],
    ignored: list[str],
    unlisted: str | None = None,
) -> VersionsDocument:
    """Those of the bucket, then the `pinned` ones of which the bucket has no more.

    `levels`: version → how much of it is on this machine; `quarantined`: digests of content that is refused; `changed`:
    version → why it is not what was live once; `ignored`: keys that cannot be paths; `unlisted`: why the bucket could
    not be listed, so that only pinned versions are known.
    """
    roles = {live.current: "current", live.previous: "previous"}
    unseen = {content.version for content in contents if not content.files} & pinned.keys()  # their look failed
    found = [
        document(
            VersionDocument,
            content,
            files=len(content.files),
            level=levels.get(content.version),
            warmed_percent=live.warmed_percent if content.version == live.current else None,
            in_bucket=True,
            role=roles.get(content.version),
            digest=content.digest or None,
            quarantined=content.digest in quarantined or content.former in quarantined,
            problems=content.problems[:PROBLEMS_SHOWN],
            problem_count=content.problem_count,
            changed=changed.get(content.version),
        )
        for content in contents
        if content.version not in unseen
    ]
    listed = {content.version for content in contents} - unseen
    found += [
        document(
            VersionDocument,
            record,
            version=version,
            complete=True,
            verified=True,  # each file was hashed before it became one of the copy
            level="pin",
            warmed_percent=None,
            in_bucket=False if unlisted is None and version not in unseen else None,
            role=roles.get(version),
            quarantined=record.digest in quarantined,
            problems=[],
            problem_count=0,
            changed=None,
        )
        for version, record in pinned.items()
        if version not in listed
    ]
    return VersionsDocument(schema=SCHEMA, model=model, versions=found, ignored=ignored, unlisted=unlisted)
