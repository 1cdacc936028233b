"""All targets of a mountd: at its start, at a reload that comes just then, and what people read of a fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mountd.daemon.notifying import Notifying
from mountd.i18n import translation
from mountd.journal.journal import Journal
from mountd.process.instance import Instance
from mountd.settings.notify import NotifySettings
from mountd.status.board import Board
from mountd.status.causes import cause_of_code
from mountd.status.snapshot import Health, MountStage, MountStatus, Reason, RemoteStatus, Snapshot, State
from tests.support.receiver import Receiver
from tests.support.tasks import tasks_of
from tests.support.wait import until_async

SOON_S = 60.0
REFUSED = Reason("access-denied", "store answers AccessDenied", "bucket", "store", "look at the key AKIA1")
MOUNT = MountStatus(
    "/mnt/x",
    "store:bucket",
    State.RUNNING,
    MountStage.READY,
    Health.DEGRADED,
    backend=RemoteStatus(Health.DEGRADED, REFUSED),
)


@dataclass
class World:
    board: Board
    journal: Journal
    notifying: Notifying

    async def happens(self, *codes: str) -> None:
        for code in codes:
            await self.journal.event(code, "hub", f"hub: {code}")

    async def until_ready(self, *names: str) -> None:
        """Once these targets, and no others, have found where they begin."""
        await until_async(lambda: self.board.snapshot.notify.keys() == set(names), SOON_S, f"targets {names}")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Its journal is new."""
    board, journal = Board(Snapshot(mounts={"disk": MOUNT})), Journal(tmp_path / "mountd.db")
    await journal.open()
    instance = Instance.create(tmp_path / "state", tmp_path / "run")
    async with tasks_of(board) as tasks:
        notifying = Notifying(journal=journal, board=board, tasks=tasks, instance=instance, own_mounts=lambda: ())
        yield World(board, journal, notifying)
        notifying.cancel()
    await journal.close()


def webhook(receiver: Receiver) -> NotifySettings:
    return NotifySettings.model_validate({"webhook": receiver.url, "events": ["*"]})


async def test_only_targets_of_the_start_get_all_of_a_new_journal(world: World) -> None:
    with Receiver() as first, Receiver() as later:
        await world.happens("mountd-started")
        await world.notifying.begin({"first": webhook(first)})
        await until_async(lambda: first.got, SOON_S, "what was before")
        await world.notifying.apply({"first": webhook(first), "later": webhook(later)})
        await world.until_ready("first", "later")
        await world.happens("switch-committed")
        await until_async(lambda: later.got, SOON_S, "what came then")
        await until_async(lambda: len(first.got) == 2, SOON_S, "all of it")
    assert first.types == ["mountd.mountd-started", "mountd.switch-committed"]
    assert later.types == ["mountd.switch-committed"]


async def test_a_reload_that_is_faster_than_the_start_is_not_undone_by_it(world: World) -> None:
    with Receiver() as receiver:
        await world.notifying.apply({"new": webhook(receiver)})
        await world.notifying.begin({"old": webhook(receiver)})
        await world.until_ready("new")


async def test_a_reload_that_comes_while_the_start_waits_for_the_journal_comes_after_it(world: World) -> None:
    with Receiver() as receiver:
        await asyncio.gather(
            world.notifying.begin({"old": webhook(receiver)}), world.notifying.apply({"new": webhook(receiver)})
        )
        await world.until_ready("new")


@pytest.mark.parametrize("language", ["en", "zh_CN"])
async def test_people_read_the_root_cause_and_the_next_command_in_their_language(
    world: World, tmp_path: Path, language: str
) -> None:
    file = tmp_path / "addresses"
    file.touch(0o600)
    with Receiver() as receiver:
        file.write_text(f"json://127.0.0.1:{receiver.port}/x")
        settings: dict[str, Any] = {"apprise": {"file": str(file)}, "after": "0s", "timeout": "60s"}
        people = NotifySettings.model_validate({**settings, "events": ["app-failed"], "language": language})
        await world.notifying.begin({"people": people})
        await world.happens("app-failed")
        await until_async(lambda: receiver.got, SOON_S, "the message")
    said, cause, translate = receiver.got[0].json["message"], cause_of_code("access-denied"), translation(language).text
    assert translate(cause.text).format(object="store") in said
    assert f"$ {cause.command.format(object='store')}" in said
    assert (translate(cause.advice).format(object="store") if language == "zh_CN" else REFUSED.hint) in said
