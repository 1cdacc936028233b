"""How many event streams are open, as the metrics show it, and data of events that are no JSON."""

from __future__ import annotations

from mountd.clock import now_text
from tests.support.wait import until_async
from tests.unit.test_history_api import SOON_S, Served, record, served

__all__ = ["served"]  # a fixture


async def test_open_streams_are_counted(served: Served) -> None:
    meters = served.board.meters
    async with served.stream(follow="1"), served.stream(follow="1"):
        await until_async(lambda: meters.event_streams == 2, SOON_S, "both streams to be counted")
    await until_async(lambda: meters.event_streams == 0, SOON_S, "both streams to be gone")


async def test_a_row_that_was_cut_hides_no_other(served: Served) -> None:
    """As an older mountd could write it."""
    sql = "INSERT INTO events (time, code, object, text, data) VALUES (?, 'ready', 'hub', ?, ?)"
    for data in ('{"key": "val…', "[1]", "[" * 10_000):
        await served.journal.rows(sql, now_text(), "bad", data)
    await record(served, "good")
    wanted = [("bad", None)] * 3 + [("good", None)]
    status, document = await served.get("/api/v1/events")
    assert (status, [(each["text"], each["data"]) for each in document["events"]]) == (200, wanted)
    async with served.stream(follow="1", after="0") as stream:
        assert [(each["text"], each["data"]) for each in await stream.events(4)] == wanted


async def test_data_that_is_too_large_leaves_out_the_largest(served: Served) -> None:
    await served.journal.event("ready", "hub", "x", {"of": "cause", "cause": "c" * 20_000, "list": ["y" * 9_000] * 3})
    await served.journal.event("ready", "hub", "x", {"of": "cause", "all": "c" * 16_000})
    _, document = await served.get("/api/v1/events")
    assert [each["data"] for each in document["events"]] == [{"of": "cause"}, {"of": "cause", "all": "c" * 16_000}]
