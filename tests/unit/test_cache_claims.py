"""What the models of a mount keep in its cache: what is or may become live, and all while that is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mountd.cache.retention import CacheClaim
from mountd.journal.journal import Committed
from mountd.status.snapshot import Operation
from tests.support.reloader import Bench, bench

LIVE = Committed(current="v22", previous="v21", desired="v23", config_version="v22")
SWITCH = Operation(1, "switch", "hub", "v22", "v23", "tina", "cli", "warm", "2026-01-01T00:00:00Z")


async def claim(made: Bench, committed: Committed) -> CacheClaim:
    await made.journal.commit("hub", committed)
    await made.members.models["hub"].load()
    (found,) = made.members.cache_claims("storage")
    return found


async def test_the_live_the_previous_and_the_desired_version_are_needed() -> None:
    async with bench() as (made, _):
        found = await claim(made, LIVE)
        assert found.needed == {"v21", "v22", "v23"}
        assert (found.keep, found.paused) == (2, False)
        assert (found.layout.version_of("hub_v9"), found.layout.version_of("other_v9")) == ("v9", None)
        assert made.members.cache_claims("another") == []


async def test_what_the_link_points_at_is_needed_before_it_is_committed() -> None:
    async with bench() as (made, _):
        await claim(made, LIVE)
        status = made.board.snapshot.models["hub"]
        made.board.set_model("hub", replace(status, current="v24"))
        (found,) = made.members.cache_claims("storage")
        assert found.needed == {"v21", "v22", "v23", "v24"}


@pytest.mark.parametrize(
    "committed", [Committed(), replace(LIVE, suspended="tina: to compare")], ids=["nothing-is-live", "paused"]
)
async def test_all_is_kept_while_it_is_not_known_what_is_old(committed: Committed) -> None:
    async with bench() as (made, _):
        assert (await claim(made, committed)).paused


async def test_all_is_kept_while_an_operation_runs() -> None:
    async with bench() as (made, _):
        await claim(made, LIVE)
        made.board.set_operations(SWITCH)
        (found,) = made.members.cache_claims("storage")
        assert found.paused
        made.board.set_operations()
        (found,) = made.members.cache_claims("storage")
        assert not found.paused
