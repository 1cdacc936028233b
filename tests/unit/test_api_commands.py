"""The API of scheduled switches, of rollbacks to an operation, and of what a person asks of an app."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mountd import clock
from mountd.api import peer
from mountd.api.documents import status
from mountd.clock import as_text, now_text
from mountd.operation.apps import ControlledApp
from mountd.process.child import Ring
from mountd.process.lifecycle import Notice
from mountd.status.snapshot import AppStatus, Health, MountStage, Snapshot, State
from tests.support.reloader import posted
from tests.support.shelf import MOUNT, until
from tests.unit.test_api_requests import LIVE, ME, WAIT_S, Asked, asking
from tests.unit.test_app_follows import made, runs


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that looks up a name may get no processor for a while."""
    monkeypatch.setattr(peer, "NAME_LIMIT_S", WAIT_S)


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    async with asking() as found:
        yield found


# -- scheduled switches -----------------------------------------------------------------------------------------------


async def test_a_switch_for_a_later_time_is_shown_and_dropped(asked: Asked) -> None:
    at = as_text(datetime.now(UTC) + timedelta(hours=1), "seconds")
    body = {"version": "v23", "at": at, "reason": "nightly", "force": True}
    status_code, document = await asked.post("switch", json.dumps(body), {"User-Agent": "mountd/1"})
    operation = document["operation"]
    assert (status_code, operation["kind"], operation["due"]) == (202, "schedule", at)
    assert (operation["operator"], operation["source"], operation["reason"]) == (ME, "cli", "nightly")
    _, shown = await asked.get("api/v1/status")
    (waiting,) = shown["scheduled"]
    assert (waiting["id"], waiting["version"], waiting["due"]) == (operation["id"], "v23", at)
    _, listed = await asked.get("api/v1/history?kind=schedule")
    assert [each["due"] for each in listed["history"]] == [at]
    assert (await asked.post("cancel", json.dumps({"id": operation["id"] + 1})))[0] == 404
    status_code, document = await asked.post("cancel", json.dumps({"id": operation["id"]}))
    assert (status_code, document["operation"]["result"]) == (202, "cancelled")
    assert (await asked.get("api/v1/status"))[1]["scheduled"] == []


async def test_a_dry_run_schedules_nothing(asked: Asked) -> None:
    asked.hub.board.set_model("hub", LIVE)
    body = {"version": "v23", "at": "+1h", "dry_run": True}
    assert (await asked.post("switch", json.dumps(body)))[1]["dry_run"] is True
    assert await asked.hub.journal.history(limit=5) == []


