"""The shared probe slot: who asks the bucket in place of a probe; one at a time, in order, answered or not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mountd.errors import RemoteError, Unavailable
from mountd.mount import bucket as bucket_module
from mountd.mount.bucket import SLOT_PATIENCE, SharedProbeSlot
from mountd.status.snapshot import Health, Reason, RemoteStatus
from tests.support.wait import until_async
from tests.unit.test_bucket_probe import bucket_of
from tests.unit.test_rclone_rc import Fake, fake

__all__ = ["fake"]

SOON_S = 30.0


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is answered here is answered soon, however late the machine lets it."""
    monkeypatch.setattr(bucket_module, "SLOT_S", SOON_S)


async def is_answered(request: asyncio.Future[bool], limit_s: float) -> bool:
    await asyncio.wait({request}, timeout=limit_s)
    return request.done() and request.result()


async def asks(slot: SharedProbeSlot, asked: list[str], name: str, answer: asyncio.Event | None = None) -> None:
    async with slot.take():
        asked.append(name)
        if answer is not None:
            await answer.wait()


async def test_nobody_waits() -> None:
    assert SharedProbeSlot(lambda: 60.0).grant() is None


async def test_each_in_order_and_only_when_it_is_time() -> None:
    slot, asked = SharedProbeSlot(lambda: 60.0), list[str]()
    first = asyncio.create_task(asks(slot, asked, "first"))
    await asyncio.sleep(0)
    second = asyncio.create_task(asks(slot, asked, "second"))
    await asyncio.sleep(0)
    assert asked == []
    request = slot.grant()
    assert request is not None
    assert await is_answered(request, SOON_S)
    assert asked == ["first"]
    request = slot.grant()
    assert request is not None
    assert await is_answered(request, SOON_S)
    assert asked == ["first", "second"]
    assert slot.grant() is None
    await asyncio.gather(first, second)


async def test_an_answer_that_is_late_or_an_error_is_none() -> None:
    slot, asked, never = SharedProbeSlot(lambda: 60.0), list[str](), asyncio.Event()

    async def fails() -> None:
        async with slot.take():
            raise Unavailable("no answer")

    failing = asyncio.create_task(fails())
    request = await until_async(slot.grant, SOON_S, "somebody to wait")
    assert not await is_answered(request, SOON_S)
    with pytest.raises(Unavailable, match="no answer"):
        await failing
    late = asyncio.create_task(asks(slot, asked, "late", never))
    request = await until_async(slot.grant, SOON_S, "somebody to wait")
    assert not await is_answered(request, 0.01)
    never.set()
    await late
    assert await is_answered(request, SOON_S)


async def test_who_gets_no_slot_does_not_ask() -> None:
    slot, asked = SharedProbeSlot(lambda: 0.01 / SLOT_PATIENCE), list[str]()
    with pytest.raises(Unavailable):
        await asks(slot, asked, "never")
    assert (asked, slot.grant()) == ([], None)


async def test_a_slot_that_is_granted_as_the_patience_ends_is_not_taken() -> None:
    """As after a standstill of the machine, when both are due at once."""
    slot, asked = SharedProbeSlot(lambda: 0.0), list[str]()
    late = asyncio.create_task(asks(slot, asked, "late"))
    await asyncio.sleep(0)
    request = slot.grant()
    assert request is not None
    with pytest.raises(Unavailable):
        await late
    assert (asked, await request) == ([], False)


async def test_a_timeout_of_the_request_is_its_own() -> None:
    slot = SharedProbeSlot(lambda: 60.0)

    async def times_out() -> None:
        async with slot.take():
            raise TimeoutError

    asking = asyncio.create_task(times_out())
    request = await until_async(slot.grant, SOON_S, "somebody to wait")
    assert not await is_answered(request, SOON_S)
    with pytest.raises(TimeoutError):
        await asking


async def test_who_goes_away_leaves_the_line() -> None:
    slot, asked = SharedProbeSlot(lambda: 60.0), list[str]()
    gone = asyncio.create_task(asks(slot, asked, "gone"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait({gone})
    assert slot.grant() is None


# -- of a bucket -------------------------------------------------------------------------------------------------------


async def test_a_bucket_that_is_not_well_has_no_slot_for_others(fake: Fake) -> None:
    bucket = bucket_of(fake[1])
    cast(Any, bucket)._engine.trouble = asyncio.Event()
    cast(Any, bucket)._engine.mount.health = SimpleNamespace(backend=60.0)
    taken: list[str] = []

    async def ask() -> None:
        async with bucket.slot.take():
            taken.append("asked")

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)
    bucket.status = RemoteStatus(Health.DEGRADED, Reason("bucket-slow", "slow"))
    await bucket._until_due(0.0)
    await asyncio.sleep(0)
    assert taken == []
    bucket.status = RemoteStatus(Health.HEALTHY)
    cast(Any, bucket)._engine.trouble.set()
    bucket.hurry()
    waiting = asyncio.create_task(bucket._until_due(0.001))
    await asking
    await asyncio.wait({waiting}, timeout=SOON_S)
    assert (taken, waiting.done()) == (["asked"], True), "the next probe follows in its turn"


@pytest.mark.parametrize(("answered", "waits"), [(True, 2), (False, 1)])
async def test_only_a_request_that_is_answered_takes_the_place_of_a_probe(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, answered: bool, waits: int
) -> None:
    bucket, waited = bucket_of(fake[1]), 0
    cast(Any, bucket)._engine.trouble = asyncio.Event()
    cast(Any, bucket)._engine.mount.health = SimpleNamespace(backend=60.0)

    async def is_trouble(limit_s: float) -> bool:
        nonlocal waited
        waited += 1
        return False

    async def ask() -> None:
        async with bucket.slot.take():
            if not answered:
                raise RemoteError("no")

    monkeypatch.setattr(bucket, "_is_trouble", is_trouble)
    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)
    await bucket._until_due(60.0)
    await asyncio.wait({asking})
    assert waited == waits
    assert (asking.exception() is None) is answered
