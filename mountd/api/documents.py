"""Snapshot, versions and operations as the JSON documents that scripts rely on."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mountd.errors import Busy, ConfigError, MountdError
from mountd.journal.journal import OperationRecord
from mountd.model.content import Content
from mountd.process.child import Ring
from mountd.status import readiness
from mountd.status.snapshot import AppStatus, ModelStatus, MountStatus, Operation, Snapshot, State
from mountd.text import storable

SCHEMA = 1
PROBLEMS_SHOWN = 100
"""Of a version: a manifest may name 100,000 files that are not there."""
SAID = 200
"""Characters of an app's last line that are shown beside an operation."""


def status(snapshot: Snapshot, *, version: str, pid: int, uptime_s: float) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "version": version,
        "pid": pid,
        "uptime_s": round(uptime_s, 1),
        "ready": readiness.is_ready(snapshot),
        "health": str(readiness.health(snapshot)),
        "reasons": [reason.as_json() for reason in readiness.reasons(snapshot)],
        "remotes": {name: {"health": str(remote.health)} for name, remote in readiness.remotes(snapshot).items()},
        "mounts": {name: _mount(mount) for name, mount in snapshot.mounts.items()},
        "models": {name: _model(model) for name, model in snapshot.models.items()},
        "apps": {name: _app(app) for name, app in snapshot.apps.items()},
        "operation": snapshot.operation.as_json() if snapshot.operation else None,
        "operations": [operation.as_json() for operation in snapshot.operations],
        "config": snapshot.config.as_json(),
    }


def _mount(mount: MountStatus) -> dict[str, Any]:
    return {
        "state": str(mount.state),
        "stage": str(mount.stage),
        "health": str(mount.health),
        "path": mount.path,
        "remote": mount.remote,
        "pid": mount.pid,
        "restarts": mount.unasked,
        "since": mount.since,
        "cache": {
            "bytes_used": mount.cache.bytes_used,
            "files": mount.cache.files,
            "uploads_queued": mount.cache.uploads_queued,
        },
        "drain": mount.drain.as_json() if mount.drain else None,
    }


def _model(model: ModelStatus) -> dict[str, Any]:
    return {
        "stage": str(model.stage),
        "health": str(readiness.model_health(model)),
        "current": model.current,
        "previous": model.previous,
        "desired": model.desired,
        "sync": str(model.sync),
        "suspended": model.suspended,
        "link": model.link,
        "target": model.target,
        "digest": model.digest,
        "verified": model.verified,
        "warmed_percent": model.warmed_percent,
    }


def _app(app: AppStatus) -> dict[str, Any]:
    return {
        "state": str(app.state),
        "health": str(app.health),
        "pid": app.pid,
        "restarts": app.unasked,
        "versions": dict(app.versions),
    }


def versions(
    model: str,
    contents: Sequence[Content],
    status_: ModelStatus,
    quarantined: Container[str] = (),
    changed: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """`quarantined`: digests of content that is refused; `changed`: version → why it is not what was live once."""
    found = [
        _version(content, status_, quarantined=content.digest in quarantined or content.former in quarantined)
        | {"changed": changed.get(content.version)}
        for content in contents
    ]
    return {"schema": SCHEMA, "model": model, "versions": found}


def _version(content: Content, status_: ModelStatus, *, quarantined: bool) -> dict[str, Any]:
    role = {status_.current: "current", status_.previous: "previous"}.get(content.version)
    return {
        "version": content.version,
        "complete": content.complete,
        "verified": content.verified,
        "bytes": content.bytes,
        "files": len(content.files),
        "warmed_percent": status_.warmed_percent if role == "current" else None,
        "role": role,
        "digest": content.digest or None,
        "quarantined": quarantined,
        "problems": list(content.problems[:PROBLEMS_SHOWN]),
        "problem_count": len(content.problems),
    }


def operation(record: OperationRecord) -> dict[str, Any]:
    failed = record.finished is not None and record.result not in ("committed", "passed")
    return {
        "schema": SCHEMA,
        "id": record.id,
        "kind": record.kind,
        "model": record.model,
        "from": record.from_version,
        "to": record.to_version,
        "operator": record.operator,
        "source": record.source,
        "step": record.step,
        "percent": None,
        "eta_s": None,
        "started": record.started,
        "finished": record.finished,
        "result": record.result,
        "reason": record.reason,
        "duration_s": record.duration_s,
        "cause": record.cause,
        "error": {"exit": record.exit_code, "text": record.cause, "hint": record.hint} if failed else None,
    }


def under_way(running: Operation, snapshot: Snapshot, rings: Mapping[str, Ring], now: float) -> dict[str, Any]:
    """How far the present step is: since when, how long it may take, and for which app it waits, with its last line."""
    told: dict[str, Any] = {
        "percent": running.percent,
        "eta_s": running.eta_s,
        "step_s": round(now - running.began, 1),
        "limit_s": running.limit_s,
        "waits_for": None,
        "said": "",
        "killed": [],
    }
    for name, app in snapshot.apps.items():
        if running.model not in app.needs:
            continue
        if app.killed:
            told["killed"].append(app.killed)
        if told["waits_for"] is None and app.state in (State.STARTING, State.STOPPING):
            told["waits_for"] = name
            told["said"] = "".join(storable(line.text, SAID) for line in rings[name].last(1)) if name in rings else ""
    return told


def error(failure: MountdError) -> dict[str, Any]:
    holder = failure.holder if isinstance(failure, Busy) else ""
    told: dict[str, Any] = {
        "exit": failure.exit_code,
        "text": failure.text,
        "hint": failure.hint,
        "holder": holder,
    }
    if isinstance(failure, ConfigError):
        told["problems"] = [problem.as_json() for problem in failure.problems]
    return {"schema": SCHEMA, "error": told}
