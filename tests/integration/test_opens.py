"""Who opens what below a directory: seen by a process of its own, on a local disk and on a real mount."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mountd.errors import DiskError, DiskTimeout, ProbeNotSent
from mountd.warm import opens as opens_module
from mountd.warm.opens import Opens, OwnOpens
from mountd.warm.opens_worker import MOST_OPENS
from tests.support.mounts import Mounts, mounting, stop
from tests.support.wait import until_async

SOON_S = 30.0
MARKS = {"MOUNTD_INSTANCE": "test-opens"}
# Opens each file of its command line briefly, then maps the last one.
READER = """
import mmap, sys
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        file.read(1)
with open(sys.argv[-1], "rb") as file:
    held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
assert held[-1:]
"""


@contextlib.asynccontextmanager
async def watching(root: Path, *directories: str) -> AsyncIterator[Opens]:
    opens = Opens(str(root), directories, MARKS)
    try:
        await opens.start(SOON_S)
        yield opens
    finally:
        await opens.close()
        assert opens.pid is None


async def read(*paths: Path) -> None:
    """By a process of its own."""
    child = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", READER, *paths)
    async with asyncio.timeout(SOON_S):
        assert await child.wait() == 0


async def until_gone(opens: Opens) -> None:
    await until_async(lambda: opens.pid is None, SOON_S, "its process to be reaped")


async def until_seen(opens: Opens, path: str) -> None:
    await until_async(lambda: path in opens.seen, SOON_S, f"{path} to be seen")


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    root = tmp_path / "hub"
    for path in ("config.yaml", "models/gpt.pth", "models/模型 b#.bin", "models/caf\udce9", "other/x"):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"data")
    return root


async def test_files_are_seen_in_the_order_in_which_they_are_opened_first(hub: Path) -> None:
    async with watching(hub, "models", "") as opens:
        expected = ["models/模型 b#.bin", "config.yaml", "models/caf\udce9", "models/gpt.pth"]
        await read(*(hub / path for path in ("models/模型 b#.bin", "config.yaml", "models/caf\udce9")))
        os.listdir(hub / "models")
        await read(hub / "other/x", hub / "models/gpt.pth")
        await until_seen(opens, "models/gpt.pth")
        assert [*opens.seen] == expected
        times = [opens.seen[path].times[0] for path in expected]
        assert times == sorted(times)
        assert not opens.partial
        assert not opens.broken


async def test_each_report_is_passed_on_at_once(hub: Path) -> None:
    reported: list[str] = []
    opens = Opens(str(hub), ["models"], MARKS, on_open=reported.append)
    try:
        await opens.start(SOON_S)
        await read(hub / "models/gpt.pth")
        await until_async(lambda: reported, SOON_S, "it to be reported")
        assert {*reported} == {"models/gpt.pth"}
    finally:
        await opens.close()


async def test_of_many_opens_of_one_file_the_first_few_are_reported(hub: Path) -> None:
    async with watching(hub, "models", "") as opens:
        for _ in range(3 * MOST_OPENS):
            (hub / "models/gpt.pth").read_bytes()
            (hub / "config.yaml").read_bytes()
        (hub / "models/模型 b#.bin").read_bytes()
        await until_seen(opens, "models/模型 b#.bin")
        assert len(opens.seen["config.yaml"].times) == opens.seen["config.yaml"].count == MOST_OPENS
        assert not opens.partial


async def test_what_cannot_be_watched_is_said(hub: Path) -> None:
    async with watching(hub, "models", "none", "config.yaml") as opens:
        assert opens.partial
        (hub / "models/gpt.pth").read_bytes()
        await until_seen(opens, "models/gpt.pth")
    opens = Opens(str(hub), ["none"], MARKS)
    with pytest.raises(DiskError) as refused:
        await opens.start(SOON_S)
    assert refused.value.errno == errno.ENOENT
    await opens.close()
    assert opens.pid is None


async def test_a_process_that_is_killed_spoils_the_record(hub: Path) -> None:
    async with watching(hub, "models") as opens:
        assert opens.pid is not None
        os.kill(opens.pid, signal.SIGKILL)
        await until_async(lambda: opens.broken, SOON_S, "its end to be seen")
        await until_gone(opens)


async def test_without_a_process_nothing_is_said_of_the_disk(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORKER", Path("/no/such/worker.py")), ("sys", None)):
        with monkeypatch.context() as patched:
            if value is None:
                patched.setattr(sys, "executable", "/no/such/python")
            else:
                patched.setattr(opens_module, name, value)
            opens = Opens(str(hub), ["models"], MARKS)
            with pytest.raises(ProbeNotSent):
                await opens.start(SOON_S)
            await opens.close()
            await until_gone(opens)


async def test_what_the_process_is_given(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "must not be passed on")
    async with watching(hub, "models") as opens:
        proc = Path(f"/proc/{opens.pid}")
        names = {one.partition(b"=")[0] for one in (proc / "environ").read_bytes().split(b"\0") if one}
        assert names - {b"LC_CTYPE"} == {b"PATH", b"LANG", b"MOUNTD_INSTANCE"}
        assert os.readlink(proc / "cwd") == "/"
        assert opens.pid is not None
        assert os.getsid(opens.pid) == opens.pid


async def test_it_ends_with_the_daemon(hub: Path) -> None:
    """End of file on its stdin is enough: nobody is left to kill it."""
    async with watching(hub, "models") as opens:
        assert opens._worker is not None
        opens._worker.writer.close()
        await until_gone(opens)


async def test_start_and_close_leave_nothing_behind(hub: Path) -> None:
    async with watching(hub, "models"):
        pass  # what a first time opens for good
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        async with watching(hub, "models", "") as opens:
            (hub / "config.yaml").read_bytes()
            await until_seen(opens, "config.yaml")
    await until_async(lambda: set(os.listdir("/proc/self/fd")) == before, SOON_S, "every descriptor to be closed")


def test_own_opens_are_noted_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opens_module, "MOST_NOTES", 2)
    own = OwnOpens()
    for number, path in enumerate(("/a", "/b", "/a", "/c")):
        own.note(path, at=float(number))
    assert [own.of(path, 0.0) for path in ("/a", "/b", "/c")] == [[0.0, 2.0], [], [3.0]]
    assert own.of("/a", 1.0) == [2.0]
    for number in range(100):
        own.note("/a", at=float(number))
    assert own.of("/a", 0.0)[-1] == 99.0
    assert len(own.of("/a", 0.0)) == opens_module.NOTES_OF_A_FILE


# -- a real mount -----------------------------------------------------------------------------------------------------


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    with mounting(tmp_path) as mounts:
        yield mounts


@pytest.mark.fuse
async def test_opens_through_a_mount_are_seen_maps_included(mounts: Mounts, hub: Path, tmp_path: Path) -> None:
    point = tmp_path / "mnt"
    (hub / "models/caf\udce9").unlink()  # a name that rclone would change
    await asyncio.to_thread(mounts.start, str(point), remote=str(hub))
    async with watching(point, "models", "") as opens:
        await read(point / "models/模型 b#.bin", point / "config.yaml", point / "models/gpt.pth")
        await until_seen(opens, "models/gpt.pth")
        assert [*opens.seen] == ["models/模型 b#.bin", "config.yaml", "models/gpt.pth"]
        # A watch holds up no unmount, and does not outlive it.
        unmounted = await asyncio.to_thread(subprocess.run, ["fusermount3", "-u", str(point)], timeout=SOON_S)
        assert unmounted.returncode == 0
        await until_async(lambda: opens.broken, SOON_S, "the unmount to be seen")


@pytest.mark.fuse
async def test_a_mount_that_hangs_holds_up_nobody(mounts: Mounts, hub: Path, tmp_path: Path) -> None:
    point = tmp_path / "mnt"
    process = await asyncio.to_thread(mounts.start, str(point), remote=str(hub))
    stop(process)
    opens = Opens(str(point), ["models"], MARKS)
    try:
        with pytest.raises(DiskTimeout):
            await opens.start(0.5)
        async with asyncio.timeout(SOON_S):
            await opens.close()
    finally:
        process.kill()
    await until_gone(opens)
