"""History and events over the API and the command line: a real journal on a real socket, no mount."""

from __future__ import annotations

import asyncio
import json
import os
import select
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mountd.api import history
from mountd.api.history import HistoryRoutes
from mountd.api.routes import errors_as_documents
from mountd.clock import now_text
from mountd.journal.journal import Drilled, Journal
from mountd.operation.results import ResultStore
from mountd.status.board import Board

SOON_S = 60.0


@dataclass
class Served:
    """What a daemon would serve of its journal, and ways to ask it."""

    journal: Journal
    board: Board
    session: aiohttp.ClientSession
    socket: Path

    async def get(self, path: str, **parameters: Any) -> tuple[int, Any]:
        async with self.session.get(f"http://localhost{path}", params=parameters) as answer:
            return answer.status, await answer.json()

    @asynccontextmanager
    async def stream(self, headers: dict[str, str] | None = None, **parameters: Any) -> AsyncIterator[Stream]:
        url = "http://localhost/api/v1/events"
        async with self.session.get(url, params=parameters, headers=headers) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            yield Stream(answer)

    async def cli(self, *words: str) -> tuple[int, str, str]:
        child = await self.command(*words)
        out, err = await asyncio.wait_for(child.communicate(), SOON_S)
        assert child.returncode is not None
        return child.returncode, out.decode(), err.decode()

    async def command(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mountd", "--socket", str(self.socket), *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "COLUMNS": "200"},
        )

    async def operate(
        self, to_version: str, result: str | None = "committed", *, model: str = "hub", kind: str = "switch", **end: str
    ) -> int:
        record = await self.journal.begin(
            kind=kind,
            model=model,
            from_version="v22",
            to_version=to_version,
            operator="tina",
            source="cli",
            reason="the nightly release",
            step="preflight",
        )
        for step in ("preflight", "flip"):
            await self.journal.begin_step(record.id, step)
            await self.journal.end_step(record.id, step, "done")
        if result is not None:
            texts = {"cause": "", "hint": "", **end}
            ended = replace(record, finished=now_text(), result=result, cause=texts["cause"], hint=texts["hint"])
            await self.journal.finish(replace(ended, exit_code=5, duration_s=12.34))
        return record.id


class Stream:
    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def line(self) -> str:
        """The next one; "" at the end."""
        return (await asyncio.wait_for(self._answer.content.readline(), SOON_S)).decode()

    async def events(self, count: int) -> list[Any]:
        """The next ones; each has its id before it."""
        found: list[Any] = []
        id_ = ""
        deadline = asyncio.get_running_loop().time() + SOON_S
        while len(found) < count:
            line = await self.line()
            assert asyncio.get_running_loop().time() < deadline, "only signs of life come"
            assert line, "the stream has ended"
            if line.startswith("id: "):
                id_ = line.removeprefix("id: ").strip()
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
                assert str(found[-1]["id"]) == id_
        return found


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    root = Path(tempfile.mkdtemp(prefix="mountd-t-"))  # tmp_path would not fit into a Unix socket's address
    journal, board = Journal(root / "mountd.db"), Board()
    await journal.open()
    app = web.Application(middlewares=[errors_as_documents])
    app.add_routes([each.definition for each in HistoryRoutes(journal, board, ResultStore(journal)).reads()])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.UnixSite(runner, str(root / "s")).start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(root / "s"))) as session:
            yield Served(journal, board, session, root / "s")
    finally:
        await runner.cleanup()
        await journal.close()
        shutil.rmtree(root)


# -- history ----------------------------------------------------------------------------------------------------------


