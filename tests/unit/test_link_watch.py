"""A watch that is closed while it is set up leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from mountd.model import link_watch
from mountd.model.link_watch import LinkWatch

SOON_S = 30.0


async def test_one_that_is_closed_meanwhile_ends_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, closed = threading.Event(), threading.Event()
    places = link_watch.places

    def slowly(link: Path) -> dict[tuple[str, int, int], frozenset[str]]:
        begun.set()
        assert closed.wait(SOON_S)
        return places(link)

    monkeypatch.setattr(link_watch, "places", slowly)
    before = set(threading.enumerate())
    watch = LinkWatch(lambda: None)
    following = asyncio.create_task(watch.follow(tmp_path / "app" / "hub"))
    assert await asyncio.to_thread(begun.wait, SOON_S)
    watch.close()
    closed.set()
    await following
    assert watch._observer is None
    async with asyncio.timeout(SOON_S):
        while any(type(each).__module__.startswith("watchdog") for each in set(threading.enumerate()) - before):
            await asyncio.sleep(0.01)
