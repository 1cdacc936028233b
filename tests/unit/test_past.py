"""A rollback to what was live after an operation of the history: which ones there are, and what stands there then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.clock import now_text
from mountd.errors import NotFound, Refused, UsageError
from tests.support.shelf import TINA, Shelf, shelf, until


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Shelf]:
    async with shelf(tmp_path) as found, found.running():
        await until(lambda: found.status.linked, "v22 to be linked")
        yield found


async def test_any_committed_operation_can_be_gone_back_to(live: Shelf) -> None:
    first, second = await live.switch("v23"), await live.switch("v24")
    await live.switch("v25")
    asked = await live.operations.rollback(None, TINA, first.id)
    assert asked.record is not None
    assert (asked.record.kind, asked.record.from_version, asked.record.to_version) == ("rollback", "v25", "v23")
    assert str(first.id) in asked.record.reason
    await live.operations.outcome(asked.record)
    assert (live.target, live.model.committed.previous, live.model.committed.desired) == ("hub_v23", "v25", "v23")
    reasoned = await live.operations.rollback("hub", replace(TINA, reason="it was better"), second.id)
    assert reasoned.record is not None
    assert (reasoned.record.to_version, reasoned.record.reason) == ("v24", "it was better")
    await live.operations.outcome(reasoned.record)
    assert (await live.operations.rollback(None, TINA, reasoned.record.id)).record is None, "that is live"


@pytest.mark.parametrize("result", ["rolled-back", "refused", "cancelled", "interrupted", None])
async def test_one_that_was_not_committed_is_refused(live: Shelf, result: str | None) -> None:
    record = await live.begin("v23")
    if result is not None:
        await live.journal.finish(replace(record, finished=now_text(), result=result, exit_code=1))
    with pytest.raises(Refused):
        await live.operations.rollback(None, TINA, record.id)
    assert live.target == "hub_v22"


async def test_one_that_there_is_not_or_of_another_model(live: Shelf) -> None:
    done = await live.switch("v23")
    for id_ in (done.id + 1, 0, 2**63 - 1):
        with pytest.raises(NotFound):
            await live.operations.rollback(None, TINA, id_)
    with pytest.raises(UsageError):
        await live.operations.rollback("voices", TINA, done.id)
    other = await live.begin("v1", model="voices")
    await live.journal.finish(replace(other, finished=now_text(), result="committed", exit_code=0))
    with pytest.raises(NotFound):  # its model is not configured any more
        await live.operations.rollback(None, TINA, other.id)
