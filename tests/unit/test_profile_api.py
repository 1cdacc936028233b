"""The access profile over the API: shown and removed, by model and version."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mountd.warm.access import AppStart, OpenedFile
from tests.support.shelf import Shelf, shelf

WHEN = "2026-01-02T03:04:05Z"
FILES = (OpenedFile("models/gpt.pth", 1000, 0.5), OpenedFile("config.yaml", 20, 1.25))


class Asked:
    def __init__(self, hub: Shelf, session: aiohttp.ClientSession) -> None:
        self.hub = hub
        self._session = session

    async def get(self, query: str = "") -> tuple[int, Any]:
        async with self._session.get(f"http://localhost/api/v1/profile{query}") as answer:
            return answer.status, await answer.json()

    async def forget(self, **body: object) -> tuple[int, Any]:
        async with self._session.post("http://localhost/api/v1/profile/forget", data=json.dumps(body)) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    root = Path(tempfile.mkdtemp(prefix="mountd-t-"))  # tmp_path would not fit into a Unix socket's address
    try:
        async with shelf(root) as hub, hub.serving() as socket:
            await hub.profiles.keep("hub", "webui", AppStart("v22", WHEN, FILES), {"webui"})
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
                yield Asked(hub, session)
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize("query", ["", "?model=hub", "?version=v22", "?model=hub&version=v22"])
async def test_it_is_shown(asked: Asked, query: str) -> None:
    status, document = await asked.get(query)
    assert (status, document["model"], document["bytes"]) == (200, "hub", 1020)
    assert document["apps"] == [{"app": "webui", "version": "v22", "recorded": WHEN, "partial": False}]
    assert [file["path"] for file in document["files"]] == ["models/gpt.pth", "config.yaml"]


@pytest.mark.parametrize(
    ("query", "status", "exit_code"),
    [("?version=v23", 404, 3), ("?model=voice", 404, 3), ("?version=../x", 400, 2), ("?version=latest", 400, 2)],
)
async def test_one_that_is_not_there(asked: Asked, query: str, status: int, exit_code: int) -> None:
    found, document = await asked.get(query)
    assert (found, document["error"]["exit"]) == (status, exit_code)


async def test_it_is_removed_once(asked: Asked) -> None:
    assert (await asked.forget(version="v23"))[0] == 404
    assert (await asked.forget(version="latest"))[0] == 400
    assert (await asked.forget(all=True))[0] == 400
    status, document = await asked.forget(model="hub", version="v22")
    assert (status, document["model"], document["apps"]) == (200, "hub", ["webui"])
    status, document = await asked.get()
    assert (status, document["error"]["exit"]) == (404, 3)
    assert (await asked.forget())[0] == 404
