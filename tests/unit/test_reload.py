"""A reload: what cannot be used changes nothing and is shown until it is corrected; what can is reported."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import closing
from typing import Any

import pytest

from mountd.errors import Busy, ConfigError, NotUploaded
from mountd.operation.running import Running
from mountd.status.snapshot import Reason
from tests.support.reloader import Bench, bench
from tests.support.shelf import until

RUNNING = Running("switch", "hub", "v23", "tina", model="hub")


async def refused(room: Bench) -> list[str]:
    """The places of its problems; nothing may have changed."""
    before = room.members.settings
    room.write()
    with pytest.raises(ConfigError) as caught:
        await room.reloader.ask("tina")
    assert room.members.settings is before
    assert room.board.snapshot.config.problems == tuple(caught.value.problems)
    assert room.board.snapshot.config.hint == caught.value.hint
    return [each.path for each in caught.value.problems]


async def test_a_broken_file_is_shown_until_it_is_corrected() -> None:
    async with bench() as (room, _):
        first = room.board.snapshot.config
        room.config["models"]["hub"] |= {"keep": "3", "watch": {"for": "x"}}
        assert await refused(room) == ["models.hub.watch.for"]
        assert room.members.models["hub"].settings.keep == 2
        room.config["models"]["hub"]["watch"] = {"for": "9s"}
        room.write()
        done = await room.reloader.ask("tina")
        assert (done["changed"], done["restarted"]) == (["models.hub.keep", "models.hub.watch.for"], [])
        assert done["in_place"] == done["changed"]
        shown = room.board.snapshot.config
        assert (shown.problems, shown.hint, shown.source) == ((), "", first.source)
        assert "models.hub.keep" in shown.summary
        done = await room.reloader.ask("tina")
        assert (done["changed"], room.board.snapshot.config) == ([], shown)


@pytest.mark.parametrize(
    ("edit", "places"),
    [
        ({"state": "/elsewhere"}, ["state"]),
        ({"log": {"format": "json"}}, ["log.format"]),
        ({"rclone": {"binary": "/bin/true"}}, ["rclone.binary"]),
    ],
    ids=str,
)
async def test_what_only_a_restart_can_change_is_refused_with_all_else(edit: dict[str, Any], places: list[str]) -> None:
    async with bench() as (room, _):
        room.config |= edit
        room.config["models"]["hub"]["keep"] = "3"
        assert await refused(room) == places
        assert "systemctl restart mountd" in room.board.snapshot.config.hint


@pytest.mark.parametrize("name", ["storage", "more"])
async def test_a_flag_that_this_rclone_does_not_have(name: str) -> None:
    async with bench() as (room, _):
        room.config["mounts"].setdefault(name, room.mount(name))["options"] = {"no-such-flag": "1"}
        assert await refused(room) == [f"mounts.{name}.options.no-such-flag"]
        assert room.board.snapshot.config.problems[0].line > 0
        assert list(room.members.mounts) == ["storage"]


async def test_a_link_that_cannot_be_placed() -> None:
    async with bench() as (room, _):
        (room.root / "taken").mkdir()
        room.config["models"]["hub"]["link"] = str(room.root / "taken")
        assert await refused(room) == ["models.hub.link"]


async def test_a_secret_that_is_not_there_or_lies_on_a_mount() -> None:
    async with bench() as (room, _):
        room.config["apps"]["webui"]["environment"] = {"A": {"file": str(room.root / "none")}}
        assert await refused(room) == ["apps.webui.environment.A"]
        os.symlink(room.root / "storage" / "secret", room.root / "none")
        assert await refused(room) == [""]


async def test_the_address_of_the_api_moves_with_all_else_or_not_at_all() -> None:
    async with bench() as (room, _):
        server = room.reloader.port._server
        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            listen = f"127.0.0.1:{taken.getsockname()[1]}"
            room.config["http"] = {"listen": listen}
            room.config["models"]["hub"]["keep"] = "3"
            assert await refused(room) == ["http.listen"]
        room.config["state"] = "/elsewhere"
        assert await refused(room) == ["state"]
        before = server._tcp
        assert before is None
        room.config["state"] = str(room.root / "state")
        room.write()
        try:
            assert (await room.reloader.ask("tina"))["changed"] == ["models.hub.keep", "http.listen"]
            assert server._tcp is not None
            assert server._tcp.http.listen == listen
        finally:
            await server.close()


async def test_a_reload_waits_for_an_operation_only_when_there_is_something_to_do() -> None:
    async with bench() as (room, _):
        room.operations._running.append(RUNNING)
        assert (await room.reloader.reload("test", patience_s=60))["changed"] == []
        room.config["models"]["hub"]["keep"] = "3"
        room.write()
        with pytest.raises(Busy) as busy:
            await room.reloader.reload("test", patience_s=0.01)
        assert (busy.value.exit_code, busy.value.holder.split()[0]) == (6, "tina")
        assert room.members.settings.models["hub"].keep == 2
        assert room.board.snapshot.config.problems == ()
        room.operations._running.clear()
        async with room.reloader._turn:
            with pytest.raises(Busy) as busy:
                await room.reloader.reload("test", patience_s=0.01)
        assert (busy.value.exit_code, busy.value.holder) == (6, "another reload")
        assert (await room.reloader.reload("test", patience_s=60))["changed"] == ["models.hub.keep"]


async def test_files_that_a_removed_mount_leaves_are_a_failure_once_and_shown_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench() as (room, _):
        cache, left = room.root / "cache-more", Reason("uploads-pending", "1 file is not uploaded", hint="keep it")
        apply = room.reloader._applier.apply

        async def leaves(*given: Any) -> Any:
            room.members.left[cache] = left
            return await apply(*given)

        monkeypatch.setattr(room.reloader._applier, "apply", leaves)
        room.config["models"]["hub"]["keep"] = "3"
        room.write()
        with pytest.raises(NotUploaded) as failed:
            await room.reloader.ask("tina")
        assert failed.value.hint == left.hint
        assert room.members.settings.models["hub"].keep == 3
        assert len(room.board.snapshot.config.warnings) == 1
        room.config["models"]["hub"]["keep"] = "4"
        room.write()
        assert (await room.reloader.ask("tina"))["changed"] == ["models.hub.keep"]
        assert len(room.board.snapshot.config.warnings) == 1


async def test_a_request_is_waited_for_by_a_stop_as_long_as_it_runs() -> None:
    async with bench() as (room, _):
        room.operations._running.append(RUNNING)
        room.config["models"]["hub"]["keep"] = "3"
        room.write()
        asking = asyncio.create_task(room.reloader.ask("tina"))
        await until(lambda: room.reloader.tasks() == [asking], "the request")
        asking.cancel()
        await asyncio.wait([asking])
        assert room.reloader.tasks() == []


async def test_a_file_that_was_edited_before_it_was_watched_is_noticed() -> None:
    async with bench() as (room, group):
        room.config["models"]["hub"]["keep"] = "3"
        room.write()
        following = group.create_task(room.reloader.follow_files())
        await room.board.wait_until(lambda now: bool(now.config.summary), 60)
        assert room.members.settings.models["hub"].keep == 3
        room.config["models"]["hub"]["keep"] = "4"
        room.write()
        await until(lambda: room.members.settings.models["hub"].keep == 4, "the next edit")
        following.cancel()
