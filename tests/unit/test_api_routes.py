"""What routes answer when something fails below them, and in which order they show lines."""

from __future__ import annotations

import errno
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from mountd import clock
from mountd.api.routes import errors_as_documents
from mountd.process.child import Ring
from tests.support.shelf import shelf


@pytest.mark.parametrize(
    ("number", "status", "traced"), [(errno.EIO, 503, True), (errno.ENOSPC, 503, False), (errno.EBADF, 500, True)]
)
async def test_what_the_system_refuses_leaves_its_place_in_the_log(number: int, status: int, traced: bool) -> None:
    async def fails(_: web.Request) -> web.Response:
        raise OSError(number, "it says no")

    application = web.Application(middlewares=[errors_as_documents])
    application.router.add_get("/fails", fails)
    with capture_logs() as logs:
        async with TestClient(TestServer(application)) as client, client.get("/fails") as answer:
            assert (answer.status, (await answer.json())["error"]["exit"]) == (status, 20 if status == 500 else 1)
    (entry,) = logs
    assert (entry["event"], entry["path"], bool(entry["exc_info"])) == ("request failed", "/fails", traced)


async def test_the_newest_lines_are_shown_after_the_clock_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    since = timedelta()
    monkeypatch.setattr(clock, "datetime", SimpleNamespace(now=lambda zone: datetime.now(zone) - since))
    with tempfile.TemporaryDirectory(prefix="mountd-t-") as root:
        async with shelf(Path(root)) as hub, hub.serving() as socket:
            hub.rings |= {"storage": Ring(), "webui": Ring()}
            for name in ("storage", "webui"):
                hub.rings[name].append(f"{name} before")
            since = timedelta(hours=1)
            for name in ("webui", "storage"):
                hub.rings[name].append(f"{name} after")
            socket_of = aiohttp.UnixConnector(str(socket))
            async with (
                aiohttp.ClientSession(connector=socket_of) as session,
                session.get("http://localhost/api/v1/logs?lines=3") as answer,
            ):
                rows = (await answer.json())["logs"]
    assert [row["text"] for row in rows] == ["webui before", "webui after", "storage after"]
