"""The stream of the dashboard: what it sends and when, that it costs little, and that no reader holds anything up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mountd.api import history, live
from mountd.api.connections import MAX_CONNECTIONS
from mountd.status.snapshot import CacheStatus, Health
from tests.support.admitted import Admitting, admitting
from tests.support.shelf import MOUNT, until

SOON_S = 60.0
STREAM = "/api/v1/stream"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Admitting]:
    async with admitting(tmp_path) as found:
        await found.listen()
        await until(lambda: found.hub.status.linked, "v22 to be linked")
        yield found


class Messages:
    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def next(self, kind: str = "") -> Any:
        """The data of the next one, of this kind if one is named; None at the end."""
        found: dict[str, str] = {}
        async with asyncio.timeout(SOON_S):
            while line := (await self._answer.content.readline()).decode():
                if line != "\n":
                    name, _, value = line.rstrip("\n").partition(": ")
                    found[name] = value
                elif "data" in found and kind in ("", found["event"]):
                    return {**json.loads(found["data"]), "kind": found["event"]}
                else:
                    found = {}
        return None


@asynccontextmanager
async def reading(api: Admitting, query: str = "", **headers: str) -> AsyncIterator[Messages]:
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{api.port}{STREAM}{query}"
        async with session.get(url, headers=headers) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/event-stream"
            yield Messages(answer)


def change(api: Admitting, number: int) -> None:
    api.hub.board.set_mount("storage", replace(MOUNT, cache=CacheStatus(bytes_used=number)))


def used(status: Any) -> int:
    found: int = status["mounts"]["storage"]["cache"]["bytes_used"]
    return found


async def test_the_status_comes_at_once_and_after_each_change(api: Admitting) -> None:
    async with reading(api) as messages:
        first = await messages.next("status")
        asked = (await api.ask("/api/v1/status")).json
        assert {**first, "kind": 0, "uptime_s": 0} == {**asked, "kind": 0, "uptime_s": 0}
        api.hub.board.set_mount("storage", replace(MOUNT, health=Health.DEGRADED))
        assert (await messages.next("status"))["health"] == "Degraded"


async def test_many_changes_are_few_messages_and_the_last_one_is_sent(api: Admitting) -> None:
    async with reading(api) as messages:
        await messages.next("status")
        began, seen = time.monotonic(), 0
        for number in range(1, 2001):
            change(api, number)
            if number % 20 == 0:
                await asyncio.sleep(0.001)
        while used(await messages.next("status")) != 2000:
            seen += 1
        assert seen + 1 <= (time.monotonic() - began) / live.EACH_S + 1


async def test_events_come_with_their_ids_and_from_where_the_reader_was(api: Admitting) -> None:
    journal = api.hub.journal
    async with reading(api) as messages:
        await messages.next("status")
        await journal.event("tested", "hub", "one", {"key": 1})
        event = await messages.next("event")
        assert (event["code"], event["object"], event["text"], event["data"]) == ("tested", "hub", "one", {"key": 1})
    for text in ("two", "three"):
        await journal.event("tested", "hub", text)
    for query, headers in ((f"?after={event['id']}", {}), ("?after=0", {"Last-Event-ID": str(event["id"])})):
        async with reading(api, query, **headers) as messages:
            assert [(await messages.next("event"))["text"] for _ in range(2)] == ["two", "three"]
    async with reading(api, f"?after={event['id'] + 1000}") as messages:  # of a journal that was lost
        assert (await messages.next("event"))["id"] == 1
    assert (await api.ask(f"{STREAM}?after=x")).status == 400


async def test_more_events_than_fit_into_one_message_all_come(api: Admitting) -> None:
    count = history.STREAM_PAGE + 50
    for number in range(count):
        await api.hub.journal.event("tested", "hub", str(number))
    async with reading(api, "?after=0") as messages:
        found: list[str] = []
        while len(found) < count:
            event = await messages.next("event")
            found += [event["text"]] if event["code"] == "tested" else []
        assert found == [str(number) for number in range(count)]


async def test_a_reader_hears_something_while_nothing_happens(api: Admitting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "ALIVE_S", 0.2)
    async with reading(api) as messages:
        await messages.next("status")
        assert (await messages.next())["kind"] == "status"


async def test_without_a_journal_there_is_still_a_status_and_its_events_come_later(
    api: Admitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "AGAIN_S", 0.2)
    monkeypatch.setattr(live, "LOOK_S", 0.1)

    def rename(before: str, after: str) -> None:
        with contextlib.closing(sqlite3.connect(api.hub.journal.path, timeout=SOON_S)) as other:
            other.execute(f"ALTER TABLE {before} RENAME TO {after}")

    await api.hub.journal.event("tested", "hub", "one")
    await asyncio.to_thread(rename, "events", "gone")
    async with reading(api, "?after=0") as messages:
        assert used(await messages.next("status")) == 0
        change(api, 7)
        assert used(await messages.next("status")) == 7
        await asyncio.to_thread(rename, "gone", "events")
        assert (await messages.next("event"))["text"] != ""


async def test_it_ends_when_mountd_stops(api: Admitting) -> None:
    async with reading(api) as messages:
        await messages.next("status")
        api.hub.board.set_stopping()
        await messages.next("status")
        assert await messages.next() is None


async def test_a_reader_that_reads_nothing_is_disconnected(api: Admitting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "WRITE_LIMIT_S", 0.5)
    monkeypatch.setattr(live, "EACH_S", 0.001)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(slow, ("127.0.0.1", api.port))
        slow.send(f"GET {STREAM} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        server = api.server._tcp
        assert server is not None
        served = server.runner.server
        assert served is not None
        await until(lambda: served.connections, "it to be connected")
        number = 0

        def is_gone() -> bool:
            nonlocal number
            number += 1
            # Large ones: the kernel takes some megabytes before anything has to wait.
            api.hub.board.set_mount("storage", replace(MOUNT, path=f"/{number}/" + "x" * 200_000))
            return not served.connections

        await until(is_gone, "it to be disconnected")


@pytest.mark.timeout(180)
async def test_a_thousand_streams_keep_nobody_out(api: Admitting) -> None:
    """The oldest ones are closed; others are answered all the time, and the control socket has room of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        async with AsyncExitStack() as stack:
            for number in range(1000):
                reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
                stack.callback(writer.transport.abort)
                writer.write(f"GET {STREAM} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                if number % 100 == 99:
                    assert (await reader.readline()).split()[1] == b"200"
                    assert (await api.ask("/readyz")).status == 200
            server = api.server._tcp
            assert server is not None
            served = server.runner.server
            assert served is not None
            await until(lambda: len(served.connections) <= MAX_CONNECTIONS, "the oldest to be closed")
            change(api, 1)
            assert (await api.ask("/api/v1/status")).status == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
