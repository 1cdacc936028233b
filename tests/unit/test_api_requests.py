"""What the API makes of each request: which are refused, what reaches the daemon, and how long an answer waits."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mountd.api import body as bodies
from mountd.api import logs, peer, routes
from mountd.operation.drill import Drills
from mountd.process.child import Ring
from mountd.process.lifecycle import RestartAsked
from mountd.process.supervisor import Supervisor
from mountd.status.snapshot import DriftStatus, ModelStage, ModelStatus, Operation, Reason
from tests.support.shelf import Shelf, shelf, until
from tests.support.supervised import Program

URL = "http://localhost/"
SWITCH = Operation(1, "switch", "hub", "v22", "v23", "tina", "cli", "warm", "2026-01-01T00:00:00Z")
LIVE = ModelStatus("storage", "/srv/hub", ModelStage.LINKED, current="v22")
DRIFT = DriftStatus(Reason("link-drifted", "somebody has changed the link"))
ME = pwd.getpwuid(os.getuid()).pw_name
WAIT_S = 60.0
"""What a request may wait at most."""
AT_ONCE_S = 45.0
"""Less than that: who waits for nothing is answered by then, also on a busy machine."""


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that looks up a name may get no processor for a while."""
    monkeypatch.setattr(peer, "NAME_LIMIT_S", WAIT_S)


@dataclass
class Asked:
    hub: Shelf
    session: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(URL + path) as answer:
            return answer.status, await answer.json()

    async def post(self, path: str, body: bytes | str = b"", headers: dict[str, str] | None = None) -> tuple[int, Any]:
        async with self.session.post(f"{URL}api/v1/{path}", data=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def lines(self, query: str = "") -> list[str]:
        _, document = await self.get(f"api/v1/logs?{query}")
        return [each["text"] for each in document["logs"]]


@asynccontextmanager
async def asking(drills: Drills | None = None) -> AsyncIterator[Asked]:
    root = Path(tempfile.mkdtemp(prefix="mountd-t-"))  # tmp_path would not fit into a Unix socket's address
    try:
        async with shelf(root) as hub:
            hub.drills = drills or hub.drills
            async with hub.serving() as socket:
                await hub.desired.load("hub")
                async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
                    yield Asked(hub, session)
    finally:
        shutil.rmtree(root)


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    async with asking() as found:
        yield found


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 200),
        ("{}", 200),
        ('{"model": "hub", "reason": null}', 200),
        ('{"model": "x"}', 404),
        ("{", 400),
        ("[]", 400),
        ("[" * 60_000, 400),
        ('{"modell": "hub"}', 400),
        ('{"reason": 5}', 400),
        ('{"reason": true}', 400),
        ('{"reason": "a", "reason": "a"}', 400),
        ('{"reason": "\\ud800"}', 400),
        (b'{"reason": "\xff"}', 400),
        ("x" * (routes.MAX_BODY_BYTES + 1), 413),
    ],
    ids=lambda given: str(given)[:30],
)
async def test_bodies(asked: Asked, body: bytes | str, status: int) -> None:
    found, document = await asked.post("pause", body)
    assert found == status
    assert ("error" in document) is (status != 200)
    assert bool(asked.hub.model.committed.suspended) is (status == 200)


@pytest.mark.parametrize(
    "path", ["reload", "cancel", "restart", "drill", "rollback", "switch", "warm", "resume", "profile/forget"]
)
async def test_each_request_refuses_fields_that_it_does_not_know(asked: Asked, path: str) -> None:
    status, document = await asked.post(path, '{"surprise": 1}')
    assert (status, document["error"]["exit"]) == (400, 2)
    assert "surprise" in document["error"]["text"]


async def test_who_pauses_and_why_is_recorded(asked: Asked) -> None:
    _, document = await asked.post("pause", json.dumps({"model": "hub", "reason": "night"}))
    suspended = document["models"][0]["suspended"]
    assert ME in suspended
    assert "night" in suspended
    _, document = await asked.post("resume")
    assert document["models"][0]["suspended"] is None


