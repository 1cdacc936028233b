"""The route of webhooks over TCP: a client that knows the secret has the source read at once; others learn nothing."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mountd.api import webhook as api
from mountd.operation import follow
from mountd.settings.http import HttpSettings
from tests.support.shelf import Shelf, shelf, until
from tests.support.tasks import tasks_of
from tests.unit.test_api_tcp import port_of

SECRET = "It's a Secret to Everybody"
BODY = b'{"ref": "refs/heads/main"}'


def signature(body: bytes = BODY, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@pytest.fixture
async def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shelf]:
    """A model whose source is followed, and which has a webhook."""
    monkeypatch.setattr(follow, "LEAST_PAUSE_S", 0.0)
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    webhook = {"secret": {"file": str(tmp_path / "secret")}}
    git = {"url": "https://git.example.com/deploy.git", "path": "version", "webhook": webhook}
    async with shelf(tmp_path, desired={"git": git}) as found:
        found.source.prepares("v22")
        async with found.running(), tasks_of(found.board) as group:
            found.desired.begin(group)
            await until(lambda: found.status.source and found.status.source.is_known, "it to be read")
            yield found
            found.desired.drop("hub")


@pytest.fixture
async def port(hub: Shelf) -> AsyncIterator[int]:
    server = hub.server()
    await server.listen_tcp(HttpSettings(listen="127.0.0.1:0"))
    yield port_of(server)
    await server.close()


async def post(port: int, headers: dict[str, str], body: Any = BODY, model: str = "hub") -> tuple[int, dict[str, Any]]:
    url = f"http://127.0.0.1:{port}/api/v1/webhook/{model}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers={"Host": "mountd.example.com", **headers}) as answer,
    ):
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Hub-Signature-256": f"sha256={signature()}", "X-GitHub-Event": "push"},
        {"X-Gitea-Signature": signature(), "X-Gitea-Event": "push"},
        {"X-Gitlab-Token": SECRET, "X-Gitlab-Event": "Push Hook"},
    ],
)
async def test_who_knows_the_secret_has_it_read_at_once(hub: Shelf, port: int, headers: dict[str, str]) -> None:
    before = hub.source.readings
    assert await post(port, headers) == (202, {"schema": 1, "model": "hub"})
    await until(lambda: hub.source.readings == before + 1, "it to be read")


@pytest.mark.parametrize(
    ("headers", "model"),
    [
        ({}, "hub"),
        ({"X-Hub-Signature-256": f"sha256={signature(secret='another')}"}, "hub"),
        ({"X-Hub-Signature-256": f"sha256={signature(b'{}')}"}, "hub"),
        ({"X-Gitlab-Token": "another"}, "hub"),
        ({"X-Gitlab-Token": SECRET}, "voices"),
    ],
)
async def test_nobody_else_has_it_read_or_learns_why(
    hub: Shelf, port: int, headers: dict[str, str], model: str
) -> None:
    before = hub.source.readings
    status, document = await post(port, headers, model=model)
    assert status == 401
    assert SECRET not in str(document)
    assert (status, document) == await post(port, {"X-Gitlab-Token": "nothing"})
    assert hub.source.readings == before


async def test_a_secret_that_cannot_be_read_lets_nobody_in(hub: Shelf, port: int) -> None:
    (hub.directory / "secret").unlink()
    assert (await post(port, {"X-Gitlab-Token": SECRET}))[0] == 401
    assert (await post(port, {"X-Gitlab-Token": ""}))[0] == 401


async def test_a_body_of_any_size_is_hashed_and_not_kept(
    hub: Shelf, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = b"x" * (2 << 20)
    headers = {"X-Hub-Signature-256": f"sha256={signature(large)}"}
    assert (await post(port, headers, large))[0] == 202
    monkeypatch.setattr(api, "MAX_BODY_BYTES", 1 << 20)
    assert (await post(port, headers, large))[0] == 401


async def test_a_body_that_does_not_come_is_waited_for_so_long(
    hub: Shelf, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "BODY_S", 0.1)

    async def slow() -> AsyncIterator[bytes]:
        yield BODY[:1]
        await asyncio.sleep(1)
        yield BODY[1:]

    headers = {"X-Hub-Signature-256": f"sha256={signature()}"}
    assert (await post(port, headers, slow()))[0] == 401
    assert (await post(port, headers))[0] == 202
