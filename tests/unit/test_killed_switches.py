"""A declared version in whose switches mountd dies: taken up again a few times, then given up until it is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mountd.clock import now_text
from mountd.journal.records import Committed, Declared
from mountd.operation.desired import DesiredVersions
from tests.support.shelf import Shelf, shelf, until
from tests.support.tasks import tasks_of

LIMIT = 2


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Shelf]:
    """v22 is live, and the file says v23 to a run of mountd that is not there any more."""
    async with shelf(tmp_path, version="v23", sync={"retry": {"limit": LIMIT}}) as found:
        await found.desired.load("hub")
        yield found


async def die(hub: Shelf, times: int, source: str = "config") -> None:
    for _ in range(times):
        await hub.journal.begin(
            kind="switch",
            model="hub",
            from_version="v22",
            to_version="v23",
            operator=source,
            source=source,
            reason="",
            step="flip",
        )


def new_run(hub: Shelf) -> None:
    """As a start of mountd, with nothing known but what the journal holds."""
    hub.desired = DesiredVersions(
        hub.models,
        hub.operations.switch_and_wait,
        hub.board,
        journal=hub.journal,
        make_source=lambda *_: hub.source,
    )
    if "hub" in hub.board.snapshot.models:
        hub.model.publish(replace(hub.status, unmet=None))


async def started(hub: Shelf) -> bool:
    """Starts once more; whether the declared version went live."""
    new_run(hub)
    async with hub.running(), tasks_of(hub.board) as group:
        hub.desired.begin(group)
        await until(lambda: hub.status.current == "v23" or hub.status.fails, "the end of the pending switch")
        await until(lambda: hub.status.pending is None and not hub.board.snapshot.operation, "nothing to be pending")
        hub.desired.drop("hub")
        return hub.status.current == "v23"


async def given_up(hub: Shelf) -> list[Any]:
    return [each.object for each in await hub.journal.events(limit=100) if each.code == "switch-given-up"]


@pytest.mark.parametrize(("deaths", "live"), [(1, True), (LIMIT, True), (LIMIT + 1, False)])
async def test_it_is_begun_again_until_the_limit(hub: Shelf, deaths: int, live: bool) -> None:
    await die(hub, deaths)
    assert await started(hub) is live
    assert await given_up(hub) == ([] if live else ["hub"])


async def test_it_stays_given_up_and_begins_afresh_once_it_is_edited_again(hub: Shelf) -> None:
    await die(hub, LIMIT + 1)
    for _ in range(2):
        assert not await started(hub)
        assert hub.status.fails is not None
        assert "mountd switch v23" in hub.status.fails.hint
        assert hub.target == "hub_v22"
    for version in ("v22", "v23"):  # an edit that takes the wish back, and one that makes it again
        new_run(hub)
        hub.model.settings = hub.model.settings.model_copy(update={"version": version})
        await hub.desired.load("hub")
    await die(hub, 1)
    assert await started(hub)


async def test_a_person_may_try_it(hub: Shelf) -> None:
    await die(hub, LIMIT + 1)
    assert not await started(hub)
    new_run(hub)
    async with hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        assert (await hub.switch("v23")).result == "committed"


@pytest.fixture
async def git_hub(tmp_path: Path) -> AsyncIterator[Shelf]:
    """v22 is live, and mountd has died too often in switches to v23, which a commit declares."""
    git = {"git": {"url": "https://git.example.com/deploy.git", "path": "version"}}
    async with shelf(tmp_path, desired=git, sync={"retry": {"limit": LIMIT}}) as hub:
        hub.source.prepares("v23", "a")
        await hub.journal.commit("hub", Committed("v22", None, "v23", "v23"))
        await hub.journal.declare(Declared("hub", "v23", "git", "a".ljust(40, "0"), "Ada", "Take v23", now_text()))
        await die(hub, LIMIT + 1, "git")
        yield hub


async def read(hub: Shelf, version: str, revision: str, *, live: str) -> None:
    """A run of mountd in which the source says that; until `live` is."""
    hub.source.prepares(version, revision)
    new_run(hub)
    async with hub.running(), tasks_of(hub.board) as group:
        hub.desired.begin(group)
        await until(
            lambda: hub.status.source and (hub.status.source.revision or "").startswith(revision), "it to be read"
        )
        await until(lambda: hub.status.current == live, f"{live} to be live")
        await until(lambda: hub.status.pending is None and not hub.board.snapshot.operation, "nothing to be pending")
        hub.desired.drop("hub")


async def test_a_commit_that_leaves_the_version_as_it_is_does_not_begin_it_again(git_hub: Shelf) -> None:
    assert not await started(git_hub)
    await read(git_hub, "v23", "b", live="v22")
    said = await git_hub.journal.declared("hub")
    assert said is not None
    assert (said.version, (said.revision or "")[0]) == ("v23", "b"), "the commit is noted"
    assert not await started(git_hub)
    assert git_hub.status.fails is not None
    assert git_hub.target == "hub_v22"


async def test_a_commit_that_names_it_after_another_one_begins_afresh(git_hub: Shelf) -> None:
    assert not await started(git_hub)
    await read(git_hub, "v22", "b", live="v22")
    await read(git_hub, "v23", "c", live="v23")