# -- changes ----------------------------------------------------------------------------------------------------------


async def test_requests_that_name_nothing_there_is(asked: Asked) -> None:
    for path, body, expected in (
        ("switch", "{}", (400, 2)),
        ("switch", '{"version": "v23", "model": "x"}', (404, 3)),
        ("switch", '{"version": "latest"}', (400, 2)),
        ("warm", "{}", (400, 2)),
        ("warm", '{"version": "v23", "model": "x"}', (404, 3)),
        ("warm", '{"version": "v23", "level": "all"}', (400, 2)),
        ("resume", '{"model": "x"}', (404, 3)),
        ("rollback", "{}", (404, 3)),
        ("cancel", "{}", (404, 3)),
        ("restart", "{}", (400, 2)),
        ("restart", '{"name": "x"}', (404, 3)),
        ("nothing", "{}", (404, 3)),
    ):
        status, document = await asked.post(path, body)
        assert (status, document["error"]["exit"]) == expected, path
    status, document = await asked.get("api/v1/switch")
    assert (status, document["error"]["exit"]) == (405, 2)
    async with asked.session.get(f"{URL}api/v1/switch") as answer:
        assert answer.headers["Allow"] == "POST"
    assert (await asked.post("reload"))[0] == 200


async def test_a_restart_reaches_the_supervisor_with_the_name_of_who_asked(asked: Asked) -> None:
    supervisor = asked.hub.supervisors["storage"] = Supervisor(Program(name="storage", kind="mount"))
    status, document = await asked.post("restart", '{"name": "storage"}')
    assert (status, document["name"]) == (202, "storage")
    event = supervisor._queue.get_nowait()
    assert isinstance(event, RestartAsked)
    assert not event.by_itself
    assert ME in event.cause


@pytest.mark.parametrize(("agent", "source"), [("mountd/1.0", "cli"), ("curl/8", "api")])
async def test_who_asks_for_a_switch_from_where_and_why_is_recorded(asked: Asked, agent: str, source: str) -> None:
    hub = asked.hub
    async with hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        body = {"version": "v23", "reason": "night", "model": "hub"}
        headers = {"User-Agent": agent}
        status, document = await asked.post("switch", json.dumps(body | {"dry_run": True}), headers)
        assert (status, document["dry_run"]) == (200, True)
        status, document = await asked.post("switch", json.dumps(body), headers)
        assert status == 202
        await until(lambda: hub.model.committed.current == "v23" and not hub.board.snapshot.operations, "the switch")
        (record,) = await hub.journal.history(limit=5)
        assert (record.operator, record.source, record.reason) == (ME, source, "night")
        assert document["operation"]["id"] == record.id
        status, document = await asked.post("switch", json.dumps(body), headers)
        assert (status, document["operation"]) == (200, None), "it is live"
        status, _ = await asked.post("rollback", json.dumps({"dry_run": True}), headers)
        assert status == 200
        status, document = await asked.post("rollback", "{}", headers)
        assert (status, document["operation"]["to"]) == (202, "v22")
        await until(lambda: hub.model.committed.current == "v22" and not hub.board.snapshot.operations, "the rollback")


@pytest.mark.parametrize("path", ["switch", "rollback"])
@pytest.mark.parametrize("given", [{}, {"force": True}, {"digests": False}, {"digests": True}], ids=str)
async def test_only_what_was_asked_for_is_planned(asked: Asked, path: str, given: dict[str, bool]) -> None:
    hub = asked.hub
    await hub.journal.commit("hub", replace(hub.model.committed, previous="v21"))
    await hub.model.load()
    hub.board.set_model("hub", LIVE)
    body = {"dry_run": True, **given} | ({"version": "v23"} if path == "switch" else {})
    status, document = await asked.post(path, json.dumps(body))
    if given.get("digests"):  # the version has none
        assert (status, document["error"]["exit"]) == (422, 7)
        return
    assert (status, document["dry_run"]) == (200, True)
    plan = document["plan"]
    assert (plan["force"], plan["digests"]) == (given.get("force", False), False)
    assert plan["to"] == ("v23" if path == "switch" else "v21")


