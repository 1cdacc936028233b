"""The API on a real socket over a real journal: clients that go away, hold on, or whose names do not come."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pwd
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import pytest

from mountd.api import connections, peer, server, shielded
from mountd.errors import Busy
from mountd.journal import database
from mountd.journal.journal import Committed
from mountd.operation import plan
from tests.support.shelf import Shelf, shelf, until

URL = "http://localhost/api/v1/"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


SOON_S = 45.0


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the product waits for may come late on a busy machine."""
    monkeypatch.setattr(peer, "NAME_LIMIT_S", 60.0)
    monkeypatch.setattr(database, "LOCKED_S", 60.0)  # a test that holds it may be held up itself
    monkeypatch.setattr(server, "CUT_OFF_S", 60.0)
    for name in ("FLIP_S", "COMMIT_S"):
        monkeypatch.setattr(plan, name, 60.0)


@dataclass
class Served:
    hub: Shelf
    socket: Path
    session: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(URL + path) as answer:
            return answer.status, await answer.json()

    async def post(self, path: str, **body: Any) -> tuple[int, Any]:
        async with self.session.post(URL + path, json=body) as answer:
            return answer.status, await answer.json()

    async def connect(self, request: str = "", **body: Any) -> Connection:
        """A connection of its own, on which `request` was sent."""
        found = await asyncio.open_unix_connection(str(self.socket))
        data = json.dumps(body)
        if request:
            head = f"{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
            found[1].write(f"{head}{data}".encode())
        return found

    async def left(self, path: str, **body: Any) -> None:
        """Asks, and goes away in the middle of it, while it waits for a journal that is locked."""
        _, writer = await self.connect(f"POST /api/v1/{path}", **body)
        await until(self.is_writing, "the request to be at the journal")
        tasks = asyncio.all_tasks()
        writer.transport.abort()
        await until(lambda: any(task.done() for task in tasks), "mountd to see it")

    def is_writing(self) -> bool:
        try:
            self.hub.operations.check_free()
        except Busy:
            return True
        return self.hub.model.state._lock.locked()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    root = Path(tempfile.mkdtemp(prefix="mountd-t-"))  # tmp_path would not fit into a Unix socket's address
    try:
        async with shelf(root) as hub, hub.running(), hub.serving() as socket:
            await until(lambda: hub.status.linked, "v22 to be linked")
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
                yield Served(hub, socket, session)
    finally:
        shutil.rmtree(root)


# -- clients that go away ---------------------------------------------------------------------------------------------


async def test_a_change_is_made_whole_when_the_one_who_asked_goes_away(served: Served) -> None:
    hub = served.hub
    with hub.locked():
        await served.left("switch", version="v23")
    await until(lambda: hub.model.committed.current == "v23", "the switch to be carried out")
    (operation,) = await hub.journal.history(limit=5)
    await until(lambda: not hub.board.snapshot.operations, "its end")
    assert (operation.to_version, operation.operator) == ("v23", pwd.getpwuid(os.getuid()).pw_name)
    with hub.locked():
        await served.left("pause", reason="night")
    await until(lambda: hub.model.committed.suspended, "the pause")
    assert (await hub.journal.committed("hub")).suspended == hub.model.committed.suspended
    async with asyncio.timeout(SOON_S):
        while "suspended" not in [each.code for each in await hub.journal.events(limit=5)]:
            await asyncio.sleep(0.01)


async def test_the_end_of_mountd_waits_for_it() -> None:
    root = Path(tempfile.mkdtemp(prefix="mountd-t-"))
    try:
        async with shelf(root) as hub:
            await hub.desired.load("hub")
            serving = hub.serving()
            async with aiohttp.ClientSession() as session:
                with hub.locked():
                    await Served(hub, await serving.__aenter__(), session).left("pause")
                    ending = asyncio.create_task(serving.__aexit__(None, None, None))
                    await asyncio.wait([ending], timeout=0.1)
                    assert not ending.done()
                await ending
            assert hub.model.committed.suspended
            assert (await hub.journal.committed("hub")).suspended == hub.model.committed.suspended
    finally:
        shutil.rmtree(root)


async def test_no_more_than_so_many_are_carried_out_at_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shielded, "AT_ONCE", 2)
    served.hub.disk.gate.clear()
    asking = [await served.connect("POST /api/v1/switch", version="v23", dry_run=True) for _ in range(2)]
    async with asyncio.timeout(SOON_S):
        while (await served.post("resume"))[0] != 409:
            await asyncio.sleep(0.01)
    status, document = await served.post("resume")
    assert (status, document["error"]["exit"], document["error"]["holder"]) == (409, 6, "2 requests")
    assert (await served.get("status"))[0] == 200
    served.hub.disk.gate.set()
    for reader, writer in asking:
        assert (await asyncio.wait_for(reader.readline(), SOON_S)).split()[1] == b"200"
        writer.close()
    assert (await served.post("resume"))[0] == 200


# -- clients that hold on ---------------------------------------------------------------------------------------------


