"""The pinned versions of several models on one disk, which does one work after the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mountd.warm.pinned import PinOrder, Pins
from mountd.warm.plan import WantedFile
from mountd.warm.results import FetchResult, WarmProgress
from mountd.warm.store import SweptPins
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
            pins.keep_only("first", lambda: ["v1"], 1),
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
        await pins.keep_only("second", list, 0)
        assert (check.done(), pins.record("second", "v1")) == (False, None)
    finally:
        gate.set()
        await check
    await pins.verify("first", "v1", lambda *_: None)


async def test_what_a_removal_takes_is_not_used_although_nobody_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins, gate = Pins(tmp_path, {}), threading.Event()
    await pins.pin(order("first"), bring, lambda _: None)
    store = await pins._open()
    sweep = store.sweep

    def slowly(*args: Any) -> SweptPins:
        gate.wait(LIMIT_S)
        return sweep(*args)

    monkeypatch.setattr(store, "sweep", slowly)
    removing = asyncio.create_task(pins.keep_only("first", list, 0))
    try:
        async with asyncio.timeout(LIMIT_S):
            while pins.record("first", "v1") is not None:
                await asyncio.sleep(0.005)
        removing.cancel()
        await asyncio.wait([removing])
    finally:
        gate.set()
    await pins._run(lambda: None, LIMIT_S)
    assert (pins.record("first", "v1"), await asyncio.to_thread(Path(pins.tree("first", "v1")).exists)) == (None, False)


async def test_of_two_versions_with_a_file_in_common_one_brings_it_and_the_other_waits(tmp_path: Path) -> None:
    contents = {"v1": {"shared": b"1", "old": b"2"}, "v2": {"shared": b"1", "new": b"3"}, "v3": {"other": b"4"}}
    pins, gate = Pins(tmp_path, {}), asyncio.Event()
    brought: list[str] = []
    waits: list[str] = []

    def pin(version: str) -> asyncio.Task[object]:
        files = contents[version]

        async def bring(some: Sequence[WantedFile], into: Path, report: Callable[[WarmProgress], None]) -> FetchResult:
            for each in some:
                brought.append(f"{version} {each.path}")
                await asyncio.to_thread((into / str(each.sha256)).write_bytes, files[each.path])
            if version == "v1":
                await gate.wait()
            return FetchResult(0)

        def note(progress: WarmProgress) -> None:
            if progress.waits_for:
                waits.append(version)

        return asyncio.create_task(pins.pin(PinOrder("hub", version, DIGEST, wanted(files)), bring, note))

    async with asyncio.timeout(LIMIT_S):
        first = pin("v1")
        while len(brought) < 2:
            await asyncio.sleep(0.005)
        given_up, second = pin("v2"), pin("v2")
        while len(waits) < 2:
            await asyncio.sleep(0.005)
        await pin("v3")
        given_up.cancel()
        gate.set()
        await asyncio.gather(first, second)
    assert (brought, set(waits)) == (["v1 shared", "v1 old", "v3 other", "v2 new"], {"v2"})
    assert given_up.cancelled()
    assert await asyncio.to_thread((Path(pins.tree("hub", "v2")) / "shared").read_bytes) == b"1"


async def test_while_all_are_to_stay_none_goes(tmp_path: Path) -> None:
    pins = Pins(tmp_path, {})
    await pins.pin(order("first"), bring, lambda _: None)
    await pins.keep_only("first", lambda: None, 0)
    assert pins.record("first", "v1") is not None