async def test_a_cancel_is_answered_before_the_undo_is_done(asked: Asked) -> None:
    hub = asked.hub
    async with hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        hub.disk.gate.clear()
        assert (await asked.post("switch", '{"version": "v23"}'))[0] == 202
        status, document = await asked.post("cancel", '{"model": "hub"}')
        assert (status, document["operation"]["to"]) == (202, "v23")
        hub.disk.gate.set()
        await until(lambda: not hub.board.snapshot.operations, "the undo")
        assert hub.model.committed.current == "v22"


# -- waiting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "operations", "holds"),
    [
        (LIVE, (), True),
        (replace(LIVE, current="v23"), (), False),
        (replace(LIVE, stage=ModelStage.WARMED), (), False),
        (replace(LIVE, drift=DRIFT), (), False),
        (LIVE, (SWITCH,), False),
        (LIVE, (replace(SWITCH, model="other"),), True),
    ],
)
async def test_when_a_version_counts_as_live(
    asked: Asked, model: ModelStatus, operations: tuple[Operation, ...], holds: bool
) -> None:
    asked.hub.board.set_model("hub", model)
    asked.hub.board.set_operations(*operations)
    loop = asyncio.get_running_loop()
    began = loop.time()
    status, _ = await asked.get(f"api/v1/status?wait={WAIT_S if holds else 0.05}&for=version=v22")
    assert status == 200
    waited_s = loop.time() - began
    assert waited_s < AT_ONCE_S if holds else waited_s >= 0.05


async def test_a_wait_ends_with_what_it_waits_for_or_with_its_time(asked: Asked) -> None:
    board = asked.hub.board
    board.set_model("hub", replace(LIVE, stage=ModelStage.WARMED))
    for wanted in ("ready", "version=v22"):
        board.set_model("hub", replace(LIVE, drift=DRIFT, stage=ModelStage.WARMED))
        waiting = asyncio.create_task(asked.get(f"api/v1/status?wait={WAIT_S}&for={wanted}"))
        _, document = await asked.get(f"api/v1/status?wait=0.02&for={wanted}")
        assert (document["ready"], waiting.done()) == (False, False)
        board.set_model("hub", replace(LIVE, drift=DRIFT))
        if wanted != "ready":
            await asked.get(f"api/v1/status?wait=0.02&for={wanted}")
            assert not waiting.done(), "the link points elsewhere"
            board.set_model("hub", LIVE)
        status, document = await asyncio.wait_for(waiting, AT_ONCE_S)
        assert (status, document["ready"]) == (200, True)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("status?for=version=v22&wait=x", 400),
        ("status?for=version", 400),
        ("status?for=version=", 400),
        ("status?for=nothing", 400),
        ("status?for=version=v22&model=x", 404),
        ("status?for=version=v22&wait=-5", 200),
        ("versions?model=x", 404),
        ("operations/7", 404),
        ("logs?name=x", 404),
        ("logs?lines=x", 400),
        ("logs?lines=-3", 400),
        ("logs?previous=x", 400),
        ("logs?previous=false", 200),
        ("logs?since=nan", 200),
        ("status?nothing=1", 200),
        ("logs?since=x", 400),
        ("logs?previous=1&follow=1", 400),
        ("logs?previous=1&name=webui", 404),
        ("logs?previous=1", 200),
    ],
)
async def test_reads_that_cannot_be_answered(asked: Asked, path: str, status: int) -> None:
    asked.hub.board.set_model("hub", replace(LIVE, current="v1"))
    asked.hub.rings["webui"] = Ring()
    asked.hub.rings["webui"].begin()
    found, document = await asked.get(f"api/v1/{path}")
    assert (found, "error" in document) == (status, status != 200)