async def test_a_stream_outlives_any_number_of_short_connections_and_yields_to_open_ones(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    stream, writer = await served.connect("GET /api/v1/events?follow=1")
    assert (await stream.readline()).split()[1] == b"200"
    for number in range(50):
        _, other = await served.connect()
        other.close()
        await other.wait_closed()
        if number % 10 == 0:
            assert (await served.get("status"))[0] == 200
    await served.hub.journal.event("ready", "hub", "here I am")
    async with asyncio.timeout(SOON_S):
        while b"here I am" not in await stream.readline():
            assert not stream.at_eof(), "the stream was cut"

    # All at once, so that several are accepted in one go.
    held = await asyncio.gather(*(served.connect() for _ in range(60)))
    await until(lambda: sum(not reader.at_eof() for reader, _ in held) <= 20, "the oldest to be cut off")
    assert (await served.get("status"))[0] == 200
    assert not held[-1][0].at_eof(), "the newest stays"
    async with asyncio.timeout(SOON_S):
        while not stream.at_eof():
            await stream.read(1000)
    for _, each in (*held, (stream, writer)):
        each.close()


async def test_streams_yield_before_others(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    waiting = asyncio.create_task(served.get("status?wait=60&for=version=v23"))
    silent, quiet = await served.connect()
    streams = []
    for request in ["GET /api/v1/events?follow=1", "GET /api/v1/logs?follow=1"] * 30:
        streams.append(await served.connect(request))
        assert (await streams[-1][0].readline()).split()[1] == b"200"
    open_ones = await asyncio.gather(*(is_open(reader) for reader, _ in streams))
    assert open_ones == sorted(open_ones), "the oldest yield"
    assert 10 < sum(open_ones) < 20
    assert await is_open(silent)
    assert (await served.post("switch", version="v23"))[0] == 202
    assert (await asyncio.wait_for(waiting, SOON_S))[0] == 200
    for _, each in (*streams, (silent, quiet)):
        each.close()


async def is_open(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(1.0):
            while await reader.read(65536):
                pass
    except TimeoutError:
        return True
    return False


async def test_nothing_is_kept_of_what_cannot_be_parsed(served: Served) -> None:
    """Not even until the garbage is collected."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            reader, writer = await served.connect()
            writer.write(b"GET /" + b"a" * 100_000)
            assert (await asyncio.wait_for(reader.readline(), SOON_S)).split()[1] == b"400"
            writer.transport.abort()
        await until(lambda: not kept(), "the last one to be forgotten")
    finally:
        gc.enable()


def kept() -> list[TracebackType]:
    """Tracebacks through the parser, which hold the data."""
    found = [each for each in gc.get_objects() if isinstance(each, TracebackType)]
    return [each for each in found if each.tb_frame.f_code.co_name == "data_received"]


# -- who asks ---------------------------------------------------------------------------------------------------------


async def test_a_name_that_does_not_come_stops_nobody(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    comes, asked, name = threading.Event(), [], pwd.getpwuid(os.getuid())

    def hang(uid: int) -> Any:
        asked.append(uid)
        comes.wait(60)
        return name

    monkeypatch.setattr(peer, "NAME_LIMIT_S", 0.2)
    monkeypatch.setattr(pwd, "getpwuid", hang)
    try:
        pausing = asyncio.create_task(served.post("pause"))
        await until(lambda: asked, "the name to be asked for")
        assert not comes.is_set()
        assert (await served.get("status"))[0] == 200
        _, document = await pausing
        assert document["models"][0]["suspended"] == f"uid {os.getuid()}"
        await served.post("resume")
        assert asked == [os.getuid()], "one thread a user"
    finally:
        comes.set()

    async def name_is_known() -> bool:
        await served.post("resume")
        _, document = await served.post("pause")
        return bool(document["models"][0]["suspended"] == name.pw_name)

    async with asyncio.timeout(SOON_S):
        while not await name_is_known():
            await asyncio.sleep(0.01)


async def test_a_thread_that_cannot_be_started_is_tried_again_at_the_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(peer, "NAME_LIMIT_S", 60.0)
    names, me = peer.UserNames(), peer.Peer(os.getuid())
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        async with asyncio.timeout(peer.NAME_LIMIT_S / 2):  # nothing is waited for
            for uid in range(peer.LOOKUPS + 1):
                assert await names.operator(peer.Peer(uid)) == f"uid {uid}"
    assert await names.operator(me) == pwd.getpwuid(os.getuid()).pw_name


async def test_a_lookup_that_fails_is_answered_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(uid: int) -> Any:
        raise MemoryError

    monkeypatch.setattr(peer, "NAME_LIMIT_S", 60.0)
    names, me = peer.UserNames(), peer.Peer(os.getuid())
    with monkeypatch.context() as failing:
        failing.setattr(pwd, "getpwuid", fail)
        raised = threading.Event()
        failing.setattr(threading, "excepthook", lambda _: raised.set())
        async with asyncio.timeout(peer.NAME_LIMIT_S / 2):
            assert await names.operator(me) == f"uid {os.getuid()}"
            await asyncio.to_thread(raised.wait)
    assert await names.operator(me) == pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.parametrize("path", ["operations", "history"])
async def test_an_id_that_no_journal_can_have(served: Served, path: str) -> None:
    for id_ in (str(2**63), "9" * 400, "-1", "x", "٣"):
        status, document = await served.get(f"{path}/{id_}")
        assert (status, document["error"]["exit"]) == (400, 2), id_
    status, document = await served.get(f"{path}/{2**63 - 1}")
    assert (status, document["error"]["exit"]) == (404, 3)


# -- waiting for a version --------------------------------------------------------------------------------------------


async def test_a_version_is_waited_for_until_the_link_points_there(served: Served) -> None:
    hub = served.hub
    assert (await hub.journal.committed("hub")) == Committed("v22", None, "v22", "v22")
    await hub.model.suspend("alice")
    hub.point("/somewhere/else")
    await until(lambda: hub.status.drift.reason, "the link to be seen")
    waiting = asyncio.create_task(served.get("status?wait=60&for=version=v22"))
    _, document = await served.get("status?wait=0.1&for=version=v22")
    assert "link-drifted" in [reason["code"] for reason in document["reasons"]]
    assert not waiting.done()
    assert (await served.post("switch", version="v22"))[0] == 202
    _, document = await asyncio.wait_for(waiting, SOON_S)
    assert (document["operation"], hub.target) == (None, "hub_v22")
    assert "link-drifted" not in [reason["code"] for reason in document["reasons"]]
