"""In which order routes show lines."""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest

from mountd.process import child
from mountd.process.child import Ring
from tests.support.shelf import shelf


async def test_the_newest_lines_are_shown_after_the_clock_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    since = timedelta()
    monkeypatch.setattr(child, "datetime", SimpleNamespace(now=lambda zone: datetime.now(zone) - since))
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