async def test_history_newest_first_with_filters_and_pages(served: Served) -> None:
    ids = [
        await served.operate("v1"),
        await served.operate("v2", "rolled-back", cause="it crashed", hint="look"),
        await served.operate("v3", model="other"),
        await served.operate("v4", None),
    ]
    status, document = await served.get("/api/v1/history")
    assert (status, document["schema"], document["next"]) == (200, 1, None)
    assert [each["id"] for each in document["history"]] == ids[::-1]
    newest, _, second, _ = document["history"]
    assert newest["finished"] is newest["result"] is newest["duration_s"] is None
    wanted = {"id": ids[1], "kind": "switch", "model": "hub", "from": "v22", "to": "v2", "operator": "tina"}
    wanted |= {"result": "rolled-back", "reason": "the nightly release", "duration_s": 12.34, "cause": "it crashed"}
    assert wanted.items() <= second.items()
    _, page = await served.get("/api/v1/history", limit=3)
    assert ([each["id"] for each in page["history"]], page["next"]) == (ids[:0:-1], ids[1])
    _, page = await served.get("/api/v1/history", limit=3, before=page["next"])
    assert ([each["id"] for each in page["history"]], page["next"]) == (ids[:1], None)
    for key, value, found in (("model", "other", [ids[2]]), ("result", "rolled-back", [ids[1]]), ("kind", "drill", [])):
        _, document = await served.get("/api/v1/history", **{key: value})
        assert [each["id"] for each in document["history"]] == found


async def test_the_last_page_has_no_next_also_when_it_is_full(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [await served.operate(f"v{number}") for number in range(4)]
    _, page = await served.get("/api/v1/history", limit=2)
    assert ([each["id"] for each in page["history"]], page["next"]) == ([ids[3], ids[2]], ids[2])
    _, page = await served.get("/api/v1/history", limit=2, before=page["next"])
    assert ([each["id"] for each in page["history"]], page["next"]) == ([ids[1], ids[0]], None)
    assert await served.get("/api/v1/history", limit=0) == (200, {"schema": 1, "history": [], "next": None})
    monkeypatch.setattr(history, "DEFAULT_LIMIT", 1)
    monkeypatch.setattr(history, "MAX_LIMIT", 3)
    for limit, shown in ({}, 1), ({"limit": 99}, 3):
        assert len((await served.get("/api/v1/history", **limit))[1]["history"]) == shown


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/history?limit=many", 400),
        ("/api/v1/history?limit=-1", 400),
        ("/api/v1/history?before=99999999999999999999", 400),
        ("/api/v1/history/x", 400),
        ("/api/v1/history/7", 404),
        ("/api/v1/events?after=x", 400),
        ("/api/v1/events?limit=-1&follow=1", 400),
    ],
)
async def test_what_cannot_be_asked_is_refused_in_words(served: Served, path: str, status: int) -> None:
    found, document = await served.get(path)
    assert found == status
    assert document["error"]["text"].startswith("cannot ")


async def test_a_line_of_the_history_says_who_did_what_and_why(served: Served) -> None:
    code, out, err = await served.cli("history")
    assert (code, out, bool(err.strip())) == (0, "", True)
    await served.operate("v23")
    id_ = await served.operate("v24", "rolled-back", cause="webui crashed", hint="see its log")
    await served.operate("v25", None)
    code, out, _ = await served.cli("history")
    assert code == 0
    heading, runs, failed, committed = out.splitlines()
    assert heading.split() == ["ID", "WHEN", "WHO", "WHAT", "RESULT", "SECONDS", "WHY"]
    assert [word in runs for word in ("switch", "v22 → v25", "flip")] == [True] * 3
    for words in (
        str(id_),
        "tina",
        "switch hub",
        "v22 → v24",
        "rolled-back",
        "12.3",
        "the nightly release",
        "webui crashed",
    ):
        assert words in failed
    assert committed.endswith("the nightly release")
    code, out, _ = await served.cli("history", "--result", "committed", "--limit", "1", "-o", "json")
    (only,) = json.loads(out)["history"]
    assert (code, only["to"]) == (0, "v23")


