"""Whose fault a failed switch is: a version is blamed only when mount and bucket were well all the while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.errors import RemoteError
from mountd.operation import plan, runner, steps
from mountd.status.snapshot import Health, RemoteStatus, State
from tests.support.shelf import MOUNT, TINA, Shelf, shelf, until

DEGRADED = replace(MOUNT, backend=RemoteStatus(Health.DEGRADED))


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a gate that says no: what ends in these tests is known at once."""
    monkeypatch.setattr(steps, "NOTICE_S", 0.05)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine does meanwhile, no step is at fault."""
    for name in ("FLIP_S", "COMMIT_S"):
        monkeypatch.setattr(plan, name, 60.0)
    monkeypatch.setattr(runner, "BUCKET_LIMIT_S", 60.0)


def nothing(_: Shelf) -> None:
    """All is well all the while."""


def degraded_for_a_moment(hub: Shelf) -> None:
    hub.board.set_mount("storage", DEGRADED)


def down_for_a_moment(hub: Shelf) -> None:
    hub.board.set_mount("storage", replace(MOUNT, state=State.CLEANING))


def replaced_meanwhile(hub: Shelf) -> None:
    hub.board.set_mount("storage", replace(MOUNT, restarts=MOUNT.restarts + 1))


def silent_when_asked(hub: Shelf) -> None:
    hub.disk.failure = RemoteError("cannot list: connection refused", code="bucket-unreachable")


@pytest.mark.parametrize(
    ("trouble", "blamed"),
    [
        (nothing, True),
        (degraded_for_a_moment, False),
        (down_for_a_moment, False),
        (replaced_meanwhile, False),
        (silent_when_asked, False),
    ],
)
async def test_a_version_is_not_blamed_while_its_mount_was_unwell(
    tmp_path: Path, trouble: Callable[[Shelf], None], blamed: bool
) -> None:
    """The gate says no each time; well again before it does."""
    asked, may_end = tmp_path / "asked", tmp_path / "may-end"
    script = f"touch {asked}; while [ ! -e {may_end} ]; do sleep 0.02; done; exit 1"
    async with shelf(tmp_path, gates=[{"command": ["sh", "-c", script], "timeout": "100s"}]) as hub, hub.running():
        await until(lambda: hub.status.linked, "the old version to serve")
        begun = await hub.operations.switch(None, "v23", TINA)
        assert begun.record is not None
        await until(asked.exists, "the gate to be asked")
        trouble(hub)
        for _ in range(10):  # what waits for a change of the board has its turn
            await asyncio.sleep(0)
        if trouble is not replaced_meanwhile:
            hub.board.set_mount("storage", MOUNT)
        may_end.touch()
        await hub.operations.outcome(begun.record)
        ended = await hub.operations.results.operation(begun.record.id)
        assert ended is not None
        assert (ended.result, hub.target) == ("rolled-back", "hub_v22")
        assert bool(await hub.journal.quarantined("hub")) is blamed
