"""The pinned versions of several models on one disk, which does one work after the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from mountd.warm.pinned import PinOrder, Pins
from mountd.warm.plan import WantedFile
from mountd.warm.results import FetchResult, WarmProgress
from tests.support.pinning import DIGEST, sha256_of, wanted

FILES = wanted({"a": b"content of a"})
LIMIT_S = 60.0


async def bring(files: Sequence[WantedFile], into: Path, report: Callable[[WarmProgress], None]) -> FetchResult:
    assert [each.sha256 for each in files] == [sha256_of(b"content of a")]
    await asyncio.to_thread((into / sha256_of(b"content of a")).write_bytes, b"content of a")
    return FetchResult(0)


def order(model: str) -> PinOrder:
    return PinOrder(model, "v1", DIGEST, FILES)


async def test_what_is_pinned_while_a_removal_waits_for_the_disk_stays(tmp_path: Path) -> None:
    pins = Pins(tmp_path, {})
    await pins.pin(order("first"), bring, lambda _: None)
    gate = threading.Event()
    works = []
    try:
        for work in (
            pins._disk.run(lambda: gate.wait(LIMIT_S), LIMIT_S),
            pins.pin(order("second"), bring, lambda _: None),  # goes from one work to the next before others get a turn
            pins.keep_only("first", ["v1"], 1),
        ):
            works.append(asyncio.create_task(work))
            await asyncio.sleep(0)
    finally:
        gate.set()
        await asyncio.gather(*works)
    for model in ("first", "second"):
        assert pins.record(model, "v1") is not None
        assert await asyncio.to_thread((Path(pins.tree(model, "v1")) / "a").read_bytes) == b"content of a"


async def test_what_is_pinned_does_not_wait_for_the_check_of_another_copy(tmp_path: Path) -> None:
    pins, gate = Pins(tmp_path, {}), threading.Event()
    await pins.pin(order("first"), bring, lambda _: None)
    check = asyncio.create_task(pins._checks.run(lambda: gate.wait(LIMIT_S), LIMIT_S))
    try:
        await asyncio.sleep(0)
        await pins.pin(order("second"), bring, lambda _: None)
        await pins.keep_only("second", [], 0)
        assert (check.done(), pins.record("second", "v1")) == (False, None)
    finally:
        gate.set()
        await check
    await pins.verify("first", "v1", lambda *_: None)
