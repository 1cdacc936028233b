"""Operations as documents: what is planned, how far one is and its result, and what other requests changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from typing_extensions import TypedDict

from mountd.api.documents import SCHEMA, Schema, document
from mountd.journal.records import OperationRecord
from mountd.operation.drill import StartedDrill
from mountd.operation.drill_plan import DrillPlan, described
from mountd.operation.plan import SwitchPlan, undo
from mountd.operation.switch import PlannedOperation
from mountd.operation.sync import Paused
from mountd.process.child import Ring
from mountd.status.snapshot import Operation, Snapshot, State
from mountd.text import storable

OUTPUT_CHARACTERS = 200
"""Of an app's last line, shown beside an operation."""


class OperationErrorDocument(TypedDict):
    exit: int | None
    text: str
    hint: str


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
        "bytes_per_s": float | None,
        "started": str,
    },
)
"""One that runs, in status; `bytes_per_s` while it, or an app that it waits for, loads data."""


class OperationEntryDocument(RunningDocument):
    """One of a list; `percent` and `eta_s` are null but in progress. `due`: when a schedule becomes a switch, UTC;
    `schedule`: the id of the one that this switch was; `revision`: the commit that asked for it."""

    revision: str | None
    finished: str | None
    result: str | None
    reason: str
    duration_s: float | None
    cause: str
    due: str | None
    schedule: int | None
    error: OperationErrorDocument | None


class OperationDocument(Schema, OperationEntryDocument):
    """One that was asked for by itself."""


class ProgressDocument(TypedDict):
    """Beside an operation that runs: since when its step does and how long it may, and which app it waits for."""

    percent: int | None
    eta_s: float | None
    bytes_per_s: float | None
    step_s: float
    limit_s: float | None
    waits_for: str | None
    said: str
    killed: list[str]


class PlannedStepDocument(TypedDict):
    step: str
    text: str
    limit_s: float


class WatchDocument(TypedDict):
    for_s: float
    crashes: int


SwitchPlanDocument = TypedDict(
    "SwitchPlanDocument",
    {
        "kind": str,
        "model": str,
        "from": str | None,
        "to": str,
        "link": str,
        "target": str,
        "apps": list[str],
        "stopped": list[str],
        "gates": list[str],
        "watch": WatchDocument,
        "digests": bool,
        "force": bool,
        "steps": list[PlannedStepDocument],
        "undo": list[str],
        "limit_s": float,
        "text": list[str],
    },
)


class SwitchPlannedDocument(Schema):
    dry_run: bool
    plan: SwitchPlanDocument


class SwitchDocument(Schema):
    """`operation` is null when nothing had to be done."""

    unchanged: bool
    operation: OperationDocument | None
    timeout_s: float


class LimitsDocument(TypedDict):
    detected_s: float
    serving_again_s: float
    ready_again_s: float


class DrillPlanDocument(TypedDict):
    kind: str
    mount: str
    for_s: float | None
    apps_restarted: list[str]
    limits: LimitsDocument
    text: list[str]


class DrillDocument(Schema):
    """`operation` is null when only the plan was asked for."""

    plan: DrillPlanDocument
    operation: OperationDocument | None
    timeout_s: float


class WarmDocument(Schema):
    operation: OperationDocument
    timeout_s: float


class CancelDocument(Schema):
    operation: OperationDocument


class RestartDocument(Schema):
    name: str


class AppAskedDocument(Schema):
    """A stop or start of an app; `changed`: it was not so before."""

    name: str
    changed: bool


class SignalDocument(Schema):
    """`pid`: of the process that the signal was sent to."""

    name: str
    signal: str
    pid: int


class ScheduledDocument(Schema):
    """A switch for a later time: the operation that waits for it."""

    operation: OperationDocument


class PausedDocument(TypedDict):
    model: str
    suspended: str | None
    changed: bool


class PauseDocument(Schema):
    models: list[PausedDocument]


class WebhookDocument(Schema):
    model: str


class ReloadDocument(Schema):
    """Keys that changed, mounts and apps that restart for them, keys that need no restart."""

    changed: list[str]
    restarted: list[str]
    in_place: list[str]


def operation(record: OperationRecord) -> OperationDocument:
    return {"schema": SCHEMA, **operation_entry(record)}


def operation_entry(record: OperationRecord) -> OperationEntryDocument:
    failed = record.finished is not None and record.result not in ("committed", "passed", "done")
    error = OperationErrorDocument(exit=record.exit_code, text=record.cause, hint=record.hint)
    return document(
        OperationEntryDocument,
        record,
        **{"from": record.from_version, "to": record.to_version},
        percent=None,
        eta_s=None,
        bytes_per_s=None,
        error=error if failed else None,
    )


def progress(running: Operation, snapshot: Snapshot, rings: Mapping[str, Ring], now: float) -> ProgressDocument:
    """`now`: monotonic. The app that the step waits for is shown with its last line."""
    apps = {} if running.only_loads else {n: app for n, app in snapshot.apps.items() if running.model in app.needs}
    waits_for = next((name for name, app in apps.items() if app.state in (State.STARTING, State.STOPPING)), None)
    last = rings[waits_for].last(1) if waits_for and waits_for in rings else []
    return document(
        ProgressDocument,
        running,
        step_s=round(now - running.began, 1),
        waits_for=waits_for,
        said="".join(storable(line.text, OUTPUT_CHARACTERS) for line in last),
        killed=[app.killed for app in apps.values() if app.killed],
    )


def switch(asked: PlannedOperation, *, dry_run: bool) -> SwitchPlannedDocument | SwitchDocument:
    if dry_run:
        return SwitchPlannedDocument(schema=SCHEMA, dry_run=True, plan=switch_plan(asked.plan))
    if asked.record is None:
        return SwitchDocument(schema=SCHEMA, unchanged=True, operation=None, timeout_s=0.0)
    return SwitchDocument(
        schema=SCHEMA, unchanged=False, operation=operation(asked.record), timeout_s=asked.plan.limit_s
    )


def switch_plan(plan: SwitchPlan) -> SwitchPlanDocument:
    return document(
        SwitchPlanDocument,
        plan,
        **{"from": plan.from_version, "to": plan.to_version},
        apps=[app.name for app in plan.apps],
        gates=[gate.words for gate in plan.gates],
        watch=WatchDocument(for_s=plan.watch_s, crashes=plan.crashes),
        steps=[
            PlannedStepDocument(step=step, text=plan.text_of(step), limit_s=round(plan.limit_of(step), 3))
            for step in plan.steps
        ],
        undo=undo(plan.steps),
        limit_s=round(plan.limit_s, 3),
        text=plan.lines(),
    )


def drill(started: StartedDrill) -> DrillDocument:
    record = operation(started.record) if started.record else None
    return DrillDocument(schema=SCHEMA, plan=drill_plan(started.plan), operation=record, timeout_s=started.limit_s)


def drill_plan(plan: DrillPlan) -> DrillPlanDocument:
    return document(
        DrillPlanDocument,
        plan,
        for_s=None if plan.kind.breaks_rclone else plan.for_s,
        apps_restarted=plan.restarted,
        limits=document(LimitsDocument, plan.limits),
        text=[*described(plan)],
    )


def pause(models: Iterable[Paused]) -> PauseDocument:
    return PauseDocument(schema=SCHEMA, models=[document(PausedDocument, each) for each in models])