async def test_one_operation_with_its_steps_and_what_to_do(served: Served) -> None:
    id_ = await served.operate("v24", "rolled-back", cause="webui crashed", hint="see its log")
    code, out, _ = await served.cli("history", str(id_))
    assert code == 0
    for words in (
        "switch hub",
        "v22 → v24",
        "rolled-back",
        "12.3 s",
        "tina",
        "nightly",
        "webui crashed",
        "see its log",
    ):
        assert words in out
    steps = [line.split() for line in out.splitlines()[-3:]]
    assert steps[0] == ["STEP", "BEGAN", "SECONDS", "OUTCOME"]
    assert [(line[0], line[2], line[3]) for line in steps[1:]] == [
        ("preflight", "0.0", "done"),
        ("flip", "0.0", "done"),
    ]
    _, out, _ = await served.cli("history", str(id_), "-o", "json")
    assert [step["step"] for step in json.loads(out)["steps"]] == ["preflight", "flip"]
    code, _, err = await served.cli("history", str(id_ + 1))
    assert code == 3
    assert str(id_ + 1) in err


async def test_a_drill_is_shown_with_what_it_measured(served: Served) -> None:
    id_ = await served.operate("kill", "passed", model="storage", kind="drill")
    limits = {"detected_s": 2, "serving_again_s": 15, "ready_again_s": 60}
    details = json.dumps({"limits": limits, "rclone_restarted": True, "cached_reads": None})
    await served.journal.record_drill(
        Drilled(id_, "kill", "storage", 0.31, 4.5, 9.0, app_restarted=True, passed=True, details=details)
    )
    _, out, _ = await served.cli("history", "--model", "storage")
    assert [word in out for word in ("drill", "kill", "storage")] == [True] * 3
    _, out, _ = await served.cli("history", str(id_))
    assert "0.31 s" in out
    assert [word in out for word in ("drill", "kill", "storage", "passed")] == [True] * 4
    assert (await served.get(f"/api/v1/history/{id_}"))[1]["drill"]["detected_s"] == 0.31


# -- events -----------------------------------------------------------------------------------------------------------


async def record(served: Served, *texts: str, code: str = "ready", object_: str = "mountd") -> None:
    for text in texts:
        await served.journal.event(code, object_, text)


def texts(events: list[Any]) -> list[str]:
    return [event["text"] for event in events]


async def test_events_page_by_page_from_the_newest_on(served: Served) -> None:
    for number in range(5):
        await served.journal.event("tested", "hub", str(number))
    found: list[str] = []
    before: dict[str, int] = {}
    while page := (await served.get("/api/v1/events", limit=2, **before))[1]["events"]:
        found = [each["text"] for each in page] + found
        before = {"before": page[0]["id"]}
    assert found == [str(number) for number in range(5)]
    assert [each["text"] for each in (await served.get("/api/v1/events", after=1, before=4))[1]["events"]] == ["1", "2"]
    assert (await served.get("/api/v1/events", before="x"))[0] == 400


async def test_events_by_what_is_asked_for(served: Served) -> None:
    await record(served, "a", "b")
    await record(served, "webui crashed", code="app-backoff", object_="webui")
    _, document = await served.get("/api/v1/events", limit=2)
    assert texts(document["events"]) == ["b", "webui crashed"]
    _, document = await served.get("/api/v1/events", after=document["events"][0]["id"])
    assert texts(document["events"]) == ["webui crashed"]
    _, document = await served.get("/api/v1/events", object="webui")
    assert texts(document["events"]) == ["webui crashed"]
    code, out, _ = await served.cli("events", "--code", "ready")
    assert code == 0
    assert [line.partition(" ")[2] for line in out.splitlines()] == ["ready: mountd: a", "ready: mountd: b"]
    _, out, _ = await served.cli("events", "--object", "webui")
    assert out.partition(" ")[2] == "app-backoff: webui crashed\n"


