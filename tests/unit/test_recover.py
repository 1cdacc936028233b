"""Operations that the previous run left unfinished: what a start makes of each, in the journal and of the link."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.journal.journal import OperationRecord
from mountd.model import link
from tests.support.shelf import Shelf, shelf


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Shelf]:
    """v22 is committed, and mountd was about to switch to v23."""
    (tmp_path / "app").mkdir()
    async with shelf(tmp_path, link=str(tmp_path / "app" / "hub")) as found:
        found.link = tmp_path / "app" / "hub"
        yield found


async def left_at(hub: Shelf, *steps: str, version: str = "v23", target: str = "hub_v23") -> OperationRecord:
    """The link is at `target`; the journal says that these steps were begun, the last one not ended."""
    await hub.model.load()
    record = await hub.begin(version, step=steps[0])
    for step in steps:
        await hub.journal.begin_step(record.id, step)
    if target:
        hub.link.symlink_to(f"/mnt/{target}")
    return record


async def recovered(hub: Shelf, record: OperationRecord) -> tuple[str | None, int | None, str, str]:
    """Its result, exit code and cause; where the link points then."""
    await hub.operations.close_interrupted()
    ended = await hub.journal.operation(record.id)
    assert ended is not None
    assert ended.finished is not None
    return ended.result, ended.exit_code, ended.cause, (link.read(hub.link) or "").removeprefix("/mnt/")


async def steps_of(hub: Shelf, record: OperationRecord) -> list[tuple[str, str | None]]:
    return [(each.step, each.outcome) for each in await hub.journal.steps(record.id)]


async def commit(hub: Shelf, version: str | None) -> None:
    committed = await hub.journal.committed("hub")
    await hub.journal.commit("hub", replace(committed, current=version))


@pytest.mark.parametrize(
    ("step", "committed", "result", "exit_code", "target", "steps"),
    [
        ("warm", "v22", "interrupted", 1, "hub_v23", [("warm", "interrupted")]),
        ("flip", "v22", "rolled-back", 5, "hub_v22", [("flip", "interrupted"), ("flip-back", "done")]),
        ("watch", "v22", "rolled-back", 5, "hub_v22", [("watch", "interrupted"), ("flip-back", "done")]),
        ("watch", None, "rolled-back", 5, "", [("watch", "interrupted"), ("flip-back", "done")]),
        ("commit", "v22", "rolled-back", 5, "hub_v22", [("commit", "interrupted"), ("flip-back", "done")]),
        ("commit", "v23", "committed", 0, "hub_v23", [("commit", "done")]),
        ("start-old", "v23", "committed", 0, "hub_v23", [("start-old", "interrupted")]),
    ],
)
async def test_what_becomes_of_an_interrupted_switch(
    hub: Shelf, step: str, committed: str | None, result: str, exit_code: int, target: str,
    steps: list[tuple[str, str]],
) -> None:  # fmt: skip
    record = await left_at(hub, step)
    await commit(hub, committed)
    found = await recovered(hub, record)
    assert (*found[:2], found[3]) == (result, exit_code, target)
    assert bool(found[2]) is (result != "committed")
    assert await steps_of(hub, record) == steps


async def test_a_link_that_cannot_be_put_back_is_a_step_that_failed(hub: Shelf) -> None:
    record = await left_at(hub, "flip")
    hub.directory.chmod(0o777)
    result, exit_code, _, target = await recovered(hub, record)
    assert (result, exit_code, target) == ("rolled-back", 5, "hub_v23")
    assert await steps_of(hub, record) == [("flip", "interrupted"), ("flip-back", "failed")]


async def test_a_switch_to_what_was_live_already_has_committed_nothing_for_sure(hub: Shelf) -> None:
    record = await left_at(hub, "commit", version="v22", target="hub_v22")
    result, exit_code, _, target = await recovered(hub, record)
    assert (result, exit_code, target) == ("rolled-back", 5, "hub_v22")


async def test_a_link_that_somebody_changed_meanwhile_stays(hub: Shelf) -> None:
    assert (await recovered(hub, await left_at(hub, "flip", target="theirs")))[3] == "theirs"


async def test_of_a_model_that_is_not_configured_any_more_the_link_stays(hub: Shelf) -> None:
    record = await left_at(hub, "flip")
    hub.models.clear()
    result, exit_code, _, target = await recovered(hub, record)
    assert (result, exit_code, target) == ("rolled-back", 5, "hub_v23")
    assert await steps_of(hub, record) == [("flip", "interrupted")]


async def test_why_it_was_being_undone_is_kept(hub: Shelf) -> None:
    record = await left_at(hub, "flip", "start")
    await hub.journal.end_step(record.id, "start", "failed", cause="cannot switch to v23: PORT")
    await hub.journal.begin_step(record.id, "stop-new")
    cause = (await recovered(hub, record))[2]
    assert cause.count("cannot switch to v23: ") == 1
    assert cause.index("PORT") < cause.index("stop-new") < cause.index("v22")