@pytest.mark.parametrize("at", ["03:00", "yesterday", "+0", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00"])
async def test_what_is_no_time_ahead_is_refused(asked: Asked, at: str) -> None:
    code, document = await asked.post("switch", json.dumps({"version": "v23", "at": at}))
    assert (code, document["error"]["exit"]) == (400, 2)


# -- rollbacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "expected"),
    [(99, (404, 3)), (2**63, (400, 2)), (-1, (404, 3)), ("1", (400, 2)), (True, (400, 2)), (1.5, (400, 2))],
)
async def test_a_rollback_to_no_operation(asked: Asked, to: object, expected: tuple[int, int]) -> None:
    code, document = await asked.post("rollback", json.dumps({"to": to}))
    assert (code, document["error"]["exit"]) == expected


async def test_a_rollback_to_an_operation(asked: Asked) -> None:
    hub = asked.hub
    async with hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        first = await hub.switch("v23")
        await hub.switch("v24")
        failed = await hub.begin("v25")
        await hub.journal.finish(replace(failed, finished=now_text(), result="rolled-back", exit_code=5))
        code, document = await asked.post("rollback", json.dumps({"to": failed.id}))
        assert (code, document["error"]["exit"]) == (422, 7)
        code, document = await asked.post("rollback", json.dumps({"to": first.id, "dry_run": True}))
        assert (code, document["plan"]["kind"], document["plan"]["to"]) == (200, "rollback", "v23")
        code, document = await asked.post("rollback", json.dumps({"to": first.id}))
        assert (code, document["operation"]["kind"], document["operation"]["to"]) == (202, "rollback", "v23")
        await until(lambda: hub.model.committed.current == "v23" and not hub.board.snapshot.operations, "the rollback")


# -- apps -------------------------------------------------------------------------------------------------------------


async def test_an_app_is_stopped_and_started(asked: Asked, tmp_path: Path) -> None:
    app, board = made(tmp_path)
    hub = asked.hub
    app._board = hub.board
    controlled: ControlledApp = app
    hub.controlled["webui"], hub.supervisors["webui"] = controlled, app.supervisor
    runs(app)
    code, document = await asked.post("stop", json.dumps({"name": "webui", "reason": "training"}))
    assert (code, document) == (202, {"schema": 1, "name": "webui", "changed": True})
    assert (await asked.post("stop", json.dumps({"name": "webui"})))[0] == 200
    _, shown = await asked.get("api/v1/status")
    assert (shown["apps"]["webui"]["stopped"], shown["apps"]["webui"]["health"]) == (f"{ME}: training", "Suspended")
    assert posted(app.supervisor) == [Notice.UNWANTED]
    runs(app, state=State.STOPPED)
    assert (await asked.post("restart", json.dumps({"name": "webui"})))[0] == 202, "as systemctl does"
    assert posted(app.supervisor) == [Notice.WANTED]
    runs(app)
    code, document = await asked.post("start", json.dumps({"name": "webui"}))
    assert (code, document["changed"]) == (200, False)
    code, document = await asked.post("signal", json.dumps({"name": "webui", "signal": "HUP"}))
    assert (code, document["error"]["exit"]) == (422, 7), "no process runs"
    assert board.snapshot.apps.keys() == {"webui"}


@pytest.mark.parametrize("path", ["stop", "start", "signal"])
async def test_what_is_no_app(asked: Asked, path: str) -> None:
    sent = {"signal": "HUP"} if path == "signal" else {}
    for body in ({"name": "storage"}, {"name": "x", "reason": "y"}):
        code, document = await asked.post(path, json.dumps(body | sent))
        assert (code, document["error"]["exit"]) == (404, 3)
    for wrong in ({**sent, "name": "webui", "surprise": 1}, sent, {**sent, "name": None}):
        code, document = await asked.post(path, json.dumps(wrong))
        assert (code, document["error"]["exit"]) == (400, 2)


# -- what was said last -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "health", "lines"),
    [
        (State.FAILED, Health.DEGRADED, 5),
        (State.BACKOFF, Health.DEGRADED, 5),
        (State.STARTING, Health.DEGRADED, 5),
        (State.RUNNING, Health.DEGRADED, 5),
        (State.STARTING, Health.PROGRESSING, 0),
        (State.RUNNING, Health.HEALTHY, 0),
        (State.STOPPED, Health.PROGRESSING, 0),
    ],
)
def test_the_last_lines_of_what_is_not_well(state: State, health: Health, lines: int) -> None:
    ring = Ring()
    ring.begin()
    for number in range(20):
        ring.append(f"{number} \x1b[31m{'声' * 1000}")
    mount = replace(MOUNT, state=state, health=health, stage=MountStage.SPAWNED)
    now = Snapshot(mounts={"storage": mount}, apps={"webui": AppStatus(state=state, health=health)})
    document = status.status(now, {"webui": ring, "storage": ring}, version="1", pid=1, uptime_s=0)
    for said in (document["apps"]["webui"]["said"], document["mounts"]["storage"]["said"]):
        assert [each["text"].partition(" ")[0] for each in said] == [str(20 - left) for left in range(lines, 0, -1)]
        assert all(len(each["text"]) <= status.SAID_CHARACTERS and each["time"].endswith("Z") for each in said)


def test_without_output_there_is_none() -> None:
    now = Snapshot(apps={"webui": AppStatus(state=State.FAILED)})
    for rings in ({}, {"webui": Ring()}):
        assert status.status(now, rings, version="1", pid=1, uptime_s=0)["apps"]["webui"]["said"] == []
    assert clock.now().tzinfo is UTC