async def test_a_wait_has_a_limit(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_WAIT_S", 0.02)
    async with asyncio.timeout(AT_ONCE_S):
        assert (await asked.get("api/v1/status?wait=1000&for=version=v99"))[0] == 200


async def test_an_operation_that_moves_on_is_answered_at_once(asked: Asked) -> None:
    hub = asked.hub
    record = await hub.begin("v23", step="warm")
    running = replace(SWITCH, id=record.id, limit_s=100.0, percent=40)
    hub.board.set_operations(running)
    status, document = await asked.get(f"api/v1/operations/{record.id}")
    assert (status, document["step"], document["result"]) == (200, "warm", None)
    assert document["step_s"] > 0
    hub.board.set_operations(replace(running, step="flip"))
    _, document = await asked.get(f"api/v1/operations/{record.id}")
    assert "step_s" not in document, "the journal and the board are at different steps"
    assert "drill" not in document


# -- probes -----------------------------------------------------------------------------------------------------------


async def test_probes(asked: Asked) -> None:
    board = asked.hub.board
    status, document = await asked.get("healthz")
    assert (status, document["alive"]) == (200, True)
    board.set_model("hub", replace(LIVE, stage=ModelStage.WARMED))
    status, document = await asked.get("readyz")
    assert (status, document["ready"]) == (503, False)
    board.set_model("hub", LIVE)
    status, document = await asked.get("readyz")
    assert (status, document["ready"]) == (200, True)
    async with asked.session.get(URL + "metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert "mountd_" in await answer.text()


# -- logs -------------------------------------------------------------------------------------------------------------


async def test_which_lines_of_whom(asked: Asked) -> None:
    rings = asked.hub.rings
    rings |= {"storage": Ring(), "webui": Ring()}
    for name, ring in rings.items():
        for life in ("first", "second"):
            ring.begin()
            ring.append(f"{name} {life}")
    assert await asked.lines() == ["storage first", "storage second", "webui first", "webui second"]
    assert await asked.lines("name=webui") == ["webui first", "webui second"]
    assert await asked.lines("name=webui&lines=1") == ["webui second"]
    assert await asked.lines("lines=1") == ["webui second"]
    assert await asked.lines("lines=0") == []
    assert await asked.lines("name=webui&previous=1") == ["webui first"]
    assert await asked.lines("previous=1") == ["storage first", "webui first"]
    assert await asked.lines("since=0") == []
    assert await asked.lines("since=100&lines=1") == ["webui second"]


async def test_without_a_number_the_last_hundred_and_with_a_time_all_of_it(asked: Asked) -> None:
    ring = asked.hub.rings["storage"] = Ring()
    for number in range(150):
        ring.append(str(number))
    assert await asked.lines() == [str(number) for number in range(50, 150)]
    assert len(await asked.lines("since=100")) == 150


async def test_followed_until_mountd_stops(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FOLLOW_LINES", 2)
    rings = asked.hub.rings
    rings |= {"storage": Ring(), "webui": Ring()}
    rings["storage"].append("before")
    rings["webui"].append("of another")
    async with asked.session.get(URL + "api/v1/logs?follow=1&name=storage") as answer:
        assert answer.content_type == "application/x-ndjson"
        seen = [json.loads(await answer.content.readline())["text"]]
        await until(lambda: rings["storage"]._followers, "the stream to follow")
        assert not rings["webui"]._followers
        for number in range(3):
            rings["storage"].append(str(number))
        seen += [json.loads(await answer.content.readline())["text"] for _ in range(2)]
        assert seen == ["before", "1", "2"], "a slow reader loses the oldest"
        asked.hub.board.set_stopping()
        rings["storage"].append("last")
        assert len((await answer.content.read()).splitlines()) <= 1
    assert not rings["storage"]._followers


def test_each_failure_has_its_status() -> None:
    assert routes.HTTP_OF_EXIT == {1: 503, 2: 400, 3: 404, 6: 409, 7: 422}
