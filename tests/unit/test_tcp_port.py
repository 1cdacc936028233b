"""The TCP port as a daemon opens it and a reload changes it: tokens that are exchanged, and that cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from mountd.daemon.tcp_port import TcpPort
from mountd.errors import Busy, CannotStart, ConfigError, MountdError
from mountd.operation.running import Running
from mountd.settings.http import HttpSettings
from tests.support.admitted import HERE, LINES, OPERATOR, READER, bearer
from tests.support.reloader import Bench, bench
from tests.support.shelf import until
from tests.support.tls import make_certificate

NEW = "operator-new-0123456789"


@contextlib.asynccontextmanager
async def room_with(text: str | None = LINES) -> AsyncIterator[tuple[Bench, TcpPort, Path]]:
    """A bench whose port is open on loopback, with a file of tokens."""
    async with bench() as (room, _):
        file = room.root / "tokens"
        if text is not None:
            write(file, text)
        room.config["http"] = {"listen": HERE, "tokens": {"file": str(file)}}
        room.write()
        port = room.reloader.port
        try:
            await port.open(HttpSettings.model_validate(room.config["http"]))
            yield room, port, file
        finally:
            await port._server.close()


def write(file: Path, text: str, mode: int = 0o600) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    new.chmod(mode)
    new.replace(file)


def number_of(port: TcpPort) -> int:
    assert port._server._tcp is not None
    found: int = port._server._tcp.listener.sockets[0].getsockname()[1]
    return found


async def ask(port: TcpPort, token: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{number_of(port)}/api/v1/status", headers=bearer(token)) as answer,
    ):
        return answer.status


async def test_tokens_in_a_file_that_changes_are_exchanged_without_a_new_port() -> None:
    async with room_with() as (room, port, file):
        await room.reloader.ask("tina")  # the file with the port's settings
        number = number_of(port)
        assert (await ask(port, OPERATOR), await ask(port, NEW)) == (200, 401)
        write(file, f"operator ci {NEW}\n")
        done = await room.reloader.ask("tina")
        assert (done["changed"], done["in_place"], done["restarted"]) == (["http.tokens"], ["http.tokens"], [])
        assert (await ask(port, OPERATOR), await ask(port, NEW)) == (401, 200)
        assert number_of(port) == number


async def test_a_token_that_is_removed_is_not_valid_any_more_also_while_an_operation_runs() -> None:
    """However the reload that found something to do before it waits for that operation."""
    async with room_with() as (room, port, file):
        await room.reloader.ask("tina")
        room.operations._running.append(Running("switch", "hub", "v23", "tina", model="hub"))
        write(file, f"operator ci {NEW}\n")
        with pytest.raises(Busy):
            await room.reloader.reload("test", patience_s=0.01)
        assert (await ask(port, OPERATOR), await ask(port, NEW)) == (401, 200)
        room.config["models"]["hub"]["keep"] = "3"
        room.write()
        waiting = asyncio.create_task(room.reloader.reload("test", patience_s=60))
        await until(room.reloader._turn.locked, "the reload to wait")
        write(file, LINES)  # as it was: nothing of it is left to do
        while await ask(port, NEW) != 401:
            await asyncio.sleep(0.05)
        assert await ask(port, OPERATOR) == 200
        assert not waiting.done()
        room.operations._running.clear()
        assert (await waiting)["changed"] == ["models.hub.keep"]


async def test_other_settings_of_the_port_wait_for_an_operation() -> None:
    """They are all in effect or none: the port may be about to move."""
    async with room_with() as (room, port, file):
        await room.reloader.ask("tina")
        room.operations._running.append(Running("switch", "hub", "v23", "tina", model="hub"))
        other = file.with_name("others")
        write(other, f"operator ci {NEW}\n")
        room.config["http"]["tokens"] = {"file": str(other)}
        room.write()
        with pytest.raises(Busy):
            await room.reloader.reload("test", patience_s=0.01)
        assert (await ask(port, OPERATOR), await ask(port, NEW)) == (200, 401)


async def test_a_file_that_cannot_be_used_keeps_the_tokens_of_before_and_is_shown() -> None:
    async with room_with() as (room, port, file):
        await room.reloader.ask("tina")
        for text, mode in ((f"operator ci {NEW}\n", 0o644), ("operator ci\n", 0o600)):
            write(file, text, mode)
            with pytest.raises(ConfigError) as refused:
                await room.reloader.ask("tina")
            assert [each.path for each in refused.value.problems] == ["http.tokens"]
            assert room.board.snapshot.config.problems == tuple(refused.value.problems)
            assert NEW not in str(refused.value)
            assert (await ask(port, OPERATOR), await ask(port, NEW)) == (200, 401)
        write(file, f"operator ci {NEW}\n")
        await room.reloader.ask("tina")
        assert (await ask(port, OPERATOR), await ask(port, NEW)) == (401, 200)


@pytest.mark.parametrize("text", [None, "operator ci\n", LINES])
async def test_tokens_that_cannot_be_used_at_the_start_keep_nobody_from_the_disk(text: str | None) -> None:
    """The port is open, nobody's token is valid, the status says why; once they can be used, they are."""
    async with bench() as (room, _):
        file = room.root / "tokens"
        if text is not None:
            write(file, text, 0o644)
        room.config["http"] = {"listen": HERE, "tokens": {"file": str(file)}}
        room.write()
        port = room.reloader.port
        try:
            await port.open(HttpSettings.model_validate(room.config["http"]))
            assert room.board.snapshot.lacks["http"].object == "http.tokens"
            assert (await ask(port, READER), await ask(port, OPERATOR)) == (401, 401)
            if text == LINES:
                os.chmod(file, 0o600)  # the same tokens: not even their digest differs
            else:
                write(file, LINES)
            await room.reloader.ask("tina")
            assert (await ask(port, READER), await ask(port, OPERATOR)) == (200, 200)
            assert "http" not in room.board.snapshot.lacks
        finally:
            await port._server.close()


async def test_it_never_falls_back_to_plain_text() -> None:
    async with bench() as (room, _):
        certificate, key = await asyncio.to_thread(make_certificate, room.root, "one")
        _, other = await asyncio.to_thread(make_certificate, room.root, "two")
        for path in (key, other):
            path.chmod(0o600)
        port = room.reloader.port

        def http(second: Path) -> HttpSettings:
            tls = {"certificate": {"file": str(certificate)}, "key": {"file": str(second)}}
            return HttpSettings.model_validate({"listen": HERE, "tls": tls})

        for wrong in (other, room.root / "none"):
            with pytest.raises(MountdError):
                await port.open(http(wrong))
            assert port._server._tcp is None
        meters = room.board.meters
        without = meters.certificate_expires
        await port.open(http(key))
        assert meters.certificate_expires == pytest.approx(time.time() + 2 * 86400, abs=600)
        try:
            with pytest.raises(MountdError):
                await port.change(http(other), move=False)
            assert (without, meters.certificate_expires is None) == (None, False)
            with pytest.raises(aiohttp.ClientError):
                await ask(port, READER)
        finally:
            await port._server.close()


async def test_no_file_is_read_from_a_mount_of_our_own() -> None:
    async with bench() as (room, _):
        place = room.root / "storage" / "tokens"
        http = HttpSettings.model_validate({"listen": HERE, "tokens": {"file": str(place)}})
        with pytest.raises(CannotStart) as refused:
            await room.reloader.port.change(http, move=True)
        assert str(room.root / "storage") in refused.value.text
