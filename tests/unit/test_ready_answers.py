"""When an app counts as ready, when it never can, and what is shown of it until then."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mountd.app import ready
from mountd.app.belonging import Belonging
from mountd.errors import CannotStart
from mountd.process import ports
from mountd.process.instance import Instance
from mountd.settings.schema import AppSettings
from mountd.settings.supervision import ReadySettings
from mountd.status.snapshot import Reason

FAILED = Reason("app-exited", "webui ended with exit code 1", "app", "webui", "see its log")
SAID_BEFORE = Reason(ready.WAITING, "webui has started and is not ready yet: it is loading", "app", "webui")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "HTTP_TIMEOUT_S", 60.0)


@asynccontextmanager
async def serving(status: int) -> AsyncIterator[int]:
    """In this process → its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} x\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def answers(root: Path, given: dict[str, Any] | None, *, pid: int | None = None) -> str:
    """`pid`: of the app."""
    settings = AppSettings.model_validate({"command": ["x"], "ready": given, "directory": str(root)})
    belonging = Belonging(Instance.of(root, root), "webui")
    if pid is not None:
        belonging.began(pid)
    return await ready.answers(settings, belonging, environment={}, user=None, uid=None)


async def test_an_app_without_a_check_is_ready(tmp_path: Path) -> None:
    assert await answers(tmp_path, None) == ""


@pytest.mark.parametrize(("status", "is_ready"), [(200, True), (302, True), (399, True), (400, False), (503, False)])
async def test_which_answers_of_the_app_count(tmp_path: Path, status: int, is_ready: bool) -> None:
    async with serving(status) as port:
        why = await answers(tmp_path, {"http": f"http://127.0.0.1:{port}/"}, pid=os.getpid())
    assert (why == "") is is_ready
    assert is_ready or str(status) in why


async def test_a_stranger_on_its_port_can_never_be_the_app(tmp_path: Path) -> None:
    async with serving(200) as port:
        with pytest.raises(CannotStart) as refused:
            await answers(tmp_path, {"http": f"http://127.0.0.1:{port}/"})
        assert refused.value.code == "port-taken"
        with pytest.raises(CannotStart) as refused:
            await ready.check_port_free("webui", port)
        assert refused.value.code == "port-taken"
    await ready.check_port_free("webui", port)
    await ready.check_port_free("webui", None)


async def test_an_answer_from_where_nobody_of_this_machine_listens_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(200) as port:
        monkeypatch.setattr(ports, "_TABLES", ())
        assert str(port) in await answers(tmp_path, {"http": f"http://127.0.0.1:{port}/"}, pid=os.getpid())


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        ("exit 0", ""),
        ("echo a; echo b; exit 3", "3: b"),
        ("exit 4", "4: "),
        ('test "$PWD" = "$0" || exit 5', ""),
    ],
)
async def test_a_command(tmp_path: Path, script: str, shown: str) -> None:
    why = await answers(tmp_path, {"command": ["/bin/sh", "-c", script, str(tmp_path)]})
    assert why.endswith(shown)
    assert bool(why) is bool(shown)


async def test_a_command_that_cannot_be_run_or_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await answers(tmp_path, {"command": [str(tmp_path / "none")]})
    monkeypatch.setattr(ready, "COMMAND_TIMEOUT_S", 0.01)
    assert await answers(tmp_path, {"command": ["/bin/sleep", "60"]})


@pytest.mark.parametrize(
    ("given", "port"),
    [
        (None, None),
        ({"command": ["x"]}, None),
        ({"http": "http://127.0.0.1:7860/config"}, 7860),
        ({"http": "http://localhost/"}, 80),
    ],
)
def test_the_port_of_an_app(given: dict[str, Any] | None, port: int | None) -> None:
    settings = None if given is None else ReadySettings.model_validate(given)
    assert ready.port_of(settings) == port


@pytest.mark.parametrize(
    ("why", "quoted"),
    [
        ("http://x/ answers 401", ("ready.http", "ready.command")),
        ("http://x/ answers 403", ("ready.http", "ready.command")),
        ("http://x/ answers 404", ("ready.http",)),
        ("http://x/ answers 405", ("ready.http", "ready.command", "GET")),
        ("http://x/ answers 402", ("mountd logs webui",)),
        ("http://x/ answers 4040", ("mountd logs webui",)),
        ("it is loading", ("mountd logs webui",)),
    ],
)
@pytest.mark.parametrize("shown", [None, SAID_BEFORE])
def test_what_is_shown_of_an_app_that_starts_is_what_it_says_now(
    why: str, quoted: tuple[str, ...], shown: Reason | None
) -> None:
    found = ready.waiting("webui", why, shown)
    assert (found.code, found.layer, found.object) == ("app-starting", "app", "webui")
    assert found.text.endswith(why)
    words = ("ready.http", "ready.command", "GET", "mountd logs webui")
    assert tuple(each for each in words if each in found.hint) == quoted


def test_what_it_ended_with_before_says_more() -> None:
    assert ready.waiting("webui", "it is loading", FAILED) == FAILED
