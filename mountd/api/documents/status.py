"""The snapshot as documents: `mountd status`, `/readyz`, and the versions of a model."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TypedDict

from mountd.api.documents import SCHEMA
from mountd.api.documents.failures import ProblemDocument, problem
from mountd.model.content import Content
from mountd.status import readiness
from mountd.status.snapshot import (
    AppStatus,
    ConfigStatus,
    DrainStatus,
    ModelStatus,
    MountStatus,
    Operation,
    Reason,
    Snapshot,
)

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


class ModelDocument(TypedDict):
    stage: str
    health: str
    current: str | None
    previous: str | None
    desired: str | None
    sync: str
    suspended: str | None
    link: str
    target: str | None
    digest: str | None
    verified: bool
    warmed_percent: int


class AppDocument(TypedDict):
    state: str
    health: str
    pid: int | None
    restarts: int
    versions: dict[str, str]


RunningDocument = TypedDict(
    "RunningDocument",
    {
        "id": int,
        "kind": str,
        "model": str,
        "from": str | None,
        "to": str,
        "operator": str,
        "source": str,
        "step": str,
        "percent": int | None,
        "eta_s": float | None,
        "started": str,
    },
)


class ConfigDocument(TypedDict):
    source: str
    loaded: str
    summary: str
    problems: list[ProblemDocument]
    warnings: list[ProblemDocument]


class StatusDocument(TypedDict):
    schema: int
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
    operation: RunningDocument | None
    operations: list[RunningDocument]
    config: ConfigDocument


class ReadyDocument(TypedDict):
    schema: int
    ready: bool
    reasons: list[ReasonDocument]


class VersionDocument(TypedDict):
    version: str
    complete: bool
    verified: bool
    bytes: int
    files: int
    warmed_percent: int | None
    role: str | None
    digest: str | None
    quarantined: bool
    problems: list[str]
    problem_count: int
    changed: str | None


class VersionsDocument(TypedDict):
    schema: int
    model: str
    versions: list[VersionDocument]
    ignored: list[str]


def status(snapshot: Snapshot, *, version: str, pid: int, uptime_s: float) -> StatusDocument:
    return StatusDocument(
        schema=SCHEMA,
        version=version,
        pid=pid,
        uptime_s=round(uptime_s, 1),
        ready=readiness.is_ready(snapshot),
        health=str(readiness.health(snapshot)),
        reasons=_reasons(snapshot),
        remotes={
            name: RemoteDocument(health=str(remote.health)) for name, remote in readiness.remotes(snapshot).items()
        },
        mounts={name: _mount(mount) for name, mount in snapshot.mounts.items()},
        models={name: _model(model) for name, model in snapshot.models.items()},
        apps={name: _app(app) for name, app in snapshot.apps.items()},
        operation=_running(snapshot.operation) if snapshot.operation else None,
        operations=[_running(operation) for operation in snapshot.operations],
        config=config(snapshot.config),
    )


def ready(snapshot: Snapshot) -> ReadyDocument:
    return ReadyDocument(schema=SCHEMA, ready=readiness.is_ready(snapshot), reasons=_reasons(snapshot))


def reason(found: Reason) -> ReasonDocument:
    return ReasonDocument(code=found.code, text=found.text, layer=found.layer, object=found.object, hint=found.hint)


def _reasons(snapshot: Snapshot) -> list[ReasonDocument]:
    return [reason(each) for each in readiness.reasons(snapshot)]


def _mount(mount: MountStatus) -> MountDocument:
    return MountDocument(
        state=str(mount.state),
        stage=str(mount.stage),
        health=str(mount.health),
        path=mount.path,
        remote=mount.remote,
        pid=mount.pid,
        restarts=mount.unasked,
        since=mount.since,
        cache=CacheDocument(
            bytes_used=mount.cache.bytes_used, files=mount.cache.files, uploads_queued=mount.cache.uploads_queued
        ),
        drain=_drain(mount.drain) if mount.drain else None,
    )


def _drain(drain: DrainStatus) -> DrainDocument:
    return DrainDocument(files=drain.files, files_left=drain.files_left, bytes_left=drain.bytes_left, open=drain.open)


def _model(model: ModelStatus) -> ModelDocument:
    return ModelDocument(
        stage=str(model.stage),
        health=str(readiness.model_health(model)),
        current=model.current,
        previous=model.previous,
        desired=model.desired,
        sync=str(model.sync),
        suspended=model.suspended,
        link=model.link,
        target=model.target,
        digest=model.digest,
        verified=model.verified,
        warmed_percent=model.warmed_percent,
    )


def _app(app: AppStatus) -> AppDocument:
    return AppDocument(
        state=str(app.state), health=str(app.health), pid=app.pid, restarts=app.unasked, versions=dict(app.versions)
    )


def _running(operation: Operation) -> RunningDocument:
    return {
        "id": operation.id,
        "kind": operation.kind,
        "model": operation.model,
        "from": operation.from_version,
        "to": operation.to_version,
        "operator": operation.operator,
        "source": operation.source,
        "step": operation.step,
        "percent": operation.percent,
        "eta_s": operation.eta_s,
        "started": operation.started,
    }


def config(found: ConfigStatus) -> ConfigDocument:
    return ConfigDocument(
        source=found.source,
        loaded=found.loaded,
        summary=found.summary,
        problems=[problem(each) for each in found.problems],
        warnings=[problem(each) for each in found.warnings],
    )


def versions(
    model: str,
    contents: Sequence[Content],
    live: ModelStatus,
    *,
    quarantined: Container[str],
    changed: Mapping[str, str],
    ignored: list[str],
) -> VersionsDocument:
    """`quarantined`: digests of content that is refused; `changed`: version → why it is not what was live once;
    `ignored`: keys that cannot be paths.
    """
    found = [
        _version(
            content,
            live,
            quarantined=content.digest in quarantined or content.former in quarantined,
            changed=changed.get(content.version),
        )
        for content in contents
    ]
    return VersionsDocument(schema=SCHEMA, model=model, versions=found, ignored=ignored)


def _version(content: Content, live: ModelStatus, *, quarantined: bool, changed: str | None) -> VersionDocument:
    role = {live.current: "current", live.previous: "previous"}.get(content.version)
    return VersionDocument(
        version=content.version,
        complete=content.complete,
        verified=content.verified,
        bytes=content.bytes,
        files=len(content.files),
        warmed_percent=live.warmed_percent if role == "current" else None,
        role=role,
        digest=content.digest or None,
        quarantined=quarantined,
        problems=list(content.problems[:PROBLEMS_SHOWN]),
        problem_count=len(content.problems),
        changed=changed,
    )
