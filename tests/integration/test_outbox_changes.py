"""An outbox that changes its settings, becomes something else, or ends while its rclone does not want to."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from mountd.journal.results import ResultFile, ResultQueue
from mountd.outbox import sender as sender_module
from mountd.outbox.outbox import Outbox
from mountd.outbox.sender import Uploader
from mountd.settings.load import load
from mountd.settings.schema import Settings
from mountd.status import events
from mountd.status.results import OutboxStatus
from mountd.status.snapshot import Health, Reason, Snapshot
from tests.support.daemon import BUNDLED_RCLONE
from tests.support.reloader import Bench, bench, carry_out, idle_bench
from tests.support.wait import until_async

SOON_S = 30.0


def with_outbox(room: Bench, name: str, **more: object) -> Settings:
    """The settings, with an outbox whose directory and bucket are there."""
    for each in ("outputs", "results"):
        (room.root / each).mkdir(exist_ok=True)
    section = {"directory": str(room.root / "outputs"), "remote": f"store:{room.root}/results", "min_free": "0"}
    room.config["outbox"] = {name: {**section, "settle": "100ms", **more}}
    room.write()
    return load(room.file).settings


async def test_an_outbox_becomes_a_mount_of_its_name_and_back() -> None:
    async with idle_bench() as (room, _):
        with_outbox(room, "x")
        await carry_out(room)
        assert "x" in room.board.snapshot.outbox
        outbox = room.config.pop("outbox")
        room.config["mounts"]["x"] = room.mount("x")
        await carry_out(room)
        assert (set(room.board.snapshot.outbox), set(room.board.snapshot.mounts)) == (set(), {"storage", "x"})
        del room.config["mounts"]["x"]
        room.config["outbox"] = outbox
        await carry_out(room)
        assert (set(room.board.snapshot.outbox), set(room.board.snapshot.mounts)) == ({"x"}, {"storage"})


async def test_an_outbox_whose_remote_becomes_another_one_sends_nothing_more_to_the_former() -> None:
    async with idle_bench() as (room, _):
        room.config["remotes"] |= {"base": {"type": "local"}, "results": {"type": "alias", "remote": "base:/former"}}
        with_outbox(room, "x", remote="results:x")
        await carry_out(room)
        outboxes = [room.members.outboxes._running["x"][0]]
        for key, value in (("results", "base:/other"), ("base", None), ("store", None)):
            remote = room.config["remotes"][key]
            room.config["remotes"][key] = {**remote, **({"remote": value} if value else {"description": "another"})}
            await carry_out(room)
            outboxes.append(room.members.outboxes._running["x"][0])
        first, other, base, unchanged = outboxes
        assert first is not other is not base
        assert unchanged is base


async def test_a_model_gives_its_name_to_a_mount() -> None:
    async with idle_bench() as (room, _):
        del room.config["models"]["hub"]
        room.config["apps"]["webui"]["needs"] = []
        room.config["mounts"]["hub"] = room.mount("hub")
        await carry_out(room)
        assert (set(room.board.snapshot.models), set(room.board.snapshot.mounts)) == (set(), {"storage", "hub"})


WAITS = OutboxStatus(
    *("/elsewhere", "store:elsewhere", Health.DEGRADED),
    pending=1,
    uploaded=7,
    failures=3,
    reason=Reason("outbox-waiting", "the store does not answer", "outbox", "results", ""),
)


async def test_other_settings_are_no_recovery_and_no_counter_falls() -> None:
    """The bucket cannot be written to: something else lies in its place."""
    async with bench() as (room, _):
        room.board.set_outbox("results", WAITS)
        await room.journal.rows("INSERT INTO outbox_totals VALUES ('results', 7)")
        settings = with_outbox(room, "results", keep="1h")
        (room.root / "results").rmdir()
        (room.root / "results").touch()
        (room.root / "outputs" / "a.wav").write_bytes(b"a result")
        await ResultQueue(room.journal, "results").put([ResultFile(b"a.wav", 8, "1.2.3")], "1")
        seen: list[Snapshot] = [room.board.snapshot]

        async def look() -> None:
            while True:
                seen.append(await room.board.changed())

        looking = asyncio.create_task(look())
        members = room.members
        outbox = Outbox(
            "results",
            settings,
            instance=members._instance,
            board=room.board,
            journal=room.journal,
            binary=members._binary,
            conf=members._conf,
        )
        assert room.board.snapshot.outbox["results"].directory == str(room.root / "outputs")
        running = asyncio.create_task(outbox.run())
        await until_async(lambda: room.board.snapshot.outbox["results"].failures > 4, SOON_S, "tries that fail")
        for task in (running, looking):
            task.cancel()
        await asyncio.wait([running, looking])
    shown = [each.outbox["results"] for each in seen]
    assert {each.uploaded for each in shown} == {7}
    assert min(each.failures for each in shown) == 3
    found = [each.code for before, after in pairwise(seen) for each in events.between(before, after)]
    assert found == []


@pytest.fixture
def deaf(tmp_path: Path) -> Path:
    """An rclone that ignores SIGTERM, as one whose disk hangs."""
    script = tmp_path / "rclone"
    script.write_text(f"#!/bin/sh\ntrap '' TERM\n'{BUNDLED_RCLONE}' \"$@\"\nwhile :; do sleep 0.1; done\n")
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("cancels", [0, 1])
async def test_an_rclone_that_ignores_its_end_is_killed_also_when_nobody_waits_for_it(
    deaf: Path, cancels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "STOP_S", 0.3 if not cancels else 60.0)
    async with bench() as (room, _):
        members, settings = room.members, with_outbox(room, "results")
        found = replace(members._binary, path=deaf)
        uploader = Uploader("results", settings, members._instance, found, members._conf)
        assert await uploader.stat("nothing") is None
        pid = uploader.pid
        assert pid is not None
        closing = asyncio.create_task(uploader.close())
        if cancels:
            await asyncio.sleep(0.3)  # it waits for the end
            closing.cancel()
        with suppress(asyncio.CancelledError):
            await closing
        await until_async(lambda: not os.path.exists(f"/proc/{pid}"), SOON_S, "the rclone to be killed")


async def test_a_second_cancel_of_an_outbox_leaves_no_rclone() -> None:
    async with bench() as (room, _):
        members, settings = room.members, with_outbox(room, "results")
        (room.root / "outputs" / "a.wav").write_bytes(b"a result")
        members.outboxes.begin(settings)
        outbox, task = members.outboxes._running["results"]
        await until_async(lambda: outbox.uploader.pid, SOON_S, "its rclone")
        pid = outbox.uploader.pid
        task.cancel()
        await asyncio.sleep(0)
        members.cancel()
        assert task.cancelling() == 1
        task.cancel()
        await asyncio.wait([task])
        await until_async(lambda: not os.path.exists(f"/proc/{pid}"), SOON_S, "the rclone to end")
