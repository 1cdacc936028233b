"""Who asks the bucket in place of its health question: one at a time, in order, and whether he was answered."""

from __future__ import annotations

import asyncio

import pytest

from mountd.errors import Unavailable
from mountd.mount.turns import PATIENCE, Turns
from tests.support.wait import until_async

SOON_S = 5.0


async def asks(turns: Turns, asked: list[str], name: str, answer: asyncio.Event | None = None) -> None:
    async with turns.take():
        asked.append(name)
        if answer is not None:
            await answer.wait()


async def test_nobody_waits() -> None:
    assert Turns(60.0).give() is None


async def test_each_in_turn_and_only_when_it_is_time() -> None:
    turns, asked = Turns(60.0), list[str]()
    first = asyncio.create_task(asks(turns, asked, "first"))
    await asyncio.sleep(0)
    second = asyncio.create_task(asks(turns, asked, "second"))
    await asyncio.sleep(0)
    assert asked == []
    turn = turns.give()
    assert turn is not None
    assert await turn.is_answered(SOON_S)
    assert asked == ["first"]
    turn = turns.give()
    assert turn is not None
    assert await turn.is_answered(SOON_S)
    assert asked == ["first", "second"]
    assert turns.give() is None
    await asyncio.gather(first, second)


async def test_an_answer_that_is_late_or_an_error_is_none() -> None:
    turns, asked, never = Turns(60.0), list[str](), asyncio.Event()

    async def fails() -> None:
        async with turns.take():
            raise Unavailable("no answer")

    failing = asyncio.create_task(fails())
    turn = await until_async(turns.give, SOON_S, "somebody to wait")
    assert not await turn.is_answered(SOON_S)
    with pytest.raises(Unavailable, match="no answer"):
        await failing
    late = asyncio.create_task(asks(turns, asked, "late", never))
    turn = await until_async(turns.give, SOON_S, "somebody to wait")
    assert not await turn.is_answered(0.01)
    never.set()
    await late
    assert await turn.is_answered(SOON_S)


async def test_who_is_given_no_turn_does_not_ask() -> None:
    turns, asked = Turns(0.01 / PATIENCE), list[str]()
    with pytest.raises(Unavailable, match="cannot ask the bucket"):
        await asks(turns, asked, "never")
    assert (asked, turns.give()) == ([], None)


async def test_a_timeout_of_the_question_is_its_own() -> None:
    turns = Turns(60.0)

    async def times_out() -> None:
        async with turns.take():
            raise TimeoutError

    asking = asyncio.create_task(times_out())
    turn = await until_async(turns.give, SOON_S, "somebody to wait")
    assert not await turn.is_answered(SOON_S)
    with pytest.raises(TimeoutError):
        await asking


async def test_who_goes_away_leaves_the_line() -> None:
    turns, asked = Turns(60.0), list[str]()
    gone = asyncio.create_task(asks(turns, asked, "gone"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait({gone})
    assert turns.give() is None
