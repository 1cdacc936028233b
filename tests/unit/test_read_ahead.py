"""How far the kernel reads ahead in a mount: by what its models have loaded, and only where the kernel lets it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.fuse.table import Entry
from mountd.mount.health import Facts
from mountd.mount.read_ahead import FAR_KIB, ReadAhead, is_all_here
from mountd.settings.schema import ModelSettings
from mountd.status.board import Board
from mountd.status.snapshot import ModelStatus, Snapshot
from tests.support.wait import until_async

ENTRY = Entry(40, 20, "0:39", "/", "/mnt/x", "fuse.rclone", "mountd:1:storage")
LIVE = ModelStatus("storage", "/srv/hub")


def model(mount: str = "storage", **warm: object) -> ModelSettings:
    return ModelSettings.model_validate(
        {"mount": mount, "directory": "hub_{version}", "link": "/srv/hub", "version": "v1", "warm": warm}
    )


@pytest.mark.parametrize(
    ("models", "shown", "expected"),
    [
        ({}, {}, False),
        ({"a": model()}, {}, False),
        ({"a": model()}, {"a": LIVE}, False),
        ({"a": model()}, {"a": replace(LIVE, level="data")}, True),
        ({"a": model(only_opened=True)}, {"a": replace(LIVE, level="data")}, False),
        ({"a": model("outputs")}, {"a": replace(LIVE, level="data")}, False),
        ({"a": model()}, {"a": replace(LIVE, level="pin", pinned=True)}, False),
        ({"a": model(), "b": model()}, {"a": replace(LIVE, level="data"), "b": LIVE}, False),
        (
            {"a": model(), "b": model()},
            {"a": replace(LIVE, level="data"), "b": replace(LIVE, level="pin", pinned=True)},
            True,
        ),
        ({"a": model(), "b": model("outputs")}, {"a": replace(LIVE, level="data"), "b": LIVE}, True),
    ],
)
def test_all_that_is_read_through_a_mount_is_here(
    models: Mapping[str, ModelSettings], shown: Mapping[str, ModelStatus], expected: bool
) -> None:
    assert is_all_here("storage", models, shown) is expected


@pytest.mark.parametrize(("first_kib", "far_kib"), [(128, FAR_KIB), (4096, 4096)])
async def test_it_goes_far_with_the_data_and_back_without(tmp_path: Path, first_kib: int, far_kib: int) -> None:
    file = tmp_path / ENTRY.device / "read_ahead_kb"
    file.parent.mkdir()
    file.write_text(f"{first_kib}\n")
    board = Board(Snapshot(models={"a": LIVE}))
    ahead = ReadAhead("storage", lambda: ENTRY, lambda: {"a": model()}, board, tmp_path)
    running = asyncio.create_task(ahead.run(lambda **_: Facts()))
    try:
        for level, kib in (("data", far_kib), ("metadata", first_kib), ("data", far_kib)):
            await asyncio.sleep(0)
            board.set_model("a", replace(LIVE, level=level))
            await until_async(lambda kib=kib: int(file.read_text() or 0) == kib, 30, "the kernel's read-ahead")  # type: ignore[misc]
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_what_changes_while_the_kernel_is_told_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ENTRY.device / "read_ahead_kb"
    file.parent.mkdir()
    file.write_text("128\n")
    board, loop, write = (
        Board(Snapshot(models={"a": replace(LIVE, level="data")})),
        asyncio.get_running_loop(),
        list[int](),
    )

    async def lose() -> None:
        board.set_model("a", LIVE)

    def slowly(path: Path, text: str, *rest: str) -> None:
        with path.open("w") as opened:
            opened.write(text)
        write.append(int(text))
        asyncio.run_coroutine_threadsafe(lose(), loop).result(30)

    monkeypatch.setattr(Path, "write_text", slowly)
    ahead = ReadAhead("storage", lambda: ENTRY, lambda: {"a": model()}, board, tmp_path)
    running = asyncio.create_task(ahead.run(lambda **_: Facts()))
    try:
        await until_async(lambda: write == [FAR_KIB, 128], 30, "the kernel's read-ahead")
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.mark.parametrize("content", [None, "no number"])
async def test_it_ends_where_the_kernel_does_not_let_it(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / ENTRY.device).mkdir()
        (tmp_path / ENTRY.device / "read_ahead_kb").write_text(content)
    board = Board(Snapshot(models={"a": replace(LIVE, level="data")}))
    for entry in (ENTRY, None):
        ahead = ReadAhead("storage", lambda entry=entry: entry, lambda: {"a": model()}, board, tmp_path)  # type: ignore[misc]
        async with asyncio.timeout(30):
            await ahead.run(lambda **_: Facts())
