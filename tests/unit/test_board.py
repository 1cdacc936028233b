"""The board: each change wakes every waiter, nothing else does, and a waiter that leaves disturbs no other."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from mountd.status.board import Board
from mountd.status.snapshot import AppStatus, ModelStatus, MountStatus, Operation, Snapshot, State

MOUNT = MountStatus("/mnt/x", "store:bucket")
MODEL = ModelStatus("disk", "/srv/hub")
OPERATION = Operation(1, "switch", "hub", "v22", "v23", "tina", "cli", "verify", "2026-01-01T00:00:00Z")
SOON_S = 30.0


def test_each_room_writes_its_own_part_of_a_snapshot_that_nobody_changes() -> None:
    board = Board()
    empty = board.snapshot
    board.set_mount("disk", MOUNT)
    board.set_model("hub", MODEL)
    board.set_app("webui", AppStatus())
    board.set_operations(OPERATION)
    before = board.snapshot
    board.set_mount("disk", replace(MOUNT, state=State.RUNNING))
    board.set_stopping()
    board.set_operations()
    assert empty == Snapshot()
    assert before == Snapshot({"disk": MOUNT}, {"hub": MODEL}, {"webui": AppStatus()}, OPERATION, (OPERATION,))
    assert board.snapshot.mounts["disk"].state is State.RUNNING
    assert (board.snapshot.stopping, board.snapshot.operation) == (True, None)


async def test_every_waiter_is_woken_by_a_change_and_none_by_the_same_again() -> None:
    board = Board()
    board.set_mount("disk", MOUNT)
    waiters = [asyncio.create_task(board.changed()) for _ in range(3)]
    await asyncio.sleep(0)
    board.set_mount("disk", replace(MOUNT))
    board.set_operations()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiters)
    board.set_mount("disk", replace(MOUNT, pid=7))
    async with asyncio.timeout(SOON_S):
        assert {id(snapshot) for snapshot in await asyncio.gather(*waiters)} == {id(board.snapshot)}


async def test_a_waiter_that_is_cancelled_leaves_the_others_waiting() -> None:
    board = Board()
    first, second = (asyncio.create_task(board.changed()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    board.set_stopping()
    async with asyncio.timeout(SOON_S):
        assert (await second).stopping


async def test_a_change_is_noticed_also_between_asking_and_waiting() -> None:
    board = Board()
    change = board.change()
    assert change is board.change()
    board.set_mount("disk", MOUNT)
    board.set_mount("disk", MOUNT)  # the same again
    assert change.done()
    assert not board.change().done()


async def test_changes_in_a_row_are_seen_as_the_last() -> None:
    board = Board()
    waiter = asyncio.create_task(board.changed())
    await asyncio.sleep(0)
    for pid in (1, 2, 3):
        board.set_mount("disk", replace(MOUNT, pid=pid))
    async with asyncio.timeout(SOON_S):
        assert (await waiter).mounts["disk"].pid == 3


async def test_wait_until() -> None:
    board = Board(Snapshot(stopping=True))
    assert await board.wait_until(lambda now: now.stopping, 0.0) is board.snapshot, "what holds already needs no time"

    waiter = asyncio.create_task(board.wait_until(lambda now: now.operation is not None, SOON_S))
    await asyncio.sleep(0)
    board.set_mount("disk", MOUNT)  # wakes, but is not what was waited for
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiter.done()
    board.set_operations(OPERATION)
    assert (await waiter).operation == OPERATION

    with pytest.raises(TimeoutError):
        await board.wait_until(lambda now: not now.stopping, 0.01)
