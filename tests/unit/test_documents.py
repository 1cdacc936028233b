"""The JSON that scripts rely on: each document is as in documents.json, and stays small whatever the bucket holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mountd.api.documents import (
    access,
    diff,
    document,
    explain,
    failures,
    history,
    notify,
    operations,
    session,
    status,
    traffic,
)
from mountd.cli import debug as debug_command
from mountd.cli import init as init_command
from mountd.cli import publish as publish_command
from mountd.cli.bundle import Bundle
from mountd.errors import Busy, ConfigError, MountdError, NotFound, Problem
from mountd.journal.records import Drilled, EventRecord, OperationRecord, StepRecord
from mountd.model.content import Content
from mountd.model.survey import FileList
from mountd.operation import drill_plan, plan
from mountd.operation.diff import Compared
from mountd.operation.switch import PlannedOperation
from mountd.operation.sync import Paused
from mountd.process.child import Line, Ring
from mountd.publish.run import Published
from mountd.settings.redaction import Redactor
from mountd.status.explain import explain as explained
from mountd.status.load import AppLoad, LoadStatus
from mountd.status.meters import MountMeters
from mountd.status.notify import NotifyStatus
from mountd.status.results import OutboxStatus
from mountd.status.snapshot import (
    AppStatus,
    CacheStatus,
    ConfigStatus,
    DrainStatus,
    Health,
    ModelStage,
    ModelStatus,
    MountStage,
    MountStatus,
    Operation,
    Reason,
    RemoteStatus,
    ScheduledSwitch,
    Snapshot,
    State,
    Sync,
)
from mountd.status.source import SourceStatus
from mountd.warm.access import AccessProfile, AppStart, OpenedFile
from mountd.warm.pins import PinRecord

FROZEN = Path(__file__).with_name("documents.json")

REASON = Reason("bucket-down", "cannot list store: no route to host", "bucket", "store", "look at the network")
MOUNT = MountStatus(
    path="/mnt/models",
    remote="store:models",
    state=State.RUNNING,
    stage=MountStage.READY,
    health=Health.DEGRADED,
    pid=4711,
    restarts=3,
    unasked=2,
    since="2026-01-02T03:04:05Z",
    cache=CacheStatus(bytes_used=1_234_567, files=89, uploads_queued=2, limit_bytes=2_000_000),
    backend=RemoteStatus(Health.DEGRADED, REASON),
    drain=DrainStatus(files=5, files_left=3, bytes_left=1_048_576, open=1),
)
SOURCE = SourceStatus(
    *("git", "https://git.example.com/deploy.git (main: tts/version)", "v23", "1a2b3c"),
    author="Ada <ada@example.com>",
    message="Deliver v23",
    read="2026-01-02T03:00:00Z",
    code="desired-unreachable",
    cause="the server cannot be reached",
)
MODEL = ModelStatus(
    mount="storage",
    link="/srv/hub",
    stage=ModelStage.LINKED,
    health=Health.HEALTHY,
    current="v22",
    previous="v21",
    desired="v23",
    sync=Sync.OUT_OF_SYNC,
    target="/mnt/models/hub_v22",
    digest="sha256:0123456789abcdef",
    verified=True,
    warmed_percent=100,
    mount_restarts=3,
    suspended="tina: a demonstration",
    source=SOURCE,
    window="no window allows it now",
    level="data",
    loading=LoadStatus("v22", "pin", 300, 1000, 50.0, 14.0, "the bucket is away"),
)
APP = AppStatus(
    needs=("hub",),
    state=State.STARTING,
    health=Health.PROGRESSING,
    pid=4712,
    restarts=4,
    unasked=1,
    since="2026-01-02T03:05:06Z",
    versions={"hub": "v22"},
    mounts={"storage": 3},
    killed="webui ignored SIGTERM for 30 s and was killed",
    load=AppLoad(3, 450, 9, 1000, 25.0),
)
OPERATION = Operation(
    id=7,
    kind="switch",
    model="hub",
    from_version="v22",
    to_version="v23",
    operator="tina",
    source="cli",
    step="ready",
    started="2026-01-02T03:04:00Z",
    percent=40,
    eta_s=12.5,
    began=100.0,
    limit_s=900.0,
    bytes_per_s=2e6,
)
SCHEDULED = ScheduledSwitch(9, "hub", "v24", "2026-01-03T03:00:00Z", "tina", "nightly", "2026-01-02T03:04:00.123Z")
WARNING = Problem("mounts.storage.options.checkers", 12, "has no effect on a mount")
CONFIG = ConfigStatus(
    source="/etc/mountd/mountd.yaml",
    loaded="2026-01-02T03:00:00Z",
    summary="changed models.hub.version and restarted nothing",
    problems=(Problem("models.hub.keep", 7, "must be 2 or more"), Problem("", 0, "is empty")),
    hint="mountd config check",
    warnings=(WARNING,),
    incomplete="the journal cannot be read",
)
OUTBOX = OutboxStatus(
    *("/srv/outputs", "store:results/outputs", Health.HEALTHY),
    pending=2,
    pending_bytes=4096,
    writing=1,
    uploaded=97,
    failed=1,
    failures=3,
    last_key="outputs/a.wav",
    last_time="2026-01-02T03:04:05Z",
    last_compared=("size", "md5", "sha256"),
)
SNAPSHOT = Snapshot(
    mounts={"storage": MOUNT, "plain": MountStatus("/mnt/plain", "other:")},
    models={"hub": MODEL, "voice": ModelStatus(mount="plain", link="/srv/voice")},
    apps={"webui": APP, "api": AppStatus(stopped="tina: a demonstration")},
    outbox={"results": OUTBOX, "other": OutboxStatus("/srv/other", "store:other")},
    operation=OPERATION,
    operations=(OPERATION,),
    scheduled=(SCHEDULED,),
    config=CONFIG,
    notify={
        "ops": NotifyStatus(last_delivered="2026-01-02T03:04:05Z", messages=7),
        "people": NotifyStatus(failing=True, pending=3, last_error="cannot deliver", hint="look", failed=1, dropped=2),
    },
)
RUNNING = OperationRecord(7, "switch", "hub", "v22", "v23", "tina", "cli", "nightly", "ready", "2026-01-02T03:04:00Z")
FAILED = OperationRecord(
    *(6, "rollback", "hub", None, "v21", "root", "api", "", "watch", "2026-01-02T02:00:00Z"),
    finished="2026-01-02T02:01:00Z",
    result="rolled-back",
    cause="webui crashed",
    hint="look at its log",
    exit_code=5,
    duration_s=60.25,
)
COMMITTED = OperationRecord(
    *(5, "switch", "hub", "v20", "v21", "Ada", "git", "Deliver v21", "commit", "2026-01-02T01:00:00Z"),
    finished="2026-01-02T01:00:10Z",
    result="committed",
    exit_code=0,
    duration_s=10.0,
    revision="1a2b3c",
)
WAITING = OperationRecord(
    *(9, "schedule", "hub", None, "v24", "tina", "cli", "nightly", "waits", "2026-01-02T03:04:00.123Z"),
    due="2026-01-03T03:00:00Z",
    options="force",
)
STEP = StepRecord(6, "watch", "2026-01-02T02:00:30Z", "2026-01-02T02:01:00Z", "failed", 30.0)
DETAILS = {"for_s": 30.0, "limits": {"detected_s": 1.0, "serving_again_s": 6.0, "ready_again_s": 66.0}}
DRILLED = Drilled(
    *(8, "kill", "storage", 0.25, 1.5, None),
    app_restarted=1,  # type: ignore[arg-type]  # as SQLite has them
    passed=0,  # type: ignore[arg-type]
    details=json.dumps({**DETAILS, "rclone_restarted": True, "cached_reads": None, "shortfalls": ["ready too late"]}),
)
LIMITS = drill_plan.DrillLimits(detected_s=1.0, serving_again_s=6.0, ready_again_s=66.0)
EVENT = EventRecord(12, "2026-01-02T03:04:05Z", "model-linked", "hub", "hub is at v22")
CONTENTS = [
    Content("v22", "hub_v22", FileList.of({"a.bin": 100, "b/c.bin": 23}), "sha256:22", verified=True, problems=()),
    Content("v21", "hub_v21", FileList.of({"a.bin": 1}), "sha256:21", verified=False, problems=(), former="sha256:old"),
    Content("v23", "hub_v23", FileList.of({}), "", verified=False, problems=("a.bin is missing", "b.bin has 0 bytes")),
]
PINNED = {
    version: PinRecord(f"sha256:{version[1:]}", "0" * 64, 124, 3, "2026-01-02T03:04:05Z") for version in ("v20", "v21")
}
APPS = (plan.AffectedApp("webui", 35.0, 935.0),)
GATES = (plan.PlannedGate("GET http://127.0.0.1:7860/", 60.0),)
SWITCH = plan.SwitchPlan(
    *("switch", "hub", "v22", "v23", "/srv/hub", "/mnt/models/hub_v23"),
    apps=APPS,
    gates=GATES,
    watch_s=30.0,
    digests=True,
)
LEFT = plan.SwitchPlan("switch", "hub", "v23", "v23", "/srv/hub", "/mnt/models/hub_v23", is_live=True)
OPENED = AccessProfile(
    {"webui": AppStart("v22", "2026-01-02T03:04:05Z", (OpenedFile("b/c.bin", 23, 0.5), OpenedFile("a.bin", 100, 1.25)))}
)
PUBLISHED = Published("published", "sha256:22", 2, 123, 1, 100, ("x",), ("MANIFEST.json",), "hash")


METERS = {"storage": MountMeters(cache_bytes=1_000_000), "plain": MountMeters()}
METERS["storage"].moved(100.0, fetched=1001, uploaded=0)
METERS["storage"].moved(105.0, fetched=0, uploaded=500)


def drill(kind: drill_plan.DrillKind) -> drill_plan.DrillPlan:
    return drill_plan.DrillPlan(kind, "storage", "/mnt/models", 30.0, ("webui", "api"), ("webui",), LIMITS)


def ring() -> Ring:
    made = Ring()
    made._lines.append(Line("2026-01-02T03:04:05Z", "loading gpt.pth", 5.0, 1))
    return made


RINGS = {"storage": ring(), "webui": ring()}


def without_prose(document: Any) -> Any:
    """Sentences may change, the keys they stand under may not."""
    if isinstance(document, dict):
        return {key: "…" if key in ("text", "hint") else without_prose(each) for key, each in document.items()}
    return [without_prose(each) for each in document] if isinstance(document, list) else document


def _without_evidence(found: explain.ExplainDocument) -> Any:
    roots = [each for each in (found["root"], *found["others"]) if each is not None]
    for root in roots:
        root["evidence"] = ["…"]
    return without_prose(found)


def made() -> dict[str, Any]:
    return {
        "status": without_prose(status.status(SNAPSHOT, RINGS, version="0.1.0", pid=4710, uptime_s=12.345)),
        "status of nothing": status.status(Snapshot(), {}, version="0.1.0", pid=1, uptime_s=0),
        "reason": document(status.ReasonDocument, REASON),
        "config": status.config(CONFIG),
        "versions": status.versions(
            "hub",
            CONTENTS,
            MODEL,
            levels={"v22": "data", "v21": "pin", "v23": None},
            pinned=PINNED,
            quarantined={"sha256:old"},
            changed={"v22": "a.bin has changed"},
            ignored=["a//b: empty"],
        ),
        "versions, pinned alone": status.versions(
            *("hub", [], MODEL),
            levels={},
            pinned=PINNED,
            quarantined=(),
            changed={},
            ignored=[],
            unlisted="cannot list store: no route to host",
        ),
        "operation that runs": operations.operation(RUNNING),
        "operation under way": operations.progress(OPERATION, SNAPSHOT, {"webui": ring()}, 103.21),
        "operation that failed": operations.operation(FAILED),
        "operation that is committed": operations.operation(COMMITTED),
        "operation that waits for its time": operations.operation(WAITING),
        "step": document(history.StepDocument, STEP),
        "drill": history.drilled(DRILLED),
        "event": history.event(EVENT),
        "log line": history.line("webui", Line("2026-01-02T03:04:05Z", "ready", 5.0, 1)),
        "switch, plan": without_prose(operations.switch(PlannedOperation(None, SWITCH), dry_run=True)),
        "switch, nothing to do": operations.switch(PlannedOperation(None, LEFT), dry_run=False),
        "switch, begun": operations.switch(PlannedOperation(RUNNING, SWITCH), dry_run=False),
        "drill plan, kill": without_prose(operations.drill_plan(drill(drill_plan.DrillKind.KILL))),
        "drill plan, offline": without_prose(operations.drill_plan(drill(drill_plan.DrillKind.OFFLINE))),
        "paused": operations.pause([Paused("hub", "tina: a demonstration", changed=True)]),
        "session": session.SessionDocument(schema=1, name="ci", role="operator", login=True),
        "login": session.LoginDocument(schema=1, name="ci", role="operator", csrf="proof", lifetime_s=43200.0),
        "webhook": operations.WebhookDocument(schema=1, model="hub"),
        "notification": notify.NotifySentDocument(schema=1, target="ops"),
        "diff": diff.diff({"hub": (Sync.OUT_OF_SYNC, [Compared("version", "hub", "v23", "v22")])}),
        "explain": _without_evidence(explain.explain(explained(SNAPSHOT))),
        "explain, nothing": explain.explain(explained(Snapshot())),
        "access profile": access.profile("hub", OPENED),
        "access profile, removed": access.forgotten("hub", ["webui"]),
        "traffic": traffic.traffic(SNAPSHOT, METERS, 107.0),
        "error": failures.error(NotFound("cannot find hub", hint="one of voice")),
        "error, busy": failures.error(Busy("cannot switch hub", hint="wait", holder="tina")),
        "error, config": without_prose(failures.error(ConfigError("/etc/mountd/mountd.yaml", [WARNING]))),
        "error without a hint": failures.error(MountdError("cannot go on")),
        "publish": publish_command._document("hub", "v22", "store:models/hub_v22", PUBLISHED, 1.23456),
        "debug": debug_command._document(
            Path("/root/b.tar.gz"), 1234, Bundle(Redactor([]), {"status.json": b"{}"}, ["unit: no end after 20 s"])
        ),
        "init": init_command._document(
            Path("/etc/m.yaml"), written=True, text="a: b\n", files=["/etc/k"], following=["x"]
        ),
        "init, taken back": init_command._document(Path("/etc/m.yaml"), removed=["/etc/k"], before="/etc/m.yaml"),
    }


@pytest.mark.parametrize("name", json.loads(FROZEN.read_text()))
def test_a_document_is_as_it_was(name: str) -> None:
    found = json.dumps(made()[name], indent=1)
    assert found == json.dumps(json.loads(FROZEN.read_text())[name], indent=1)


def test_no_document_is_left_out() -> None:
    assert list(json.loads(FROZEN.read_text())) == list(made())


def test_a_version_with_many_problems() -> None:
    problems = tuple(f"{number} is missing" for number in range(100_000))
    content = Content("v1", "hub_v1", FileList.of({"a": 1}), "d", False, problems)
    live = ModelStatus(mount="storage", link="/l")
    document = status.versions("hub", [content], live, levels={}, pinned={}, quarantined=(), changed={}, ignored=[])
    (row,) = document["versions"]
    assert (len(row["problems"]), row["problem_count"]) == (status.PROBLEMS_SHOWN, 100_000)
