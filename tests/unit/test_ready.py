"""Why an app is not ready is shown to every client: never with the password or the query of its address."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mountd.app import ready
from mountd.app.belonging import Belonging
from mountd.process.instance import Instance
from mountd.settings.schema import AppSettings

SILENT = b""


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "503"),
        (b"nonsense of http://me:hunter2@h/?token=hunter2\r\n\r\n", ": "),
        (SILENT, "0.2 s"),
        (None, "refuses"),
    ],
)
async def test_no_reason_shows_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, says: str
) -> None:
    monkeypatch.setattr(ready, "HTTP_TIMEOUT_S", 0.2 if answer == SILENT else 60.0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer or b"")
        if answer == SILENT:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    if answer is None:
        server.close()
        await server.wait_closed()
    place = f"127.0.0.1:{port}/health"
    app = AppSettings.model_validate({"command": ["x"], "ready": {"http": f"http://me:hunter2@{place}?token=hunter2"}})
    belonging = Belonging(Instance.of(tmp_path, tmp_path), "webui")
    try:
        why = await ready.answers(app, belonging, environment={}, user=None, uid=None)
    finally:
        server.close()
    assert why.startswith(f"http://me:********@{place}?token=********")
    assert says in why.partition("token=********")[2]
    assert "hunter2" not in why
