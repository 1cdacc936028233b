"""What an explanation takes from the journal: since when, and which change failed; of this incident alone."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from mountd import codes
from mountd.api.explain import ExplainRoutes
from mountd.journal.journal import Journal
from mountd.journal.records import CRASHED, STARTED
from mountd.operation.results import ResultStore
from mountd.status.board import Board
from mountd.status.snapshot import Health, Snapshot, State, Sync
from mountd.status.source import Unmet
from tests.unit.test_explain import AWAY, GOOD, STARTING, now, reason

SAYS_SINCE = "since "


class Asked:
    def __init__(self, journal: Journal) -> None:
        self.journal, self.board = journal, Board()
        self.results = ResultStore(journal)
        self._routes = ExplainRoutes(self.board, journal, self.results, {}, time.monotonic())

    async def root(self, snapshot: Snapshot) -> dict[str, Any] | None:
        self.board.snapshot = snapshot
        answer = await self._routes.explain(make_mocked_request("GET", "/api/v1/explain"), {})
        assert isinstance(answer.body, bytes)
        root: dict[str, Any] | None = json.loads(answer.body)["root"]
        return root

    async def since(self, snapshot: Snapshot, code: str) -> list[str]:
        """The facts that say since when."""
        root = await self.root(snapshot)
        assert root is not None
        assert root["code"] == code
        return [fact for fact in root["evidence"] if fact.startswith(SAYS_SINCE)]

    async def finished(self, kind: str, model: str, result: str, *, step: str = "ready") -> None:
        begun = await self.journal.begin(
            kind=kind, model=model, from_version="v23", to_version="v24", operator="tina", source="cli", reason="",
            step=step,
        )  # fmt: skip
        await self.results.finish(replace(begun, result=result, cause="it failed", exit_code=1))


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    journal = Journal(tmp_path / "mountd.db")
    await journal.open()
    yield Asked(journal)
    await journal.close()


async def test_since_when_a_bucket_is_away(asked: Asked) -> None:
    away = now({"backend": AWAY})
    assert await asked.since(away, "bucket-unreachable") == []
    await asked.journal.event("bucket-unreachable", "store", "…")
    (began,) = await asked.since(away, "bucket-unreachable")
    await asked.journal.event("bucket-answers", "store", "…")
    assert await asked.since(away, "bucket-unreachable") == [], "the present outage is not in the journal yet"
    await asked.journal.event("bucket-unreachable", "store", "…")
    await asked.journal.event("bucket-answers", "other", "…")
    (again,) = await asked.since(away, "bucket-unreachable")
    assert again >= began


async def test_what_is_over_for_another_reason_goes_on_for_this_one(asked: Asked) -> None:
    lacking = replace(GOOD, lacks={"api": reason("no-memory", "mountd")})
    await asked.journal.event("no-memory", "mountd", "…")
    await asked.journal.event("recovered", "mountd", "…", {codes.OF: "disk-full"})
    assert len(await asked.since(lacking, "no-memory")) == 1
    await asked.journal.event("recovered", "mountd", "…", {codes.OF: "no-memory"})
    assert await asked.since(lacking, "no-memory") == []


@pytest.mark.parametrize(
    ("snapshot", "code", "object_"),
    [
        (now({"state": State.STOPPING, "health": Health.PROGRESSING}), "mount-starting", "disk"),
        (
            now(model={"desired": "v24", "sync": Sync.OUT_OF_SYNC, "unmet": Unmet("v24", "webui is not ready")}),
            "switch-failed",
            "hub",
        ),
    ],
)
async def test_an_event_with_the_same_code_that_says_something_else(
    asked: Asked, snapshot: Snapshot, code: str, object_: str
) -> None:
    await asked.journal.event(code, object_, "of a former start or switch")
    assert await asked.since(snapshot, code) == []


async def test_a_drill_of_a_mount_is_no_change_of_a_model_with_its_name(asked: Asked) -> None:
    await asked.finished("drill", "hub", "failed")
    assert await asked.root(GOOD) is None
    await asked.finished("switch", "hub", "rolled-back")
    await asked.finished("drill", "hub", "committed")
    root = await asked.root(GOOD)
    assert root is not None
    assert root["code"] == "rolled-back"
    await asked.finished("rollback", "hub", "committed")
    assert await asked.root(GOOD) is None


# -- after a crash ----------------------------------------------------------------------------------------------------


async def crash(asked: Asked) -> None:
    """mountd has just come back from one. An app was started by hand, and a switch made, before it."""
    for code, object_ in (("app-start-asked", "webui"), ("app-running", "webui"), (CRASHED, "mountd")):
        await asked.journal.event(code, object_, "…")
    await asked.journal.event(STARTED, "mountd", "…")


async def is_laid_to_the_crash(asked: Asked) -> bool:
    root = await asked.root(now(app=STARTING))
    assert root is not None
    assert root["code"] in (CRASHED, "app-starting")
    return bool(root["code"] == CRASHED)


@pytest.mark.parametrize(
    ("code", "object_", "is_laid"),
    [
        ("app-starting", "webui", True),
        ("mount-running", "disk", True),
        ("app-running", "other", True),
        ("restart-requested", "other", True),
        ("app-stop-asked", "webui", True),
        ("app-running", "webui", False),
        ("restart-requested", "webui", False),
        ("app-start-asked", "webui", False),
    ],
)
async def test_a_start_that_has_another_reason_is_not_laid_to_a_crash_of_mountd(
    asked: Asked, code: str, object_: str, is_laid: bool
) -> None:
    await crash(asked)
    assert await is_laid_to_the_crash(asked)
    await asked.journal.event(code, object_, "…")
    assert await is_laid_to_the_crash(asked) is is_laid


@pytest.mark.parametrize(
    ("kind", "model", "step", "is_laid"),
    [
        ("switch", "hub", "start-old", False),
        ("rollback", "hub", "commit", False),
        ("switch", "hub", "verify", True),  # has stopped nothing
        ("switch", "other", "commit", True),
        ("drill", "hub", "done", True),  # of a mount with that name
    ],
)
async def test_a_start_after_a_switch_is_not_laid_to_a_crash_of_mountd(
    asked: Asked, kind: str, model: str, step: str, is_laid: bool
) -> None:
    await asked.finished("switch", "hub", "committed", step="commit")
    await asked.journal.rows("UPDATE operations SET started = '2020-01-02T03:04:05.000Z'")
    await crash(asked)
    assert await is_laid_to_the_crash(asked)
    await asked.finished(kind, model, "committed", step=step)
    assert await is_laid_to_the_crash(asked) is is_laid