@pytest.mark.parametrize("how", [{"follow": "1"}, {}])
async def test_a_stream_goes_on_with_what_comes_and_is_resumed_without_a_gap(
    served: Served, how: dict[str, str]
) -> None:
    accept = {} if how else {"Accept": "text/event-stream"}
    await record(served, "a", "b", "c")
    async with served.stream(accept, limit="2", **how) as stream:
        first = await stream.events(2)
        await record(served, "d")
        first += await stream.events(1)
    assert texts(first) == ["b", "c", "d"]
    await record(served, *(str(number) for number in range(history.STREAM_PAGE * 2 + 5)))
    async with served.stream({**accept, "Last-Event-ID": str(first[-1]["id"])}, **how) as stream:
        missed = await stream.events(history.STREAM_PAGE * 2 + 5)
        await record(served, "e")
        missed += await stream.events(1)
    assert texts(missed) == [*(str(number) for number in range(history.STREAM_PAGE * 2 + 5)), "e"]


async def test_a_stream_has_only_what_was_asked_for_and_no_line_that_breaks_it(served: Served) -> None:
    async with served.stream(follow="1", object="webui") as stream:
        await record(served, "not this one")
        await record(served, "two\nlines 声音\n\ndata: x", object_="webui")
        (event,) = await stream.events(1)
    assert event["text"] == "two\nlines 声音\n\ndata: x"


async def test_who_reconnects_with_the_newest_event_hears_nothing_twice(served: Served) -> None:
    await record(served, "a", "b")
    newest = await served.journal.last_event()
    for headers, query in (({"Last-Event-ID": str(newest)}, {"after": 0}), ({}, {"after": newest})):
        async with served.stream(headers, follow="1", **query) as stream:
            await record(served, "new")
            assert texts(await stream.events(1)) == ["new"]
        newest = await served.journal.last_event()


async def test_after_a_lost_journal_all_of_the_new_one_is_reported(served: Served) -> None:
    await record(served, "a")
    async with served.stream({"Last-Event-ID": "4711"}, follow="1") as stream:
        assert texts(await stream.events(1)) == ["a"]


async def test_a_quiet_stream_is_kept_alive_and_ends_with_mountd(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "KEEP_ALIVE_S", 0.1)
    monkeypatch.setattr(history, "LOOK_S", 0.05)
    async with served.stream(follow="1") as stream:
        lines = [await stream.line() for _ in range(6)]
        assert lines.count(":\n") == 2
        served.board.set_stopping()
        while await stream.line():
            pass


async def test_a_reader_that_takes_nothing_holds_a_page_and_is_let_go(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "WRITE_LIMIT_S", 0.2)
    asked: list[int] = []
    read = served.journal.events

    async def counted(after: int | None = None, *, limit: int, **filters: Any) -> Any:
        asked.append(limit)
        return await read(after, limit=limit, **filters)

    monkeypatch.setattr(served.journal, "events", counted)
    big = "x" * 100_000
    with socket.socket(socket.AF_UNIX) as reader:
        reader.connect(str(served.socket))
        reader.sendall(b"GET /api/v1/events?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await record(served, *([big] * 50))
        poll = select.poll()
        poll.register(reader, select.POLLHUP)
        async with asyncio.timeout(SOON_S):
            while not poll.poll(0):
                await asyncio.sleep(0.02)
    assert max(asked) <= history.STREAM_PAGE


async def test_followed_on_the_command_line_until_it_is_ended(served: Served) -> None:
    await record(served, "webui is running", object_="webui")
    child = await served.command("events", "--follow", "-o", "json")
    try:
        assert child.stdout is not None
        assert json.loads(await asyncio.wait_for(child.stdout.readline(), SOON_S))["text"] == "webui is running"
        await record(served, "a \x1b[2J")
        assert json.loads(await asyncio.wait_for(child.stdout.readline(), SOON_S))["text"] == "a \x1b[2J"
    finally:
        child.kill()
        await child.communicate()
    _, out, _ = await served.cli("events")
    assert "\x1b" not in out
