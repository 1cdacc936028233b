"""What the API answers about operations and versions, what reaches a drill, and by which name who asks is known."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mountd import __version__
from mountd.api import peer
from mountd.api.peer import Peer, UserNames
from mountd.clock import now_text
from mountd.journal.records import Drilled, KnownContent, OperationRecord
from mountd.operation import warm
from mountd.operation.desired import Request
from mountd.operation.drill import Drills, StartedDrill
from mountd.operation.drill_plan import DrillKind, DrillLimits, DrillPlan
from mountd.process.child import Ring
from mountd.status.snapshot import AppStatus, State
from tests.support.bucket_disk import BucketDisk
from tests.support.shelf import until
from tests.unit.test_api_requests import AT_ONCE_S, LIVE, ME, SWITCH, WAIT_S, Asked, asking

PLAN = DrillPlan(DrillKind.KILL, "storage", "/mnt", 30.0, (), (), DrillLimits(1.0, 2.0, 3.0))


class NotedDrills(Drills):
    """Notes what is asked for; `record`: what it has begun."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, str | None, Request]] = []
        self.record: OperationRecord | None = None

    async def ask(self, kind: str, mount: str | None, for_: str | None, request: Request) -> StartedDrill:
        self.asked.append((kind, mount, for_, request))
        return StartedDrill(PLAN, self.record, 75.0)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that looks up a name may get no processor for a while."""
    monkeypatch.setattr(peer, "NAME_LIMIT_S", WAIT_S)


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    async with asking() as found:
        yield found


# -- operations -------------------------------------------------------------------------------------------------------


async def test_a_warm_is_begun_and_answered_at_once(asked: Asked) -> None:
    hub = asked.hub
    async with hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        hub.disk.gate.clear()
        body = {"version": "v23", "model": "hub", "level": "metadata", "reason": "tonight"}
        status, document = await asked.post("warm", json.dumps(body), {"User-Agent": "mountd/1"})
        operation = document["operation"]
        assert (status, document["timeout_s"]) == (202, warm.LIMIT_S)
        assert (operation["kind"], operation["to"], operation["reason"]) == ("warm", "v23", "tonight")
        assert (operation["operator"], operation["source"]) == (ME, "cli")
        status, document = await asked.post("cancel", "{}")
        assert (status, document["operation"]["id"]) == (202, operation["id"])
        await until(lambda: not hub.board.snapshot.operations, "its end")
    ended = await hub.operations.results.operation(operation["id"])
    assert ended is not None
    assert ended.result == "cancelled"


@pytest.mark.parametrize("dry_run", [True, False])
async def test_what_is_asked_of_a_drill_reaches_it(dry_run: bool) -> None:
    drills = NotedDrills()
    async with asking(drills) as asked:
        if not dry_run:
            drills.record = await asked.hub.begin("kill", step="fault")
        body = {"kind": "slow", "mount": "storage", "for": "30s", "reason": "monthly", "dry_run": dry_run}
        status, document = await asked.post("drill", json.dumps(body), {"User-Agent": "curl/8"})
        assert (status, document["timeout_s"]) == (200 if dry_run else 202, 75.0)
        assert (document["plan"]["kind"], document["operation"] is None) == ("kill", dry_run)
        wanted = Request(ME, "api", "monthly", dry_run=dry_run)
        assert drills.asked == [("slow", "storage", "30s", wanted)]
        await asked.post("drill", '{"kind": "kill"}')
        assert drills.asked[1:] == [("kill", None, None, Request(ME, "api"))]
        assert (await asked.post("drill", "{}"))[0] == 400


async def test_an_operation_is_waited_for_until_it_leaves_the_step_that_was_seen(asked: Asked) -> None:
    hub, loop = asked.hub, asyncio.get_running_loop()
    record = await hub.begin("v23", step="warm")
    hub.board.set_operations(replace(SWITCH, id=record.id))
    path = f"api/v1/operations/{record.id}"
    for query, waits in (("wait=0.1&step=warm", True), ("wait=60&step=preflight", False), ("wait=60", False)):
        began = loop.time()
        assert (await asked.get(f"{path}?{query}"))[0] == 200
        waited_s = loop.time() - began
        assert waited_s >= 0.1 if waits else waited_s < AT_ONCE_S, query
    waiting = asyncio.create_task(asked.get(f"{path}?wait=60&step=warm"))
    await asked.get(f"{path}?wait=0.02&step=warm")
    assert not waiting.done()
    hub.board.set_operations()
    assert (await asyncio.wait_for(waiting, AT_ONCE_S))[0] == 200


async def test_of_an_operation_the_app_that_it_waits_for_is_shown_with_its_last_line(asked: Asked) -> None:
    hub = asked.hub
    ring = hub.rings["webui"] = Ring()
    for line in ("first", "loading 40 %"):
        ring.append(line)
    record = await hub.begin("v23", step="ready")
    hub.board.set_operations(replace(SWITCH, id=record.id, step="ready"))
    starting = AppStatus(needs=("hub",), state=State.STARTING, killed="webui was killed")
    hub.board.set_app("webui", starting)
    _, document = await asked.get(f"api/v1/operations/{record.id}")
    assert (document["waits_for"], document["said"]) == ("webui", "loading 40 %")
    assert document["killed"] == ["webui was killed"]
    hub.board.set_app("webui", replace(starting, state=State.RUNNING, killed=""))
    _, document = await asked.get(f"api/v1/operations/{record.id}")
    assert (document["waits_for"], document["said"], document["killed"]) == (None, "", [])


async def test_a_drill_is_shown_with_what_it_measured_once_that_is_known(asked: Asked) -> None:
    journal = asked.hub.journal
    begun: dict[str, Any] = {"kind": "drill", "model": "storage", "from_version": None, "to_version": "kill"}
    record = await journal.begin(**begun, operator="tina", source="cli", reason="", step="fault")
    _, document = await asked.get(f"api/v1/operations/{record.id}")
    assert document["drill"] is None
    details = json.dumps({"limits": {}, "rclone_restarted": True, "cached_reads": None})
    await journal.record_drill(
        Drilled(record.id, "kill", "storage", 0.5, 4.5, 9.0, app_restarted=True, passed=True, details=details)
    )
    _, document = await asked.get(f"api/v1/operations/{record.id}")
    assert (document["drill"]["detected_s"], document["drill"]["passed"]) == (0.5, True)


# -- status and versions ----------------------------------------------------------------------------------------------


async def test_the_status_says_which_process_answers(asked: Asked) -> None:
    _, document = await asked.get("api/v1/status")
    assert (document["schema"], document["version"], document["pid"]) == (1, __version__, os.getpid())
    assert 0 <= document["uptime_s"] < 3600
    assert [*document["mounts"]] == ["storage"]


async def test_versions_with_what_is_known_of_each(asked: Asked) -> None:
    hub = asked.hub
    hub.model.versions.disk = disk = BucketDisk({"hub_v22/a": b"1", "hub_v23/a": b"22", "other/a": b""})
    hub.board.set_model("hub", replace(LIVE, previous="v21", warmed_percent=80))
    status, document = await asked.get("api/v1/versions")
    live, new = document["versions"]
    assert (status, document["model"], document["ignored"]) == (200, "hub", [])
    assert [(each["version"], each["role"], each["warmed_percent"], each["bytes"]) for each in (live, new)] == [
        ("v22", "current", 80, 1),
        ("v23", None, None, 2),
    ]
    assert [(each["quarantined"], each["changed"]) for each in (live, new)] == [(False, None)] * 2
    await hub.journal.quarantine("hub", new["digest"], version="v23", operation=None, cause="it crashed")
    await hub.journal.quarantine("other", live["digest"], version="v22", operation=None, cause="it crashed")
    await hub.journal.record_content(KnownContent("hub", "v22", live["digest"], live["digest"], now_text()))
    disk.bucket["hub_v22/b"] = b"more"
    _, document = await asked.get("api/v1/versions?model=hub")
    live, new = document["versions"]
    assert (live["quarantined"], new["quarantined"]) == (False, True)
    assert (bool(live["changed"]), new["changed"]) == (True, None)


async def test_a_reason_that_is_too_long_is_refused_or_cut(asked: Asked) -> None:
    status, document = await asked.post("pause", json.dumps({"reason": "x" * 501}))
    assert (status, document["error"]["exit"]) == (400, 2)
    hub = asked.hub
    async with hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        status, document = await asked.post("switch", json.dumps({"version": "v23", "reason": "x" * 5000}))
        assert (status, len(document["operation"]["reason"])) == (202, 1000)
        await until(lambda: not hub.board.snapshot.operations, "the switch")


# -- who asks ---------------------------------------------------------------------------------------------------------


async def test_who_came_through_sudo_is_named_with_his_login(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {0: "root", 1000: "alice", 7: "x" * 500}

    def look_up(uid: int) -> Any:
        return SimpleNamespace(pw_name=known[uid])

    monkeypatch.setattr(pwd, "getpwuid", look_up)
    names = UserNames()
    for who, name in (
        (Peer(0), "root"),
        (Peer(0, 0), "root"),
        (Peer(0, 1000), "alice (as root)"),
        (Peer(1000, 1000), "alice"),
        (Peer(0, 4711), "uid 4711 (as root)"),
        (Peer(7), "x" * (peer.NAME_CHARACTERS - 1) + "…"),
    ):
        assert await names.operator(who) == name
    assert names._asked == {}


async def test_users_beyond_the_lookups_that_hang_are_known_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    comes = threading.Event()

    def hang(uid: int) -> Any:
        comes.wait(WAIT_S)
        return SimpleNamespace(pw_name=f"user{uid}")

    monkeypatch.setattr(pwd, "getpwuid", hang)
    names = UserNames()
    waiting = [asyncio.create_task(names.operator(Peer(uid))) for uid in range(peer.LOOKUPS)]
    await until(lambda: len(names._asked) == peer.LOOKUPS, "them to be asked for")
    async with asyncio.timeout(AT_ONCE_S):
        assert await names.operator(Peer(99)) == "uid 99"
    comes.set()
    assert await asyncio.gather(*waiting) == [f"user{uid}" for uid in range(peer.LOOKUPS)]
    assert await names.operator(Peer(99)) == "user99"


@pytest.mark.parametrize(
    ("content", "login"), [("1000", 1000), ("0\n", 0), ("4294967295", None), ("", None), ("x", None), (None, None)]
)
def test_the_login_of_a_process(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, content: str | None, login: int | None
) -> None:
    file = tmp_path_factory.mktemp("proc") / "loginuid"
    if content is not None:
        file.write_text(content)
    asked_for: list[str] = []

    def opened(path: str, **keys: Any) -> Any:
        asked_for.append(path)
        return file.open(**keys)

    monkeypatch.setattr(peer, "open", opened, raising=False)
    assert peer._login_uid(4711) == login
    assert asked_for == ["/proc/4711/loginuid"]
